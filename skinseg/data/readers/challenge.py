"""The segmentation tasks of the ISIC Challenges (Task 1 of 2018, Part 1 of 2017 and 2016)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from skinseg.data.catalog import Catalog
from skinseg.data.files import below, find_images, walk, warn_of_others
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.assemble import assemble
from skinseg.data.readers.masks import MASK_SOURCES, find_masks, how_to_get_masks
from skinseg.data.readers.metadata import find_metadata, groups_of, lesion_advice
from skinseg.errors import SkinsegError

IMAGE_FOLDERS = {
    2018: r"ISIC2018_Task1-2_(Training|Validation|Test)_Input",
    2017: r"ISIC-2017_(Training|Validation|Test_v2)_Data",
    2016: r"ISBI2016_ISIC_Part1_(Training|Test)_Data",
}
_SIDE = {"training": "train", "validation": "val", "test": "test", "test_v2": "test"}


def read_challenge(
    root: Path,
    problems: Problems,
    *,
    year: int,
    masks: Sequence[str] | None = None,
    metadata: Sequence[str] = (),
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads the images and masks of one challenge, as its archives unpack.

    Args:
        root: A folder with the unpacked archives anywhere below.
        problems: What is to happen where things do not fit.
        year: 2018, 2017 or 2016.
        masks: Mask sources in order of precedence; see `masks.find_masks`. None: the challenge's own.
        metadata: Files of the ISIC Archive's metadata that do not lie below `root`. They give lesion ids,
            diagnosis, age, sex, site and licence.
        mask_folder: A folder of masks that come before those of all sources. See `masks.find_masks`.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `publisher_split` is the official division.

    Raises:
        SkinsegError: No data there, an unknown year, or a problem whose policy is "error".
    """
    if year not in IMAGE_FOLDERS:
        raise SkinsegError(f"data.reader.year={year}: expected one of {sorted(IMAGE_FOLDERS)}.")
    name = f"isic{year}"
    root = Path(root).expanduser()
    sources = [name] if masks is None else masks
    tree = list(walk(root)) if root.is_dir() else []
    pattern = re.compile(IMAGE_FOLDERS[year], re.IGNORECASE)
    images: dict[str, Path] = {}
    subset: dict[str, str] = {}
    reduced: list[str] = []
    for folder, _ in tree:
        if match := pattern.fullmatch(folder.name.strip()):
            found, passed_over = find_images(below(tree, folder))
            warn_of_others(below(tree, folder), found)
            reduced += passed_over
            for image_id, path in found.items():
                images.setdefault(image_id, path)
                subset.setdefault(image_id, _SIDE[match[1].lower()])
    if not images:
        looked = "and below" if tree else "(no such folder)"
        raise SkinsegError(
            f"No images of the ISIC Challenge {year} in {root.resolve()} {looked}; expected folders such as "
            f"{_example(year)} with JPEG files.\nHow to get them: {MASK_SOURCES[name].get}, then "
            "data.root=<the folder that holds them>."
        )
    annotations = find_masks(tree, sources, mask_folder)
    ids = pd.Series(sorted(images))
    known = find_metadata(tree, ids, metadata)
    group, group_source = groups_of(ids, known)
    table = pd.DataFrame(
        {
            "image_id": ids,
            "image": ids.map(images),
            "dataset": name,
            "group": group,
            "group_source": group_source,
            "diagnosis": ids.map(known["diagnosis"].to_dict()),
            "diagnosis_term": ids.map(known["term"].to_dict()),
            "publisher_split": ids.map(subset),
            **{column: ids.map(known[column].to_dict()) for column in ("age", "sex", "site", "licence")},
        }
    )
    return assemble(
        table,
        annotations,
        problems,
        verify=verify,
        missing_mask=f"has no mask in any of {', '.join(sources)}",
        advice={"missing_mask": how_to_get_masks(sources), "missing_lesion": lesion_advice(known)},
        notes={"reduced_copy": reduced},
    )


def _example(year: int) -> str:
    return re.sub(r"\(([^|]*)\|[^)]*\)", r"\1", IMAGE_FOLDERS[year])
