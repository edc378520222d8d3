"""How numbers, times and counts are written on a page."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from skinseg.counting import counted

UNDEFINED = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"  # as wide as a plus, unlike a hyphen


def defined(value: Any) -> bool:
    """Returns whether a value is a number, and neither None nor NaN."""
    return isinstance(value, int | float) and not math.isnan(value)


def decimals(unit: str) -> int:
    """Returns how many decimals a score of a unit is written with: shares go to the fourth."""
    return 4 if not unit else 2


def number(value: Any, unit: str = "", *, signed: bool = False) -> str:
    """Writes a score, without its unit.

    Args:
        value: The number, or None or NaN where it is undefined.
        unit: "" for a share, or "px", "%" and the like.
        signed: Whether to write a plus before what is above zero.

    Returns:
        The text, with a true minus sign so that columns of it line up.
    """
    return rounded(value, decimals(unit), signed=signed)


def rounded(value: Any, places: int, *, signed: bool = False) -> str:
    """Writes a number with a fixed count of decimals, and a dash where there is none."""
    if not defined(value):
        return UNDEFINED
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:{'+' if signed else ''},.{places}f}"
    if float(value) and not text.strip("+-0.,"):
        text = text.lstrip("+-")  # a minus before 0.0000 would claim a sign that the digits do not show
    return text.replace("-", MINUS)


def interval(low: Any, high: Any, unit: str = "", *, signed: bool = False) -> str:
    """Writes an interval, or an empty text where there is none."""
    if not (defined(low) and defined(high)):
        return ""
    return f"{number(low, unit, signed=signed)} to {number(high, unit, signed=signed)}"


def count(value: Any) -> str:
    """Writes a whole number with separators of thousands."""
    return f"{int(value):,}" if defined(value) else UNDEFINED


def p_value(value: Any) -> str:
    """Writes a p-value; below a tenth of a thousandth it is a bound."""
    if not defined(value):
        return UNDEFINED
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def percent(value: Any) -> str:
    """Writes a share as a percentage."""
    return f"{100 * value:.1f} %" if defined(value) else UNDEFINED


def undefined_share(undefined: int, images: int) -> str:
    """Writes on how many of the images a score has no value."""
    return f"{undefined:,} of {counted(images, 'image')} ({percent(undefined / images)})"


def millions(value: Any) -> str:
    """Writes a count of parameters."""
    return f"{value / 1e6:.1f} M" if defined(value) else UNDEFINED


def duration(seconds: Any) -> str:
    """Writes a time span in its two largest units."""
    if not defined(seconds):
        return UNDEFINED
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def moment(text: str) -> str:
    """Writes an ISO time as a date; what cannot be read stays as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = when.tzname() or ""
    # By hand: the month of strftime follows the locale.
    months = "January February March April May June July August September October November December"
    return f"{when.day} {months.split()[when.month - 1]} {when.year}, {when:%H:%M} {zone}".rstrip()


def heading(text: str) -> str:
    """Returns a text with a capital first letter and the rest as it was."""
    return text[:1].upper() + text[1:]
