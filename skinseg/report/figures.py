"""Figures as inline SVG that follows the page's theme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from skinseg.report.wording import defined

# Colours that nobody would draw with stand for the page's CSS variables until the SVG is written.
_VARIABLES = {
    "#010101": "--ink",
    "#010102": "--muted",
    "#010103": "--rule",
    "#010104": "--series-1",
    "#010105": "--series-2",
    "#010106": "--series-3",
    "#010107": "--faint",
}
_INK, _MUTED, _RULE, _FIRST, _SECOND, _THIRD, _FAINT = _VARIABLES
_SERIES = ((_FIRST, "-"), (_SECOND, "--"), (_THIRD, ":"), (_MUTED, "-."))

_STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 12,
    "axes.unicode_minus": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "font.size": 12,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the layout is the same everywhere
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in the name of a run is a dollar sign
}
_WIDTH = 420
_LONGEST_LABEL = 28


@dataclass(frozen=True)
class Row:
    """One line of an interval plot.

    Attributes:
        label: Text at the left.
        mean: Where the dot is; None leaves the line empty.
        low: Lower end of the interval, None without one.
        high: Its upper end.
        faint: Whether it is drawn in grey, since it rests on few.
        aside: What follows the label, and is never shortened with it.
    """

    label: str
    mean: float | None
    low: float | None
    high: float | None
    faint: bool = False
    aside: str = ""


def histogram(name: str, values: NDArray[np.float64], *, axis: str, unit: str, says: str) -> Markup:
    """Draws how one score spreads over the images.

    Args:
        name: Prefix of the ids in the SVG; differs between the figures of a page.
        values: One value an image; those that are not finite are left out.
        axis: Title of the horizontal axis.
        unit: Unit of the score; a share without a unit is drawn up to 1.
        says: What the figure shows, for those who cannot see it.

    Returns:
        The SVG element.
    """
    finite = values[np.isfinite(values)]
    with _drawing(_WIDTH, 240) as figure:
        axes = figure.add_subplot()
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if not unit and low >= 0 and high <= 1:
            # Bins of a width that can be named, starting a little below the lowest image.
            low, high = np.floor(low * 20) / 20, 1.0
        if high <= low:
            low, high = low - 0.5, high + 0.5
        axes.hist(finite, bins=40, range=(low, high), color=_FIRST, alpha=0.55, linewidth=0)
        if finite.size:
            first, middle, third = np.quantile(finite, [0.25, 0.5, 0.75])
            axes.axvspan(first, third, color=_FIRST, alpha=0.12, linewidth=0)
            axes.axvline(middle, color=_INK, linewidth=1.4)
        axes.set_xlabel(axis)
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(visible=False, axis="x")
        return _svg(figure, name, says)


def intervals(
    name: str,
    rows: Sequence[Row],
    *,
    axis: str,
    says: str,
    reference: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Draws means with their intervals below each other.

    Args:
        name: Prefix of the ids in the SVG.
        rows: From top to bottom.
        axis: Title of the horizontal axis.
        says: What the figure shows, for those who cannot see it.
        reference: Where an upright line is drawn, such as no difference or the mean of all.
        limits: Ends of the horizontal axis, so that figures of one score can be compared. None: as the rows
            need it.

    Returns:
        The SVG element.
    """
    with _drawing(_WIDTH, 62 + 24 * len(rows)) as figure:
        axes = figure.add_subplot()
        if reference is not None:
            axes.axvline(reference, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, row in enumerate(rows):
            colour = _FAINT if row.faint else _FIRST
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=colour, solid_capstyle="round")
            if row.mean is not None:
                # Hollow where it rests on few: grey alone is no difference to everybody.
                inside = "none" if row.faint else colour
                axes.plot([row.mean], [place], "o", markersize=6, color=colour, markerfacecolor=inside)
        axes.set_yticks(range(len(rows)), [_shortened(row.label) + row.aside for row in rows])
        if limits is not None:
            axes.set_xlim(*limits)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(_MUTED if row.faint else _INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)
        return _svg(figure, name, says)


def reliability(name: str, bins: Sequence[Mapping[str, Any]], *, says: str) -> Markup:
    """Draws what share of the pixels is lesion where the network said how likely it is.

    Args:
        name: Prefix of the ids in the SVG.
        bins: Each with `low`, `high`, `confidence`, `frequency` and `share`; the middle two are None where
            no pixel fell.
        says: What the figure shows, for those who cannot see it.

    Returns:
        The SVG element.
    """
    with _drawing(_WIDTH, 400) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        upper.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        met = [part for part in bins if defined(part["confidence"]) and defined(part["frequency"])]
        upper.plot(
            [part["confidence"] for part in met],
            [part["frequency"] for part in met],
            "o-",
            color=_FIRST,
            markersize=5,
        )
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is lesion")
        lower.bar(
            [part["low"] for part in bins],
            [max(part["share"] or 0, 0) for part in bins],
            width=[(part["high"] - part["low"]) * 0.94 for part in bins],
            align="edge",
            color=_FIRST,
            alpha=0.55,
            linewidth=0,
        )
        # Nearly all pixels are plain skin or plain lesion: linear bars would show two of them.
        lower.set_yscale("log")
        lower.set_ylim(top=1)
        lower.set(xlabel="predicted probability of lesion", ylabel="of pixels")
        lower.grid(visible=False, axis="x")
        lower.minorticks_off()
        lower.yaxis.set_major_locator(LogLocator(10, numticks=4))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        return _svg(figure, name, says)


def curves(name: str, series: Mapping[str, Sequence[Sequence[float]]], *, axis: str, says: str) -> Markup:
    """Draws values over the epochs of a training.

    Args:
        name: Prefix of the ids in the SVG.
        series: Pairs of epoch and value, by the name in the legend.
        axis: Title of the upright axis.
        says: What the figure shows, for those who cannot see it.

    Returns:
        The SVG element.
    """
    with _drawing(_WIDTH, 240) as figure:
        axes = figure.add_subplot()
        for place, (label, points) in enumerate(series.items()):
            colour, line = _SERIES[place % len(_SERIES)]
            drawn = [(epoch, value) for epoch, value in points if defined(value)]
            axes.plot(
                [epoch for epoch, _ in drawn],
                [value for _, value in drawn],
                color=colour,
                linestyle=line,
                marker="o" if len(drawn) == 1 else "",
                label=_shortened(label),
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(series) > 1:
            axes.legend()
        return _svg(figure, name, says)


@contextmanager
def _drawing(width: int, height: int) -> Iterator[Figure]:
    """Gives a figure of a size in units of the SVG, in our style whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE], after_reset=True):
        yield Figure(figsize=(width / 72, height / 72), layout="constrained")


def _svg(figure: Figure, name: str, says: str) -> Markup:
    """Writes a figure as an element that may stand in a page beside others."""
    with warnings.catch_warnings():
        # The browser draws the text, with fonts that have what DejaVu lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcParams["svg.hashsalt"] = name
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    _, _, inside = text[text.index("<svg") :].partition(">")
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    inside = inside.rpartition("</svg>")[0]
    # Its style sheet would hold for the whole page, and its metadata name the web.
    inside = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<!--.*?-->", "", inside, flags=re.DOTALL).replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', inside))

    def identified(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    def tag(match: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", match[0])
        text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
        text = re.sub(r" font-family: [^;\"]*;", "", text).replace("\n", " ")
        text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        return text

    # Between the tags stand names that somebody chose.
    inside = re.sub(r"<[^>]*>", tag, inside).replace("\n", "")
    return Markup(
        f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{escape(says)}">{inside}</svg>'
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
