"""Masks by image id: which published set has one, in what order they count, where each came from."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import ANNOTATION_COLUMNS
from skinseg.data.files import Tree, below, image_id_of, same_content, walk
from skinseg.errors import SkinsegError

log = logging.getLogger(__name__)

PSEUDO = "pseudo"
"""The source of masks that a network drew: trained on if wanted, never in a score."""

OWN = "own"
"""The source of masks in a folder of the user's that is named like no published source."""

_NAMED = re.compile(r"(?P<id>.+?)(_segmentation|_mask|_lesion)?\.png", re.IGNORECASE)
# IMA++ names annotator, tool and skill; its consensus masks (ST, MV) are nobody's annotation.
_IMAPLUSPLUS = re.compile(r"(?P<id>ISIC_\d{7})_(?P<annotator>A\d+_T\d_S\d)_.*\.png", re.IGNORECASE)


@dataclass(frozen=True)
class MaskSource:
    """A published set of masks.

    Attributes:
        folders: Pattern of the folders that its archives unpack to.
        files: Pattern of its files, with the groups `id` and perhaps `annotator`.
        get: What to do to get it.
    """

    folders: re.Pattern[str]
    get: str
    files: re.Pattern[str] = _NAMED


def _source(folders: str, get: str, files: re.Pattern[str] = _NAMED) -> MaskSource:
    return MaskSource(re.compile(folders, re.IGNORECASE), get, files)


MASK_SOURCES = {
    "ham10000": _source(
        # The second is the name of the Kaggle data set, which is mounted as a folder.
        r"HAM10000_segmentations_lesion_tschandl|ham10000-lesion-segmentations",
        "python -m skinseg.download data=ham10000",
    ),
    "isic2018": _source(
        r"ISIC2018_Task1_(Training|Validation|Test)_GroundTruth", "python -m skinseg.download data=isic2018"
    ),
    "isic2017": _source(
        r"ISIC-2017_(Training|Validation|Test_v2)_Part1_GroundTruth",
        "python -m skinseg.download data=isic2017",
    ),
    "isic2016": _source(
        r"ISBI2016_ISIC_Part1_(Training|Test)_GroundTruth", "python -m skinseg.download data=isic2016"
    ),
    "imaplusplus": _source(
        r"IMA(\+\+|plusplus).*|segs|seg_masks", "segs.zip of doi:10.5281/zenodo.14201692", _IMAPLUSPLUS
    ),
}
"""Where published masks of ISIC images lie once unpacked; the usual order of precedence."""


def how_to_get_masks(sources: Sequence[str] = tuple(MASK_SOURCES)) -> str:
    """Returns a line for each of the named sources: what to download."""
    width = max(map(len, MASK_SOURCES))
    lines = [f"  {name:{width}}  {MASK_SOURCES[name].get}" for name in sources if name in MASK_SOURCES]
    return "\n".join(["Published masks, to be unpacked below data.root:", *lines])


def find_masks(tree: Tree, sources: Sequence[str], folder: Path | None = None) -> pd.DataFrame:
    """Finds the masks of all sources.

    Args:
        tree: The folders in which published sources are looked for.
        sources: In order of precedence. Either a key of `MASK_SOURCES`, or `<name>:<folder>` for a source
            elsewhere: a key of `MASK_SOURCES`, "pseudo", or a name of one's own for masks named
            `<image_id>_segmentation.png`, `<image_id>_mask.png` or `<image_id>.png`.
        folder: That of `data.masks`; its masks come before all others. What lies in or below a folder with
            the name of a published source is of that source, the rest is `OWN`.

    Returns:
        A row per mask with `catalog.ANNOTATION_COLUMNS`, in order of precedence; `annotator` is missing where
        the source names none. Of several annotators of IMA++ experts come first, then manual tools.

    Raises:
        SkinsegError: An unknown source; a named folder that is missing, a file or a zip, or without masks; or
            a source has two masks of an image with different content.
    """
    _warn_of_archives(tree, sources)
    parts = [] if folder is None else [masks_given(folder)]
    for entry in sources:
        name, colon, place = entry.partition(":")
        if colon:
            parts.append(_in_folder(name, Path(place).expanduser()))
        elif name in MASK_SOURCES:
            pattern = MASK_SOURCES[name].folders
            found = [here for here, _ in tree if pattern.fullmatch(here.name.strip())]
            parts.append(_listed(name, [part for here in found for part in below(tree, here)]))
        else:
            raise SkinsegError(
                f"data.reader.masks: unknown source {entry!r}; known: {', '.join(MASK_SOURCES)}, "
                "or <name>:<folder> for one of your own (pseudo:<folder> for masks that a network drew)."
            )
    table = pd.concat([pd.DataFrame(columns=list(ANNOTATION_COLUMNS), dtype=object), *parts])
    return table.drop_duplicates(["image_id", "mask_source", "annotator"], ignore_index=True)


def masks_given(folder: Path) -> pd.DataFrame:
    """Returns the masks of the folder `data.masks`; see `find_masks`."""
    folder = folder.expanduser()
    tree = _named_folder(folder, f"data.masks={folder}")
    parts = []
    for here, names in tree:
        source = published_source(here, folder) or OWN
        found = _listed(source, [(here, names)])
        parts.append(found if len(found) else _listed(OWN, [(here, names)]))
    return _none_is_an_error(without_copies(pd.concat(parts)), f"data.masks={folder}")


def published_source(here: Path, top: Path) -> str | None:
    """Returns the published source that a folder, or one from `top` down to it, is named after."""
    for part in reversed(here.relative_to(top.parent).parts):
        for name, source in MASK_SOURCES.items():
            if source.folders.fullmatch(part.strip()):
                return name
    return None


def without_copies(masks: pd.DataFrame) -> pd.DataFrame:
    """Keeps the first of several equal masks that nested folders and second copies of an archive list.

    Args:
        masks: A row per mask with `catalog.ANNOTATION_COLUMNS`.

    Raises:
        SkinsegError: Two files claim to be one source's mask of one image, and differ.
    """
    key = ["image_id", "mask_source", "annotator"]
    first: dict[tuple[str, str], str] = {}
    # An annotator may have drawn an image twice.
    several = masks[masks["annotator"].isna() & masks.duplicated(key, keep=False)]
    columns = (several[name].map(str) for name in ("image_id", "mask_source", "mask"))
    for image_id, source, mask in zip(*columns, strict=True):
        known = first.setdefault((image_id, source), mask)
        if known != mask and not same_content(Path(known), Path(mask)):
            raise SkinsegError(
                f"The mask of {image_id} is there twice with different content: {known} and {mask}; "
                "remove one."
            )
    return masks.drop_duplicates(key, ignore_index=True)


def _in_folder(name: str, folder: Path) -> pd.DataFrame:
    where = f"data.reader.masks: {name}:{folder}"
    return _none_is_an_error(_listed(name, _named_folder(folder, where)), where)


def _named_folder(folder: Path, where: str) -> Tree:
    if folder.is_file():
        way = "unpack it and name the folder" if folder.suffix.lower() == ".zip" else "name a folder"
        raise SkinsegError(f"{where} is a file, expected a folder of PNG masks; {way}.")
    if not folder.is_dir():
        zipped = folder.with_name(f"{folder.name}.zip")
        hint = f"; {zipped.name} beside it is not unpacked yet" if zipped.is_file() else ""
        raise SkinsegError(f"{where}: no such folder{hint}.")
    return list(walk(folder))


def _none_is_an_error(found: pd.DataFrame, where: str) -> pd.DataFrame:
    if found.empty:
        raise SkinsegError(
            f"{where} holds no mask; expected files such as ISIC_0000000_segmentation.png in it or below."
        )
    return found


def _listed(name: str, tree: Tree) -> pd.DataFrame:
    pattern = MASK_SOURCES[name].files if name in MASK_SOURCES else _NAMED
    rows = []
    for folder, names in tree:
        for file in names:
            if match := pattern.fullmatch(file):
                annotator = match.groupdict().get("annotator")
                rows.append((image_id_of(match["id"]), str(folder / file), name, annotator))
    table = pd.DataFrame(rows, columns=list(ANNOTATION_COLUMNS), dtype=object)
    # A12_T1_S2: skill, then tool, then annotator.
    skill = table["annotator"].fillna("").map(lambda a: a.split("_")[::-1])
    return without_copies(table.iloc[skill.argsort(kind="stable")])


def _warn_of_archives(tree: Tree, sources: Sequence[str]) -> None:
    """A mask archive that was never unpacked looks like masks that nobody has published."""
    patterns = [MASK_SOURCES[name].folders for name in sources if name in MASK_SOURCES]
    present = {folder.name for folder, _ in tree}
    for folder, names in tree:
        for name in names:
            stem = name.removesuffix(".zip")
            if stem != name and stem not in present and any(p.fullmatch(stem) for p in patterns):
                log.warning("%s is not unpacked; its masks are not used.", folder / name)
