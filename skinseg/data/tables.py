"""Tables that people and publishers wrote: one reader, which reads a file or says why it does not."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd
from PIL import Image

from skinseg.counting import counted
from skinseg.data.files import image_id_of
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)

SEPARATORS = (",", ";", "\t")

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = ((b"PK\x03\x04", "an Excel workbook"), (b"\xd0\xcf\x11\xe0", "an old Excel workbook"))

# What R, pandas, SQL and Excel write where there is no value, and Excel where a formula failed. In these
# letters alone: "none" may be said of the hair in a photograph.
_MISSING = frozenset(
    [
        *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>"),
        *("#N/A", "#N/A N/A", "#NA", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"),
    ]
)
# What people write for a lesion that they do not know; taken as a name it would join all such images.
_NO_LESION = frozenset(
    ["-", "--", "?", ".", "na", "n.a.", "nil", "none", "unknown", "missing", "not available"]
) | {text.lower() for text in _MISSING}

# They are seen by nobody, and some programs leave them behind.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))

_PUBLISHED = re.compile(r"(HAM|IL)_\d{7}", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}([.,]\d{3})+", re.ASCII)


def read_table(
    path: Path | str, required: Sequence[str], *, known: Sequence[str] = (), key: str | None = None
) -> pd.DataFrame:
    """Reads a table of text, whichever program wrote it.

    Columns are separated by commas, semicolons or tabs, whichever makes the header hold most known names.
    The text is UTF-8, UTF-16 or UTF-32 by its byte-order mark, else UTF-8, else Windows-1252. Values lose the
    blanks around them, and letters of several code points are put together; of what is then left, an empty
    text and what programs write for nothing ("NA", "nan", "NULL", "#N/A", ...) are missing values. Rows
    without any value, and columns without a name, are left out.

    Args:
        path: The file. A first line `sep=;`, as Excel understands it, is taken.
        required: Columns that must be there. A column is one of these, or of `known`, whatever the case of
            its letters and whether blanks, hyphens or underscores part its words.
        known: Columns that may be there.
        key: The configuration key that named the file, for messages.

    Returns:
        A row per row of the file. Columns of text, named as in `required` and `known`, else as written.

    Raises:
        SkinsegError: The file cannot be read, a row has more values than the header, a column is missing or
            there twice, or there is no row.
    """
    path = Path(path)
    where = str(path) if key is None else f"{key}={path}"
    expected = " and ".join(", ".join(required or known).rsplit(", ", 1))
    try:
        text = _decoded(path)
        names = {_folded(name): name for name in (*required, *known)}
        header, rows = _best(text, names)
    except (OSError, ValueError, csv.Error) as error:
        raise SkinsegError(
            f"{where}: not a readable CSV table ({error}); expected the columns {expected}."
        ) from error
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    missing = [name for name in required if name not in header]
    if doubled or missing:
        what = f"lacks the columns {missing}" if missing else f"has several columns {doubled}"
        raise SkinsegError(
            f"{where} {what}; found the columns {', '.join(header)}; expected {expected}, "
            "each once, separated by commas, semicolons or tabs."
        )
    if not rows:
        raise SkinsegError(f"{where}: not a readable CSV table (it has a header and no row).")
    columns = {
        name: [np.nan if value in _MISSING else value for value in values]
        for name, values in zip(header, zip(*rows, strict=True), strict=True)
        if name
    }
    return pd.DataFrame(columns, dtype=object)


def numbers(texts: pd.Series, where: str, *, low: float = -np.inf, high: float = np.inf) -> pd.Series:
    """Reads a column of numbers and says which of its values are none.

    Args:
        texts: A column of `read_table`.
        where: The file, for the message.
        low: Least number that the column may hold.
        high: Greatest one.

    Returns:
        As `as_numbers`; what is no number, or lies outside, is NaN, counted and named in a warning.
    """
    values = as_numbers(texts)
    values = values.where(values.between(low, high))
    bad = texts[texts.notna() & values.isna()]
    if len(bad):
        of = f"of the {counted(int(texts.notna().sum()), 'value')} of the column {texts.name}"
        within = "" if low == -np.inf else f" from {low:g} to {high:g}"
        log.warning(
            "%s: %s as unknown, such as %s.",
            where,
            counted(
                len(bad), f"{of} is no number{within} and counts", f"{of} are no numbers{within} and count"
            ),
            some(map(repr, bad.unique())),
        )
    return values


def as_numbers(texts: pd.Series) -> pd.Series:
    """Reads a column of numbers, with decimal points or decimal commas.

    Args:
        texts: A column of `read_table`.

    Returns:
        float64; NaN where a value is missing, is no number, or may be two: "1,234" is a thousand or one and a
        bit, unless other values of the column show what its commas are.
    """
    decimal_comma = any(_COMMA.fullmatch(t) and not _THOUSANDS.fullmatch(t) for t in texts.dropna())

    def number(text: str) -> float:
        unclear = _THOUSANDS.fullmatch(text) and ("," in text) != decimal_comma
        found = float(text.replace(",", ".")) if _NUMBER.fullmatch(text) and not unclear else np.nan
        return found if np.isfinite(found) else np.nan

    return texts.map(number, na_action="ignore").astype(np.float64)


def image_ids(texts: pd.Series) -> pd.Series:
    """Returns the image ids that a column means.

    Args:
        texts: Ids or names of image files, also with folders before and an ending behind.

    Returns:
        Ids as `image_id_of` takes them from files, missing where the column is.
    """
    endings = {*Image.registered_extensions(), ".heic", ".heif", ".dcm"}

    def image_id(text: str) -> str:
        name = PureWindowsPath(text)
        return image_id_of(name.stem if name.suffix.lower() in endings else name.name)

    return texts.map(image_id, na_action="ignore")


def lesion_ids(texts: pd.Series, where: str) -> pd.Series:
    """Returns the lesion ids of a column: one spelling each, and none where people wrote that there is none.

    Args:
        texts: A column of `read_table`.
        where: The file, for the message about ids of several spellings.

    Returns:
        Ids. Those that differ only in letter case and blanks are one, in the spelling that sorts first.
    """
    ids = texts.mask(texts.str.lower().isin(_NO_LESION))
    ids = ids.map(lambda i: i.upper() if _PUBLISHED.fullmatch(i) else i, na_action="ignore")
    spellings: dict[str, set[str]] = {}
    for written in ids.dropna().unique():
        spellings.setdefault(" ".join(written.split()).casefold(), set()).add(written)
    several = {min(found): found for found in spellings.values() if len(found) > 1}
    if not several:
        return ids
    of = f"of the column {texts.name}"
    log.warning(
        "%s: %s taken for one lesion each, such as %s.",
        where,
        counted(
            len(several), f"id {of} has several spellings and is", f"ids {of} have several spellings and are"
        ),
        " and ".join(map(repr, sorted(next(iter(several.values()))))),
    )
    return ids.replace({written: first for first, found in several.items() for written in found})


def matching(ids: pd.Series, images: Iterable[str]) -> pd.Series:
    """Finds the images that a table means.

    Args:
        ids: As `image_ids` returns them.
        images: The ids that there are.

    Returns:
        Of each the id among `images`: the same, else the only one that differs in letter case alone; missing
        where there is none.
    """
    there = set(images)
    folded: dict[str, list[str]] = {}
    for image in there:
        folded.setdefault(image.casefold(), []).append(image)

    def find(written: str) -> str | None:
        alike = folded.get(written.casefold(), [])
        return written if written in there else alike[0] if len(alike) == 1 else None

    return ids.map(find, na_action="ignore")


def report_match(
    matched: pd.Series,
    ids: pd.Series,
    images: Iterable[str],
    where: str,
    *,
    what: str = "row",
    partly: int = logging.WARNING,
) -> None:
    """Says how many rows of a table are about the images at hand; none is a mistake.

    Args:
        matched: For each row whether it is.
        ids: What the rows say, to be shown.
        images: The ids of the images at hand.
        where: The key and the file.
        what: What a row is called.
        partly: Level of the message where some are not: a warning, or less where that is as it should be.

    Raises:
        SkinsegError: No row is about any of them.
    """
    images, others = sorted(images), ids[~matched].fillna("(blank)").unique()
    if not matched.any():
        raise SkinsegError(
            f"{where}: none of its {counted(len(ids), what)} matches any of the "
            f"{counted(len(images), 'image')}. Expected such as {images[0]}, found such as {others[0]}."
        )
    rest = f"; these do not: {some(others)}" if len(others) else ""
    of = f"of {counted(len(ids), what)}"
    log.log(
        partly if len(others) else logging.INFO,
        "%s: %s the %s%s.",
        where,
        counted(int(matched.sum()), f"{of} matches", f"{of} match"),
        counted(len(images), "image"),
        rest,
    )


def some(items: Iterable[str], most: int = 3) -> str:
    """Names the first few of several things, and says how many more there are."""
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most > 1 else ""
    return ", ".join(items[:most]) + more


def _clean(text: str) -> str:
    """Takes away what nobody sees: blanks around, also those that do not break, and marks of no width."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.casefold())


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    for mark, what in _BINARY:
        if content.startswith(mark):
            raise ValueError(f"it is {what}; save it as CSV")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
        text = content.decode("cp1252")
        log.info("%s is not UTF-8; its letters are taken for Windows-1252 (Western Europe).", path)
    if "\0" in text:
        raise ValueError("it holds zero bytes, so it is no text; save it as CSV in UTF-8")
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _best(text: str, names: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Parses with each separator that the header may have; returns header and rows of the best."""
    hint = re.match(r"\s*\"?sep=(.)\"?\r?\n", text)
    text = text if hint is None else text[hint.end() :]

    def header(separator: str) -> list[str]:
        try:
            cells = next((row for row in _rows(text, separator) if any(row)), [])
        except csv.Error:  # quoted for another separator
            return []
        written = [cell.strip("\"'") for cell in cells]
        return [names.get(_folded(name), name) for name in written]

    headers = {separator: header(separator) for separator in (SEPARATORS if hint is None else hint[1])}
    known = set(names.values())
    best = max(headers, key=lambda separator: (len(known & {*headers[separator]}), len(headers[separator])))
    rows = [row for row in _rows(text, best) if any(row)][1:]
    # A first column without a name is the index that pandas writes.
    for number, name in enumerate(headers[best]):
        if number and not name and any(row[number] for row in rows):
            raise ValueError(f"column {number + 1} has values and no name")
    return headers[best], rows


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """Yields rows of cleaned values, all as long as the first that has any."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    width = 0
    for row in reader:
        values = [_clean(value) for value in row]
        width = width or (len(values) if any(values) else 0)
        if width and any(values[width:]):
            raise ValueError(
                f"line {reader.line_num} has {counted(len(values), 'value')}, the header {width}: "
                f"{separator.join(row)[:80]}"
            )
        yield values[:width] + [""] * (width - len(values))
