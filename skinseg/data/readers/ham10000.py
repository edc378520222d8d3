"""HAM10000 with its published lesion masks, in the layouts that its users have on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Set
from pathlib import Path

import pandas as pd

from skinseg.counting import counted
from skinseg.data.catalog import ANNOTATION_COLUMNS, Catalog, join_groups, name_groups
from skinseg.data.diagnoses import DIAGNOSES
from skinseg.data.files import Tree, find_images, image_id_of, subfolders, walk
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.assemble import assemble
from skinseg.data.readers.masks import find_masks, without_copies
from skinseg.data.readers.metadata import HAM10000_LICENCE, HAM10000_NAMES, ages, diagnosis_codes, group_pairs
from skinseg.data.tables import image_ids, lesion_ids, matching, read_table
from skinseg.errors import SkinsegError
from skinseg.quoting import override, pasted

MASK_SUFFIX = "_segmentation.png"
SYNTHETIC_RECORD = "synthetic.json"
"""Marks a folder that `skinseg.data.readers.synthetic` has drawn."""

HOW_TO_GET = """\
How to get the data: python -m skinseg.download data=ham10000 data.root=<folder>, or by hand
  images and metadata: the Kaggle data set kmader/skin-cancer-mnist-ham10000
  masks: HAM10000_segmentations_lesion_tschandl.zip of doi:10.7910/DVN/DBW86T, unpacked beside the images
  then: data.root=<the folder that holds them>, and data.masks=<folder> where the masks lie elsewhere
Or try the framework without them: data=synthetic"""


_NAMES = {name.lower() for name in HAM10000_NAMES}
# What people call folders of masks that a network drew.
_PREDICTED = re.compile(r"(?<![a-z])(pred|output|result|pseudo)", re.IGNORECASE)
_OURS = ("evaluation.json", "provenance.json")  # beside the folder of masks that a network of ours drew


def read_ham10000(
    root: Path,
    problems: Problems,
    *,
    metadata: str | None = None,
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads HAM10000 from a folder.

    The folder, or the nearest one below it, holds `HAM10000_metadata.csv`; images are found by name anywhere
    below that (`HAM10000_images_part_1/` and `_part_2/`, one `images/`, ...), and masks in folders below
    `root` that are named like the published archive. Where the data set's own folder has none of that name,
    every `<image_id>_segmentation.png` in it counts, but for those of an evaluation and those in folders
    called predictions, output, results or the like. Hidden files and `__MACOSX` are skipped. The 18 pairs of
    images that show one lesion under two lesion ids (Abhishek et al., Sci Data 2025) are joined into one
    group.

    Args:
        root: The folder, or one that holds it.
        problems: What is to happen where files and metadata do not fit.
        metadata: A metadata file elsewhere. None: the one in the folder.
        mask_folder: A folder of masks that come before all others. See `find_masks`.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog. An age of 0 means unknown in this data set and becomes NaN.

    Raises:
        SkinsegError: No data there, bad metadata, two masks of an image that differ, or a problem whose
            policy is "error".
    """
    root = Path(root).expanduser()
    folder, metadata_path = _find(root, metadata)
    rows = _read_metadata(metadata_path)
    tree = list(walk(folder))
    images, reduced = find_images(tree)
    # Metadata may name an image in letters of another case than its file.
    rows["image_id"] = matching(rows["image_id"], images).fillna(rows["image_id"])

    for image_id in sorted(images.keys() - set(rows["image_id"])):
        problems.add("missing_metadata", image_id, f"{images[image_id]} is not in {metadata_path}")
    for image_id in sorted(set(rows["image_id"]) - images.keys()):
        problems.add(
            "missing_image", image_id, f"{image_id} (row of {metadata_path}) has no file below {folder}"
        )
    alone = rows["lesion_id"].isna()
    for image_id in sorted(set(rows.loc[alone, "image_id"]) & images.keys()):
        problems.add("missing_lesion", image_id, f"{image_id}: its row of {metadata_path} has no lesion_id")
    # A pair joins its lesions even where one of the two images is not here.
    groups = name_groups(rows["image_id"], rows["lesion_id"])
    pairs = group_pairs(dict(zip(rows["image_id"], groups, strict=True)))
    rows["group"] = join_groups(groups, pairs)
    rows["group_source"] = alone.map({True: "image", False: "ham10000"})
    rows = rows[rows["image_id"].isin(images.keys())]
    table = pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "image": rows["image_id"].map(images),
            "dataset": "ham10000",
            "group": rows["group"],
            "group_source": rows["group_source"],
            "diagnosis": rows["dx"],
            "diagnosis_term": rows["dx"],
            "publisher_split": None,
            "age": rows["age"],
            "sex": rows["sex"],
            "site": rows["localization"],
            "licence": HAM10000_LICENCE,
        }
    )
    masks, advice = _find_masks(tree, folder, root, mask_folder, set(rows["image_id"]))
    table["lesion_id"] = rows["lesion_id"]
    if "dataset" in rows:
        table["source"] = rows["dataset"]
    return assemble(
        table,
        masks,
        problems,
        verify=verify,
        missing_mask=f"has no mask *{MASK_SUFFIX} below {root}",
        advice={
            "missing_mask": advice,
            "missing_lesion": f"Their rows of {metadata_path} have no lesion_id; fill it in.",
        },
        notes={"reduced_copy": reduced},
    )


def _find(root: Path, metadata: str | None) -> tuple[Path, Path]:
    """Returns the data set's folder and its metadata file."""
    if root.is_file():
        raise SkinsegError(
            f"data.root={root} is a file; expected the folder that holds HAM10000.\n{HOW_TO_GET}"
        )
    if metadata is not None:
        path = Path(metadata).expanduser()
        if not path.is_file():
            raise SkinsegError(f"data.reader.metadata={path}: no such file.")
        if not root.is_dir():
            raise SkinsegError(f"data.root={root}: no such folder.\n{HOW_TO_GET}")
        return root, path
    # All that lies below is only listed where the folder and those in it do not have the file.
    for folders in (_near(root), walk(root)) if root.is_dir() else ():
        for folder, names in sorted(folders, key=lambda entry: _order(entry[0], root)):
            # Drawn images beside the real ones must not be taken for them.
            if folder == root or SYNTHETIC_RECORD not in names:
                for name in names:
                    if name.lower() in _NAMES:
                        return folder, folder / name
    looked = f"{root.resolve()} and below" if root.is_dir() else f"{root.resolve()} (no such folder)"
    raise SkinsegError(f"No HAM10000 here: looked for {HAM10000_NAMES[0]} in {looked}.\n{HOW_TO_GET}")


def _near(root: Path) -> Tree:
    """Returns a folder and those in it, with the names of their files."""
    folders = [root, *subfolders(root)]
    # What lies beside the data and may not be listed, such as a disk's lost+found, holds none of them.
    return [(here, next(os.walk(here), ("", [], []))[2]) for here in folders]


def _order(folder: Path, root: Path) -> tuple[int, bool, str]:
    """Sorts the nearest folders first, of these such with a telling name: there may be several data sets."""
    return len(folder.relative_to(root).parts), "ham10000" not in folder.name.lower(), str(folder)


def _read_metadata(path: Path) -> pd.DataFrame:
    columns = ["lesion_id", "image_id", "dx", "age", "sex", "localization"]
    rows = read_table(path, columns, known=["dataset"])
    rows["image_id"] = image_ids(rows["image_id"])
    rows["lesion_id"] = lesion_ids(rows["lesion_id"], str(path))
    rows["age"] = ages(rows["age"], str(path))
    if nameless := int(rows["image_id"].isna().sum()):
        raise SkinsegError(f"{path}: {counted(nameless, 'row has', 'rows have')} no image_id; fix the file.")
    twice = rows["image_id"][rows["image_id"].duplicated()].unique()
    if len(twice):
        raise SkinsegError(
            f"{path}: {counted(len(twice), 'image id is', 'image ids are')} listed more than once, e.g. "
            f"{', '.join(twice[:5])}; keep one row for each image."
        )
    codes = diagnosis_codes(rows["dx"])
    unknown = sorted(set(rows["dx"][codes.isna()].fillna("(empty)")))
    if unknown:
        raise SkinsegError(
            f"{path}: unknown diagnoses {unknown[:5]} in column dx; expected {list(DIAGNOSES)}."
        )
    return rows.assign(dx=codes)


def _find_masks(
    tree: Tree, folder: Path, root: Path, mask_folder: Path | None, wanted: Set[str]
) -> tuple[pd.DataFrame, str]:
    """Returns the masks, and what can be done for the images that have none.

    Masks that a network drew lie about in folders like these, too, so a name has to tell of a folder beside
    the data set's own that it holds the truth.
    """
    masks = find_masks([], [], mask_folder)
    beside: Tree = []
    if wanted - set(masks["image_id"]):
        published = find_masks(tree, ["ham10000"])
        others = _named_masks([entry for entry in tree if not _is_predicted(entry[0], folder)])
        own = without_copies(pd.concat([published, others]))
        masks = pd.concat([masks, published if len(published) else own], ignore_index=True)
    if folder != root and wanted - set(masks["image_id"]):
        beside = [(here, names) for here, names in walk(root) if folder not in (here, *here.parents)]
        masks = pd.concat([masks, find_masks(beside, ["ham10000"])], ignore_index=True)
    missing = wanted - set(masks["image_id"])
    candidates = _named_masks([*tree, *beside]) if missing else masks
    candidates = candidates[candidates["image_id"].isin(missing)]
    advice = HOW_TO_GET
    if len(candidates):
        places = candidates["mask"].map(lambda path: str(Path(path).parent)).value_counts()
        place = places.index[0]
        advice = (
            f"{place} holds masks of {places.iloc[0]} of them, but nothing says that somebody drew these. "
            f"If so: {pasted(override('data.masks', place))}"
        )
    return masks.drop_duplicates(["image_id", "mask_source"], ignore_index=True), advice


def _named_masks(tree: Tree) -> pd.DataFrame:
    """Returns all files that are named like masks of HAM10000."""
    rows = [
        (image_id_of(name[: -len(MASK_SUFFIX)]), str(folder / name), "ham10000", None)
        for folder, names in tree
        for name in names
        if name.lower().endswith(MASK_SUFFIX)
    ]
    return pd.DataFrame(rows, columns=list(ANNOTATION_COLUMNS), dtype=object)


def _is_predicted(here: Path, top: Path) -> bool:
    """Whether a folder's name, or what lies beside it, says that a network drew its masks."""
    named = any(_PREDICTED.search(part) for part in here.relative_to(top).parts)
    return named or any((here.parent / name).is_file() for name in _OURS)
