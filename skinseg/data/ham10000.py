"""HAM10000 with its published lesion masks, in the layouts that its users have on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import Catalog, Problems
from skinseg.data.files import inspect_files
from skinseg.errors import SkinsegError

METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata")
MASK_SUFFIX = "_segmentation.png"
SYNTHETIC_RECORD = "synthetic.json"
"""Marks a folder that `skinseg.data.synthetic` has drawn."""

LICENCE = "CC BY-NC 4.0"
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
"""The seven values of `dx` (Tschandl, Rosendahl, Kittler, Sci Data 2018, doi:10.1038/sdata.2018.161)."""

HOW_TO_GET = """\
How to get the data:
  images and metadata: the Kaggle data set kmader/skin-cancer-mnist-ham10000
  masks: HAM10000_segmentations_lesion_tschandl.zip of doi:10.7910/DVN/DBW86T, unpacked beside the images
  then: data.root=<the folder that holds them>
Or try the framework without them: data=synthetic"""


def read_ham10000(
    root: Path, problems: Problems, *, metadata: str | None = None, verify: bool = True
) -> Catalog:
    """Reads HAM10000 from a folder.

    The folder, or a folder in it, holds `HAM10000_metadata.csv`; images and masks are found by name
    anywhere below (`HAM10000_images_part_1/` and `_part_2/`, one `images/`, ...). Hidden files and
    `__MACOSX` are skipped. The 18 pairs of images that show one lesion under two lesion ids (Abhishek et
    al., Sci Data 2025) are joined into one group.

    Args:
        root: The folder, or one that holds it.
        problems: What is to happen where files and metadata do not fit.
        metadata: A metadata file elsewhere. None: the one in the folder.
        verify: Decode every file now. See `inspect_files`.

    Returns:
        The catalog. An age of 0 means unknown in this data set and becomes NaN.

    Raises:
        SkinsegError: No data there, bad metadata, or a problem whose policy is "error".
    """
    folder, metadata_path = _find(root, metadata)
    rows = _read_metadata(metadata_path)
    images, masks = _find_files(folder)

    for image_id in sorted(images.keys() - set(rows["image_id"])):
        problems.add("missing_metadata", image_id, f"{images[image_id]} is not in {metadata_path}")
    for image_id in sorted(set(rows["image_id"]) - images.keys()):
        problems.add(
            "missing_image", image_id, f"{image_id} (row of {metadata_path}) has no file below {folder}"
        )
    rows = rows[rows["image_id"].isin(images.keys())].copy()
    for image_id in sorted(set(rows["image_id"]) - masks.keys()):
        expected = f"{image_id}{MASK_SUFFIX}"
        problems.add("missing_mask", image_id, f"{images[image_id]} has no {expected} below {folder}")

    rows["image"] = rows["image_id"].map(images)
    rows["mask"] = rows["image_id"].map(masks)
    ids = rows["image_id"].tolist()
    size = inspect_files(ids, [images[i] for i in ids], [masks.get(i) for i in ids], problems, decode=verify)
    dropped = problems.settle()
    out = {image_id for ids in dropped.values() for image_id in ids}

    lesion = join_groups(rows["lesion_id"], rows["image_id"], duplicate_pairs())
    table = pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "image": rows["image"].map(str),
            "mask": rows["mask"].map(str, na_action="ignore"),
            "mask_source": "ham10000",
            "dataset": "ham10000",
            "group": lesion,
            "diagnosis": rows["dx"],
            "age": pd.to_numeric(rows["age"], errors="coerce").replace(0, float("nan")),
            "sex": rows["sex"].fillna("unknown"),
            "site": rows["localization"].fillna("unknown"),
            "width": size[:, 0],
            "height": size[:, 1],
            "licence": LICENCE,
        }
    )
    if "dataset" in rows:
        table["source"] = rows["dataset"]
    return Catalog(table[~table["image_id"].isin(out)], dropped)


def duplicate_pairs() -> list[tuple[str, str]]:
    """Returns the 18 published pairs of image ids that show one lesion under two lesion ids."""
    with resources.files("skinseg.data").joinpath("ham10000_duplicates.csv").open() as file:
        table = pd.read_csv(file, comment="#")
    return list(zip(table["a"], table["b"], strict=True))


def join_groups(
    groups: Iterable[str], image_ids: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> list[str]:
    """Joins the groups of each pair of images.

    Args:
        groups: The group of each image.
        image_ids: The id of each image.
        pairs: Pairs of image ids that show the same lesion. A pair with an absent id changes nothing.

    Returns:
        The group of each image; joined groups bear the name that sorts first.
    """
    groups = list(groups)
    group_of = dict(zip(image_ids, groups, strict=True))
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for a, b in pairs:
        if a in group_of and b in group_of:
            first, second = sorted((root(group_of[a]), root(group_of[b])))
            parent[second] = first
    return [root(group) for group in groups]


def _find(root: Path, metadata: str | None) -> tuple[Path, Path]:
    """Returns the data set's folder and its metadata file."""
    root = Path(root).expanduser()
    if root.is_file():
        raise SkinsegError(
            f"data.root={root} is a file; expected the folder that holds HAM10000.\n{HOW_TO_GET}"
        )
    # Folders one level down, those with a telling name first: `data.root` may hold several data sets.
    below = [p for p in root.iterdir() if p.is_dir() and not _is_junk(p)] if root.is_dir() else []
    # Drawn images beside the real ones must not be taken for them.
    below = [p for p in below if not (p / SYNTHETIC_RECORD).is_file()]
    below.sort(key=lambda p: ("ham10000" not in p.name.lower(), p.name))
    if metadata is not None:
        path = Path(metadata).expanduser()
        if not path.is_file():
            raise SkinsegError(f"data.reader.metadata={path}: no such file.")
        if not root.is_dir():
            raise SkinsegError(f"data.root={root}: no such folder.\n{HOW_TO_GET}")
        return root, path
    for folder in (root, *below):
        for name in METADATA_NAMES:
            if (folder / name).is_file():
                return folder, folder / name
    looked = (
        f"{root.resolve()} and the folders in it" if root.is_dir() else f"{root.resolve()} (no such folder)"
    )
    raise SkinsegError(f"No HAM10000 here: looked for {METADATA_NAMES[0]} in {looked}.\n{HOW_TO_GET}")


def _read_metadata(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, sep=None, engine="python")
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise SkinsegError(f"{path} is not a CSV table: {error}.") from error
    rows.columns = [str(column).strip().strip('"') for column in rows.columns]
    expected = ["lesion_id", "image_id", "dx", "age", "sex", "localization"]
    missing = [column for column in expected if column not in rows]
    if missing:
        raise SkinsegError(f"{path} lacks the columns {missing}; found {list(rows.columns)}.")
    for column in ("lesion_id", "image_id"):
        if rows[column].isna().any():
            raise SkinsegError(
                f"{path}: {int(rows[column].isna().sum())} rows have no {column}; mend the file."
            )
    twice = rows["image_id"][rows["image_id"].duplicated()].unique()
    if len(twice):
        raise SkinsegError(
            f"{path}: {len(twice)} image ids are listed more than once, e.g. {', '.join(twice[:5])}; "
            "keep one row for each image."
        )
    unknown = sorted(set(rows["dx"].fillna("(empty)")) - set(DIAGNOSES))
    if unknown:
        raise SkinsegError(
            f"{path}: unknown diagnoses {unknown[:5]} in column dx; expected {list(DIAGNOSES)}."
        )
    return rows


def _find_files(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
    """Returns image files and mask files below a folder, by image id."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in _walk(folder):
        if path.name.endswith(MASK_SUFFIX):
            found, image_id = masks, path.name.removesuffix(MASK_SUFFIX)
        elif path.suffix.lower() in (".jpg", ".jpeg"):
            found, image_id = images, path.stem
        else:
            continue
        known = found.setdefault(image_id, path)
        # Kaggle mounts this data set with a second copy in lower-case folders.
        if known != path and known.stat().st_size != path.stat().st_size:
            raise SkinsegError(
                f"{image_id} is there twice with different content: {known} and {path}; remove one."
            )
    return images, masks


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not _is_junk(here / name))
        yield from (here / name for name in sorted(names) if not _is_junk(here / name))


def _is_junk(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"
