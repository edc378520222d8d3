"""The Kaggle 9-class ISIC set: images in class folders, masks from the published sets by image id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from skinseg.data import diagnoses
from skinseg.data.catalog import Catalog
from skinseg.data.files import Tree, find_images, same_content, walk, warn_of_others
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.assemble import assemble
from skinseg.data.readers.masks import MASK_SOURCES, find_masks, how_to_get_masks
from skinseg.data.readers.metadata import find_metadata, groups_of, lesion_advice
from skinseg.errors import SkinsegError
from skinseg.nearest import nearest

FOLDER = "Skin cancer ISIC The International Skin Imaging Collaboration"
SUBSETS = ("train", "test")

HOW_TO_GET = f"""\
How to get the data:
  images: the Kaggle data set nodoubttome/skin-cancer9-classesisic (python -m skinseg.download data=isic9)
  expected: {FOLDER}/{{Train,Test}}/<class>/ISIC_xxxxxxx.jpg
  then: data.root=<the folder that holds it>"""


def read_isic9(
    root: Path,
    problems: Problems,
    *,
    masks: Sequence[str] = tuple(MASK_SOURCES),
    metadata: Sequence[str] = (),
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads the 9-class set, with masks, lesions and licences from what lies beside it.

    An id in several class folders is one image; folders of different diagnosis leave it without one
    (`notes["conflicting_diagnosis"]`). The publisher's subset of an id in Train and Test is "train+test".

    Args:
        root: A folder with the data set, its masks and metadata anywhere below, e.g. as Kaggle mounts it,
            with a second copy under a lower-case parent.
        problems: What is to happen where things do not fit.
        masks: Mask sources in order of precedence. See `masks.find_masks`.
        metadata: Files of HAM10000's or the ISIC Archive's metadata that do not lie below `root`. They give
            lesion ids, age, sex, site and licence.
        mask_folder: A folder of masks that come before those of all sources. See `masks.find_masks`.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog. `diagnosis_term` holds the class folders, joined by " | ". Further columns: `lesion_id`
        and `published_diagnosis` (a common term) from the metadata, and `files`, the number of class folders
        with the image.

    Raises:
        SkinsegError: No data there, an unknown class folder, two files of one name with different content, or
            a problem whose policy is "error".
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "a file; expected a folder" if root.is_file() else "no such folder"
        raise SkinsegError(f"data.root={root}: {what}.\n{HOW_TO_GET}")
    tree = list(walk(root))
    folders = _class_folders(tree, root)
    files: dict[tuple[str, str], dict[str, Path]] = {}
    reduced: set[str] = set()
    for subset, term in sorted({(subset, term) for subset, term, _ in folders}):
        # Several folders of one class are copies, in other letters or of another mount.
        copies = [part for s, t, part in folders if (s, t) == (subset, term)]
        inside = [entry for part in copies for entry in part]
        files[subset, term], passed_over = find_images(inside)
        warn_of_others(inside, files[subset, term])
        reduced.update(passed_over)
    rows = _rows(files)
    known = find_metadata(tree, rows["image_id"], metadata)
    table = _describe(rows, known)
    found = find_masks(tree, masks, mask_folder)
    notes = {
        "conflicting_diagnosis": table["image_id"][table["diagnosis"].isna()].tolist(),
        "reduced_copy": sorted(reduced),
        "empty_class_folder": sorted(
            f"{subset}/{term}" for (subset, term), images in files.items() if not images
        ),
    }
    return assemble(
        table,
        found,
        problems,
        verify=verify,
        missing_mask=f"has no mask in any of {', '.join(masks)}",
        advice={"missing_mask": how_to_get_masks(), "missing_lesion": lesion_advice(known)},
        notes=notes,
    )


def _class_folders(tree: Tree, root: Path) -> list[tuple[str, str, Tree]]:
    """Returns subset, class and files of each class folder, whatever the case and blanks of its name."""
    found: list[tuple[str, str, Tree]] = []
    inside = {folder for folder, _ in tree if _plain(folder.name) == _plain(FOLDER)} or {root}
    unknown: list[Path] = []
    for folder, names in tree:
        subset, holder = _plain(folder.parent.name), folder.parent.parent
        if subset not in SUBSETS or holder not in inside:
            continue
        term = _plain(folder.name)
        if term in diagnoses.ISIC9:
            found.append((subset, term, [(folder, names)]))
        else:
            unknown.append(folder)
    if not found:
        raise SkinsegError(f"No 9-class ISIC set in {root.resolve()} or below.\n{HOW_TO_GET}")
    if unknown:
        near = nearest(_plain(unknown[0].name), diagnoses.ISIC9)
        raise SkinsegError(
            f"Unknown class folders: {', '.join(map(str, unknown))}; expected {', '.join(diagnoses.ISIC9)}. "
            + (f"Did you mean {near[0]}? " if near else "")
            + "Rename or remove them."
        )
    return found


def _plain(name: str) -> str:
    """Folds case and blanks, which copies through other systems change."""
    return " ".join(name.casefold().split())


def _rows(files: dict[tuple[str, str], dict[str, Path]]) -> pd.DataFrame:
    """Returns a row per image id: its file, its terms and its subsets."""
    terms: dict[str, set[str]] = {}
    subsets: dict[str, set[str]] = {}
    paths: dict[str, Path] = {}
    for (subset, term), images in files.items():
        for image_id, path in images.items():
            terms.setdefault(image_id, set()).add(term)
            subsets.setdefault(image_id, set()).add(subset)
            known = paths.setdefault(image_id, path)
            if known is not path and not same_content(known, path):
                raise SkinsegError(
                    f"{image_id} is there twice with different content: {known} and {path}; remove one."
                )
    return pd.DataFrame(
        {
            "image_id": list(paths),
            "image": list(paths.values()),
            "terms": [sorted(terms[i]) for i in paths],
            "publisher_split": ["+".join(s for s in SUBSETS if s in subsets[i]) for i in paths],
            "files": [sum(i in images for images in files.values()) for i in paths],
        }
    )


def _describe(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Adds what is known of each image."""
    codes = rows["terms"].map(lambda terms: sorted({diagnoses.ISIC9[term] for term in terms}))
    ids = rows["image_id"]
    group, group_source = groups_of(ids, known)
    return pd.DataFrame(
        {
            "image_id": ids,
            "image": rows["image"],
            "dataset": "isic9",
            "group": group,
            "group_source": group_source,
            "diagnosis": codes.map(lambda found: found[0] if len(found) == 1 else None),
            "diagnosis_term": rows["terms"].map(" | ".join),
            "publisher_split": rows["publisher_split"],
            **{column: ids.map(known[column].to_dict()) for column in ("age", "sex", "site", "licence")},
            "lesion_id": ids.map(known["lesion_id"].to_dict()),
            "published_diagnosis": ids.map(known["diagnosis"].to_dict()),
            "files": rows["files"],
        }
    )
