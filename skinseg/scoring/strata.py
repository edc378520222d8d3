"""Kinds of photograph, patient and lesion by which scores are broken down.

A stratum is a row of `STRATA`: which raw column it is made of, and where that is cut. Edges are fixed, not
quantiles of the data at hand, so that a band means the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from skinseg.counting import counted
from skinseg.data.tables import as_numbers, image_ids, lesion_ids, read_table
from skinseg.errors import SkinsegError

UNKNOWN = "unknown"
"""The label of a missing value, the last category of every stratum."""

LESION = "lesion_id"
"""The column of a user's CSV that is no stratum."""

MOST_TEXTS = 30
"""How many distinct texts a column may have to be a stratum."""

MOST_NUMBERS = 12
"""How many distinct numbers a user's column may have to be taken as they are; more are cut into bands."""


@dataclass(frozen=True)
class Stratum:
    """How a raw column becomes a column of labels.

    Attributes:
        column: The column of labels.
        label: What it is called before people.
        source: The raw column.
        edges: Where numbers are cut, ascending; empty: values are their own labels.
        labels: One more than edges, from low to high.
        upper: Which band an edge belongs to: "open", the one above it; "closed", the one below it.
        note: What has to be known before it is believed; may be "".
    """

    column: str
    label: str
    source: str
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    upper: Literal["open", "closed"] = "open"
    note: str = ""


STRATA: tuple[Stratum, ...] = (
    Stratum(
        "stratum_age",
        "age",
        "age",
        (30, 45, 60, 75),
        ("<30", "30-44", "45-59", "60-74", "75+"),
        note="Years; HAM10000 and the ISIC Archive round to 5.",
    ),
    Stratum(
        "stratum_size",
        "lesion size",
        "lesion_share",
        (5, 15, 30),
        ("<5 %", "5-15 %", "15-30 %", "30+ %"),
        note="Of the frame, not in millimetres: how near the photograph was taken is unknown.",
    ),
    Stratum(
        "stratum_contrast",
        "contrast with the skin",
        "contrast",
        (5, 15, 25),
        ("<5", "5-15", "15-25", "25+"),
        note="In CIE L* (0 to 100) of an uncalibrated photograph; the lowest holds lighter lesions too.",
    ),
    Stratum("stratum_border", "touches the frame's edge", "touches_border", (0.5,), ("no", "yes")),
    Stratum(
        "stratum_hair",
        "hair",
        "hair",
        (0.5, 4),
        ("none", "some", "much"),
        note="A filter's estimate: fair and fine hair is missed, ruler marks and dark furrows count as hair.",
    ),
    Stratum(
        "stratum_skin_tone",
        "skin tone in the photograph",
        "ita",
        (-30, 10, 28, 41, 55, 90),
        ("dark", "brown", "tan", "intermediate", "light", "very light", "off the scale (bluish)"),
        "closed",
        "Classes of the individual typology angle (Chardon 1991, Del Bino 2013), which are a colorimeter's. "
        "Here lamp and white balance decide as much as skin, so this is no skin type.",
    ),
    Stratum("stratum_diagnosis", "diagnosis", "diagnosis"),
    Stratum("stratum_sex", "sex", "sex"),
    Stratum("stratum_site", "site", "site"),
    Stratum("stratum_dataset", "data set", "dataset"),
    Stratum(
        "stratum_mask_source",
        "source of the mask",
        "mask_source",
        note="Sources outline differently, so scores between them differ for that reason too.",
    ),
)
"""In the order of reports. The units are those of a catalog's columns and of `appearance.APPEARANCE`."""


def strata(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the labels of `STRATA`.

    Args:
        table: A row per image, with any of the raw columns. `lesion_share` is in % of the frame, as
            `appearance` gives it (an audit's is a share of 1).

    Returns:
        The table with a column more for each stratum whose raw column it has, as ordered categories: bands
        from low to high, other values by name, and last `UNKNOWN`, which missing values get. All bands are
        categories, whether or not an image is in them.

    Raises:
        ValueError: A column to be cut holds text.
    """
    found = {
        stratum.column: _bands(pd.to_numeric(table[stratum.source]), stratum)
        if stratum.edges
        else _values(table[stratum.source])
        for stratum in STRATA
        if stratum.source in table
    }
    return table.assign(**found)


def user_strata(path: Path | str) -> pd.DataFrame:
    """Reads strata of the user's own.

    Args:
        path: A table (see `read_table`) with image_id and further columns, each a stratum but for lesion_id,
            which `user_lesions` reads. Of text there may be `MOST_TEXTS` different values; of numbers any:
            where they are more than `MOST_NUMBERS`, they are cut into four bands of about as many images, by
            edges of three digits or as many as it takes.

    Returns:
        A row per image of the file: image_id, and each further column as ordered categories as `strata`
        makes them.

    Raises:
        SkinsegError: The file cannot be read, has no or doubled or missing image ids or nothing else, or a
            column of text has too many values.
    """
    table = _read(Path(path)).drop(columns=LESION, errors="ignore")
    for column in table.columns.drop("image_id"):
        texts = table[column]
        numbers = as_numbers(texts)
        words = texts[texts.notna() & numbers.isna()]
        if texts.notna().any() and words.empty:
            few = numbers.nunique() <= MOST_NUMBERS
            table[column] = _numbers(numbers) if few else _bands(numbers, _quarters(column, numbers))
            continue
        if texts.nunique() > MOST_TEXTS:
            some_words = f" ({counted(len(words), 'value is', 'values are')} none, such as {words.iloc[0]!r})"
            raise SkinsegError(
                f"{path}: column {column} has {texts.nunique()} different texts, expected at most "
                f"{MOST_TEXTS}, or numbers{some_words}; join some of them, or remove the column."
            )
        table[column] = _values(texts)
    return table


def user_lesions(path: Path | str) -> dict[str, str]:
    """Reads which images show one lesion.

    Args:
        path: As of `user_strata`.

    Returns:
        Lesion ids by image id, from the column lesion_id (see `lesion_ids`); images without one are left
        out, and all of them where there is no such column.

    Raises:
        SkinsegError: As `user_strata`.
    """
    table = _read(Path(path))
    if LESION not in table:
        return {}
    lesions = lesion_ids(table[LESION], str(path))
    return dict(zip(table["image_id"][lesions.notna()], lesions.dropna(), strict=True))


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path, ["image_id"], known=[LESION])
    if len(table.columns) < 2:
        raise SkinsegError(
            f"{path}: found the columns {', '.join(table.columns)}; expected image_id and at least one more, "
            "separated by commas, semicolons or tabs."
        )
    ids = image_ids(table["image_id"])
    if ids.isna().any():
        raise SkinsegError(
            f"{path}: {counted(int(ids.isna().sum()), 'row has', 'rows have')} no image_id; expected one "
            "in each."
        )
    if ids.duplicated().any():
        doubled = ids[ids.duplicated()].unique()
        raise SkinsegError(
            f"{path}: {counted(len(doubled), 'image id occurs', 'image ids occur')} twice, {doubled[0]} "
            "first; expected a row per image."
        )
    return table.assign(image_id=ids)[["image_id", *table.columns.drop("image_id")]]


def _bands(numbers: pd.Series[float], stratum: Stratum) -> pd.Series[str]:
    """Names the band of each number."""
    labels = pd.Index([*stratum.labels, UNKNOWN])
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    band = np.digitize(values, stratum.edges, right=stratum.upper == "closed")
    band[np.isnan(values)] = len(stratum.labels)
    return pd.Series(pd.Categorical.from_codes(band, labels, ordered=True), index=numbers.index)


def _values(texts: pd.Series[str]) -> pd.Series[str]:
    """Takes values as labels, sorted by name."""
    named = texts.astype(object).where(texts.notna(), UNKNOWN).astype(str)
    labels = [*sorted(set(named) - {UNKNOWN}), UNKNOWN]
    return pd.Series(pd.Categorical(named, labels, ordered=True), index=texts.index)


def _numbers(numbers: pd.Series[float]) -> pd.Series[str]:
    """Takes numbers as labels, sorted by size."""
    labels = [f"{value:.15g}" for value in np.sort(numbers.dropna().unique())]
    named = numbers.map("{:.15g}".format, na_action="ignore").astype(object).fillna(UNKNOWN)
    return pd.Series(pd.Categorical(named, [*labels, UNKNOWN], ordered=True), index=numbers.index)


def _quarters(column: str, numbers: pd.Series[float]) -> Stratum:
    """Cuts at the quartiles, rounded as far as no band is left empty."""
    values = numbers.dropna().to_numpy()
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], method="lower")
    # Nothing is above the largest value, where a quartile is if that is frequent.
    quartiles = np.unique(np.minimum(quartiles, values[values < values.max()].max()))
    texts: list[str] = []
    for digits in range(3, 18):
        texts = [f"{edge:.{digits}g}" for edge in quartiles]
        edges = [float(text) for text in texts]
        bands = np.unique(np.digitize(values, edges, right=True))
        if len(set(edges)) == len(edges) == len(bands) - 1:
            break
    between = [f"{a} to {b}" for a, b in pairwise(texts)]
    labels = (f"up to {texts[0]}", *between, f"above {texts[-1]}")
    return Stratum(column, column, column, tuple(map(float, texts)), labels, "closed")
