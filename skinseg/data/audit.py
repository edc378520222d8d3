"""What is wrong with a data set, and what has to be known of it before a score is believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.catalog import Catalog
from skinseg.data.damage import damage
from skinseg.data.diagnoses import DIAGNOSES, ISIC9
from skinseg.data.duplicates import Fingerprint, fingerprint
from skinseg.data.files import fit_mask, same_proportions
from skinseg.data.inputs import resize_mask
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS, UnreadableFileError, read_image, read_mask
from skinseg.data.problems import PROBLEMS, Problems
from skinseg.data.readers.metadata import is_ham10000
from skinseg.scoring.agreement import AGREEMENT_METRICS, pair_scores
from skinseg.scoring.appearance import contrast

Severity = Literal["problem", "caution", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "caution", "note")
"""From worst to mildest: what has to be corrected, what biases scores unless heeded, what is good to know."""

MEASURES = (
    "lesion_share",
    "regions",
    "holes",
    "touches_border",
    "lesion_corners",
    "edge_share",
    "input_share",
    "contrast",
    "image_spread",
    "damage",
)

# Lightness and shape need no more; most photographs are several times larger.
_SIDE = 256
# A picture whose grey values differ by less, as standard deviation, shows nothing.
_BLANK = 1.0
_LOW_CONTRAST = 5.0


@dataclass(frozen=True)
class Finding:
    """Something that an audit has found.

    Attributes:
        kind: A word for programs.
        severity: See `SEVERITIES`.
        text: A sentence for people, with the count.
        image_ids: Which images.
    """

    kind: str
    severity: Severity
    text: str
    image_ids: Sequence[str] = field(default_factory=list)


def measure(
    table: pd.DataFrame,
    image_size: tuple[int, int],
    advance: Callable[[], None] = lambda: None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> tuple[pd.DataFrame, dict[str, Fingerprint]]:
    """Looks at every image with its mask.

    Args:
        table: Rows of a catalog.
        image_size: Height and width of the network's input, in pixels.
        advance: Called after each image.
        max_megapixels: Most millions of pixels of a picture.

    Returns:
        A row per readable image with image_id and `MEASURES`: share of the frame that is lesion, number of
        its regions and of holes in them, whether it touches the frame's edge, how many of the frame's corners
        are lesion, which share of its edge is, lesion_share at the network's input, contrast (mean lightness
        of the surrounding ring of skin minus that of the lesion, CIE L*, 0 to 100; missing without a mask or
        a ring), image_spread (standard deviation of grey, 0 to 255), what `damage` says of image or mask. And
        the fingerprint of each image that shows anything.
    """

    def look(row: Any) -> tuple[dict[str, Any], Fingerprint | None] | None:
        try:
            image = read_image(row.image, (_SIDE, _SIDE), max_megapixels)
            mask = None if pd.isna(row.mask) else read_mask(row.mask, max_megapixels)
        except UnreadableFileError:
            return None
        finally:
            advance()
        spread = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std())
        files = [row.image] if mask is None else [row.image, row.mask]
        damages = ((Path(file).name, damage(file, max_megapixels)) for file in files)
        said = next((f"{name}: {words}" for name, words in damages if words is not None), None)
        found = {"image_id": row.image_id, "image_spread": spread, "damage": said}
        if mask is not None:
            found |= _look_at_mask(image, mask)
            native = fit_mask(mask, (row.height, row.width)) if row.height else mask
            found["input_share"] = float(resize_mask(native, image_size).mean())
        return found, fingerprint(image) if spread >= _BLANK else None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = [result for result in pool.map(look, table.itertuples()) if result is not None]
    rows = pd.DataFrame([found for found, _ in looked]).reindex(columns=["image_id", *MEASURES])
    return rows, {found["image_id"]: print_ for found, print_ in looked if print_ is not None}


def _look_at_mask(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> dict[str, Any]:
    lesion = (mask > 0).astype(np.uint8)
    contours, tree = cv2.findContours(lesion, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Hierarchy: next, previous, child, parent; who has a parent is the rim of a hole.
    holes = int((tree[0, :, 3] >= 0).sum()) if tree is not None else 0
    edge = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    return {
        "lesion_share": float(lesion.mean()),
        "regions": len(contours) - holes,
        "holes": holes,
        "touches_border": bool(edge.any()),
        "lesion_corners": int(lesion[[0, 0, -1, -1], [0, -1, 0, -1]].sum()),
        "edge_share": float(edge.mean()),
        "contrast": contrast(image, mask > 0),
    }


def findings(
    catalog: Catalog, problems: Problems, policy: Mapping[str, str], rows: pd.DataFrame
) -> list[Finding]:
    """Says what is wrong with a catalog and its files.

    Args:
        catalog: What fits.
        problems: What did not fit.
        policy: What a run does about each kind of problem, by key of `PROBLEMS`: "error", "drop" or "keep".
        rows: What `measure` returned.

    Returns:
        The findings, worst first.
    """
    found = [
        *_of_files(problems, policy),
        *_of_identity(catalog),
        *_of_publisher(catalog),
        *_of_pictures(rows),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_files(problems: Problems, policy: Mapping[str, str]) -> Iterator[Finding]:
    for kind, found in problems.found.items():
        if found:
            settled: Severity = "note" if policy[kind] == "keep" else "caution"
            first = next(iter(found.values()))
            details = f"{first}; and {len(found) - 1} more" if len(found) > 1 else first
            yield Finding(
                kind,
                "problem" if policy[kind] == "error" else settled,
                f"{counted(len(found), *PROBLEMS[kind])} (data.on_{kind}={policy[kind]}): {details}",
                sorted(found),
            )


def _of_identity(catalog: Catalog) -> Iterator[Finding]:
    table = catalog.table
    texts: dict[str, tuple[Severity, str, str, str]] = {
        "conflicting_diagnosis": (
            "caution",
            "image lies",
            "images lie",
            "in class folders of different diagnosis, which is left unknown",
        ),
        "same_file": (
            "caution",
            "file is",
            "files are",
            "byte-identical to one of another id; both are one lesion here",
        ),
        "in_several": ("note", "image is", "images are", "in several data sets; each is one row"),
        "mask_resized": (
            "note",
            "mask has its",
            "masks have their",
            "image's proportions but another size, scaled to the image's",
        ),
        "turned": (
            "caution",
            "image is",
            "images are",
            "stored turned or mirrored, with an EXIF orientation by which it is turned upright; of a mask of "
            "the same size nobody can tell whether it was drawn on the stored pixels",
        ),
        "reduced_copy": (
            "note",
            "image is",
            "images are",
            "there reduced (_downsampled) too; the larger one is taken",
        ),
        "empty_class_folder": ("caution", "class folder is", "class folders are", "empty"),
    }
    for kind, (severity, one, many, text) in texts.items():
        if ids := catalog.notes.get(kind):
            yield Finding(kind, severity, f"{counted(len(ids), one, many)} {text}", ids)
    if lone := table.loc[table["group_source"] == "image", "image_id"].tolist():
        text = counted(len(lone), "image has", "images have")
        text += " no published lesion id; each is a lesion of its own"
        yield Finding("no_lesion_id", "note", text, lone)
    if "published_diagnosis" in table:
        yield from _of_folders(table[table["published_diagnosis"].notna()])


def _of_folders(known: pd.DataFrame) -> Iterator[Finding]:
    """Compares class folders, where a data set has its terms from them, with what is published of images."""
    if known.empty:
        return
    terms = known["diagnosis_term"].str.split(" | ", regex=False)
    codes = terms.map(lambda names: {ISIC9[name] for name in names})
    differs = [p not in c for p, c in zip(known["published_diagnosis"], codes, strict=True)]
    if ids := known["image_id"][differs].tolist():
        text = f"{counted(len(ids), 'image is', 'images are')} in HAM10000 or the ISIC Archive what none of "
        text += "the class folders says"
        yield Finding("published_diagnosis_differs", "caution", text, ids)
    for term, code in ISIC9.items():
        inside = known[terms.map(lambda names, term=term: term in names)]
        published = inside["published_diagnosis"].value_counts()
        if len(published) and published.index[0] != code:
            of = f"of the {counted(len(inside), 'image')} under '{term}'"
            text = f"{counted(int(published.iloc[0]), f'{of} is', f'{of} are')} published as "
            text += DIAGNOSES[str(published.index[0])]
            yield Finding("folder_means_another_diagnosis", "caution", text, inside["image_id"].tolist())


def _of_publisher(catalog: Catalog) -> Iterator[Finding]:
    table = catalog.table
    subset = table["publisher_split"].astype(str)
    if both := table.loc[subset.str.contains("+", regex=False), "image_id"].tolist():
        of = "of the publisher's test subset"
        text = f"{counted(len(both), f'image {of} is', f'images {of} are')} also in its Train"
        yield Finding("id_on_both_sides", "caution", text, both)
    trained = set(table.loc[subset.str.contains("train"), "group"])
    leaks = table.loc[subset.isin(["test", "val"]) & table["group"].isin(trained), "image_id"].tolist()
    if leaks:
        of = "of the publisher's test subset"
        text = counted(len(leaks), f"more image {of} shares", f"more images {of} share")
        text += " a lesion with its Train"
        yield Finding("lesion_on_both_sides", "caution", text, leaks)


def _of_pictures(rows: pd.DataFrame) -> Iterator[Finding]:
    masked = rows[rows["lesion_share"].notna()]
    light = int((masked["contrast"] < 0).sum())
    darker_by = masked["contrast"]
    damaged = rows["damage"].notna()
    # An inverted mask has all corners of the frame and its hole within; one of a lesion that fills the frame
    # has them too, and what it leaves out is at the edge.
    turned = (masked["lesion_corners"] == 4) & (masked["lesion_share"] < masked["edge_share"])
    part = turned.sum() / max(1, len(masked))
    lighter = f"lighter than the surrounding skin ({light / max(1, len(masked)):.1%})"
    faint = f"from the surrounding skin by less than {_LOW_CONTRAST:.0f} of 100 in lightness"
    broken = "damaged, and yet decodable: a part of the picture is grey, shifted or lost"
    broken += "".join(f" ({words})" for words in rows["damage"][damaged].head(1))
    inverted = "lesion in all four corners and skin within: lesion and skin may be swapped"
    lost = "too small for data.image_size: nothing of it is left in what a network sees"
    vanishes = (masked["lesion_share"] > 0) & (masked["input_share"] == 0)
    has = (f"mask ({part:.1%}) has", f"masks ({part:.1%}) have")
    touches = masked["touches_border"].astype(bool)
    judged: tuple[tuple[str, Severity, tuple[str, str], str, pd.Series], ...] = (
        (
            "blank_image",
            "problem",
            ("image is", "images are"),
            "of one colour",
            rows["image_spread"] < _BLANK,
        ),
        ("empty_mask", "problem", ("mask holds", "masks hold"), "no lesion", masked["lesion_share"] == 0),
        ("damaged_file", "caution", ("file is", "files are"), broken, damaged),
        ("inverted_mask", "caution", has, inverted, turned),
        ("vanishing_lesion", "caution", ("lesion is", "lesions are"), lost, vanishes),
        (
            "full_mask",
            "caution",
            ("mask covers", "masks cover"),
            "the whole frame",
            masked["lesion_share"] == 1,
        ),
        ("several_regions", "note", ("mask has", "masks have"), "several regions", masked["regions"] > 1),
        ("holes", "note", ("mask has", "masks have"), "holes", masked["holes"] > 0),
        ("touches_border", "note", ("mask touches", "masks touch"), "the frame's edge", touches),
        ("lighter_lesion", "note", ("lesion is", "lesions are"), lighter, darker_by < 0),
        (
            "low_contrast",
            "note",
            ("lesion differs", "lesions differ"),
            faint,
            darker_by.abs() < _LOW_CONTRAST,
        ),
    )
    for kind, severity, forms, text, where in judged:
        ids = rows.loc[where[where].index, "image_id"].tolist()
        if ids:
            yield Finding(kind, severity, f"{counted(len(ids), *forms)} {text}", ids)


def verdict(found: Sequence[Finding]) -> tuple[Severity | None, str]:
    """Sums up an audit: the worst severity, and a sentence."""
    count = {severity: sum(f.severity == severity for f in found) for severity in SEVERITIES}
    if count["problem"]:
        return (
            "problem",
            "NOT USABLE AS IT IS: "
            f"{counted(count['problem'], 'kind of problem has', 'kinds of problem have')} to be settled.",
        )
    if count["caution"]:
        return (
            "caution",
            f"USABLE WITH CARE: {counted(count['caution'], 'kind of caution', 'kinds of caution')}.",
        )
    return (("note" if count["note"] else None), "USABLE.")


def agreement(catalog: Catalog, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> pd.DataFrame:
    """Compares the masks of images that have several.

    Args:
        catalog: The images with all their masks.
        max_megapixels: Most millions of pixels of a mask.

    Returns:
        A row per pair of masks: image_id, first, second (annotator and source), height, width and the scores
        of `scoring.agreement.pair_scores`, with all masks at the image's own size.
    """
    masks = catalog.annotations
    several = masks[masks["image_id"].duplicated(keep=False)]
    table = catalog.table
    native = dict(zip(table["image_id"], zip(table["height"], table["width"], strict=True), strict=True))
    rows: list[dict[str, object]] = []
    for image_id, found in several.groupby("image_id"):
        by_whom: dict[str, NDArray[np.bool_]] = {}
        size = native.get(str(image_id), (0, 0))
        for row in found.astype(object).where(found.notna(), None).itertuples():
            try:
                mask = read_mask(str(row.mask), max_megapixels)
            except UnreadableFileError:
                continue
            if size[0] == 0:
                size = (mask.shape[0], mask.shape[1])
            if same_proportions((mask.shape[0], mask.shape[1]), size):
                who = (str(word) for word in (row.mask_source, row.annotator) if word is not None)
                by_whom[" ".join(who)] = fit_mask(mask, size) > 0
        rows += [{"image_id": image_id, **scores} for scores in pair_scores(by_whom)]
    return pd.DataFrame(rows, columns=["image_id", "first", "second", "height", "width", *AGREEMENT_METRICS])


def facts(catalog: Catalog) -> dict[str, dict[str, int]]:
    """Counts a catalog: images, lesions, by class, size, source, licence, images per lesion."""
    table = catalog.table

    def counts(values: pd.Series) -> dict[str, int]:
        return {str(key): int(n) for key, n in values.astype(object).fillna("none").value_counts().items()}

    totals = {
        "files": int(table["files"].sum()) if "files" in table else len(table),
        "images": len(table),
        "images_of_ham10000": int(table["image_id"].map(is_ham10000).sum()),
        "lesion_ids": int(table["lesion_id"].nunique()) if "lesion_id" in table else 0,
        "lesions": int(table["group"].nunique()),
        "with_mask": int(table["mask"].notna().sum()),
    }
    size = table["width"].astype(str) + "x" + table["height"].astype(str)
    per_lesion = table["group"].value_counts().value_counts().sort_index()
    return {
        "totals": totals,
        "dataset": counts(table["dataset"]),
        "diagnosis": counts(table["diagnosis"]),
        "diagnosis_term": counts(table["diagnosis_term"]),
        "mask_source": counts(table["mask_source"]),
        "lesion_id_from": counts(table["group_source"]),
        "images_per_lesion": {str(images): int(lesions) for images, lesions in per_lesion.items()},
        "size": counts(size),
        "sex": counts(table["sex"]),
        "licence": counts(table["licence"]),
    }
