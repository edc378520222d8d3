"""HAM10000 with its published lesion masks, in the layouts that its users have on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from skinseg.data.assemble import assemble
from skinseg.data.catalog import ANNOTATION_COLUMNS, Catalog, Problems, join_groups
from skinseg.data.diagnoses import DIAGNOSES
from skinseg.data.files import Tree, Verify, find_images, image_id_of, same_content, subfolders, walk
from skinseg.data.masks import MASK_SOURCES
from skinseg.data.metadata import HAM10000_LICENCE, HAM10000_NAMES, group_pairs
from skinseg.errors import SkinsegError

MASK_SUFFIX = "_segmentation.png"
SYNTHETIC_RECORD = "synthetic.json"
"""Marks a folder that `skinseg.data.synthetic` has drawn."""

HOW_TO_GET = """\
How to get the data: python -m skinseg.download data=ham10000 data.root=<folder>, or by hand
  images and metadata: the Kaggle data set kmader/skin-cancer-mnist-ham10000
  masks: HAM10000_segmentations_lesion_tschandl.zip of doi:10.7910/DVN/DBW86T, unpacked beside the images
  then: data.root=<the folder that holds them>
Or try the framework without them: data=synthetic"""


def read_ham10000(
    root: Path, problems: Problems, *, metadata: str | None = None, verify: Verify = True
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
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog. An age of 0 means unknown in this data set and becomes NaN.

    Raises:
        SkinsegError: No data there, bad metadata, or a problem whose policy is "error".
    """
    folder, metadata_path = _find(root, metadata)
    rows = _read_metadata(metadata_path)
    tree = list(walk(folder))
    images, reduced = find_images(tree)
    masks = _find_masks([*tree, *_masks_beside(folder, Path(root).expanduser())])

    for image_id in sorted(images.keys() - set(rows["image_id"])):
        problems.add("missing_metadata", image_id, f"{images[image_id]} is not in {metadata_path}")
    for image_id in sorted(set(rows["image_id"]) - images.keys()):
        problems.add(
            "missing_image", image_id, f"{image_id} (row of {metadata_path}) has no file below {folder}"
        )
    # A pair joins its lesions even where one of the two images is not here.
    pairs = group_pairs(dict(zip(rows["image_id"], rows["lesion_id"], strict=True)))
    rows["group"] = join_groups(rows["lesion_id"], pairs)
    rows = rows[rows["image_id"].isin(images.keys())]
    table = pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "image": rows["image_id"].map(images),
            "dataset": "ham10000",
            "group": rows["group"],
            "group_source": "ham10000",
            "diagnosis": rows["dx"],
            "diagnosis_term": rows["dx"],
            "publisher_split": None,
            "age": pd.to_numeric(rows["age"], errors="coerce").replace(0, float("nan")),
            "sex": rows["sex"],
            "site": rows["localization"],
            "licence": HAM10000_LICENCE,
        }
    )
    table["lesion_id"] = rows["lesion_id"]
    if "dataset" in rows:
        table["source"] = rows["dataset"]
    return assemble(
        table,
        masks,
        problems,
        verify=verify,
        missing_mask=f"has no mask *{MASK_SUFFIX} below {folder}",
        notes={"reduced_copy": reduced},
    )


def _find(root: Path, metadata: str | None) -> tuple[Path, Path]:
    """Returns the data set's folder and its metadata file."""
    root = Path(root).expanduser()
    if root.is_file():
        raise SkinsegError(
            f"data.root={root} is a file; expected the folder that holds HAM10000.\n{HOW_TO_GET}"
        )
    # Folders one level down, those with a telling name first: `data.root` may hold several data sets.
    below = subfolders(root) if root.is_dir() else []
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
        for name in HAM10000_NAMES:
            if (folder / name).is_file():
                return folder, folder / name
    looked = (
        f"{root.resolve()} and the folders in it" if root.is_dir() else f"{root.resolve()} (no such folder)"
    )
    raise SkinsegError(f"No HAM10000 here: looked for {HAM10000_NAMES[0]} in {looked}.\n{HOW_TO_GET}")


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


def _masks_beside(folder: Path, root: Path) -> Tree:
    """Returns the folders of unpacked masks beside the data set's own, in the folder that holds both."""
    if folder == root:
        return []
    pattern = MASK_SOURCES["ham10000"].folders
    beside = [path for path in subfolders(root) if pattern.fullmatch(path.name)]
    return [entry for path in beside for entry in walk(path)]


def _find_masks(tree: Tree) -> pd.DataFrame:
    """Returns the masks of a folder, which may lie anywhere in it."""
    masks: dict[str, Path] = {}
    for folder, names in tree:
        for name in names:
            if name.endswith(MASK_SUFFIX):
                path = folder / name
                known = masks.setdefault(image_id_of(name.removesuffix(MASK_SUFFIX)), path)
                # Kaggle mounts this data set with a second copy in lower-case folders.
                if known is not path and not same_content(known, path):
                    raise SkinsegError(
                        f"{name} is there twice with different content: {known} and {path}; remove one."
                    )
    rows = [(image_id, str(path), "ham10000", None) for image_id, path in masks.items()]
    return pd.DataFrame(rows, columns=list(ANNOTATION_COLUMNS))
