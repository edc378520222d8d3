"""Drawn dermoscopy in HAM10000's layout, for demonstrations and tests without patient data.

A lesion is a set of charts of what absorbs light in the skin (melanin, blood) or scatters it (the
blue-white veil, scales, scars). Its photographs look at the same charts under other rotations, zooms,
lights and hairs, so that a split that is not by lesion leaks here as it does in HAM10000. Colours follow
from the Beer-Lambert law: the skin's tone times exp(-absorption). Scores on these images say nothing of
real skin.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pandas as pd
from PIL import Image

from skinseg.data.catalog import DRAWN, Catalog
from skinseg.data.inspection import Verify
from skinseg.data.problems import Problems
from skinseg.data.readers.ham10000 import MASK_SUFFIX, SYNTHETIC_RECORD, read_ham10000
from skinseg.data.readers.invented import FIRST_NUMBER, describe_lesion
from skinseg.data.readers.invented_pictures import draw_lesion_images
from skinseg.data.readers.metadata import HAM10000_NAMES
from skinseg.errors import SkinsegError

GENERATOR_VERSION = 1
"""Goes up whenever the same parameters would draw other pictures."""

LICENCE = "none (drawn)"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
JPEG_QUALITY = 92
MOST_LESIONS = 250_000
LEAST_SIDE = 32


def write_synthetic_ham10000(
    root: Path,
    *,
    lesions: int = 240,
    width: int = 200,
    height: int = 150,
    seed: int = 0,
    draw: bool = True,
) -> Path:
    """Writes a drawn data set in HAM10000's folder layout, unless it is already there.

    The folder appears at once when all of it is written. The n-th lesion of a seed is the same however
    many are asked for.

    Args:
        root: The folder to create; it may exist if it is empty or holds the same set.
        lesions: How many lesions; there are about 1.3 images to a lesion.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        seed: Any integer from 0.
        draw: False: nothing is written, and the set has to be there.

    Returns:
        `root`.

    Raises:
        SkinsegError: An argument is out of range, `root` holds something else, or the set is not there and
            is not to be drawn.
    """
    _check("lesions", lesions, 1, MOST_LESIONS)
    _check("width", width, LEAST_SIDE)
    _check("height", height, LEAST_SIDE)
    _check("seed", seed, 0)
    record = {
        "generator": GENERATOR_VERSION,
        "lesions": lesions,
        "width": width,
        "height": height,
        "seed": seed,
    }
    # Links are followed: a rename would replace the link and not the folder behind it.
    target = Path(root).expanduser().resolve()
    if _is_written(target, record):
        return root
    if not draw:
        raise SkinsegError(
            f"{root}: the drawn images are not there, and are drawn only below a folder that you name "
            "yourself: data.root=<folder>."
        )
    # The leading dot keeps readers of the parent folder away from it.
    unfinished = target.parent / f".{target.name}.{uuid.uuid4().hex}.unfinished"
    try:
        _write(unfinished, record)
        try:
            unfinished.replace(target)
        except OSError:
            # Another process may have been first.
            if not _is_written(target, record):
                raise
    except OSError as error:
        raise SkinsegError(
            f"Cannot write the synthetic data set to {root}: {error}. Name a folder with room to write to."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def read_synthetic(
    root: Path,
    problems: Problems,
    *,
    lesions: int = 240,
    width: int = 200,
    height: int = 150,
    seed: int = 0,
    draw: bool = True,
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads a drawn data set from a folder below `root`, where it is written on first use.

    Args:
        root: Where data sets are kept; created where there is none.
        problems: What is to happen where files and metadata do not fit.
        lesions: As in `write_synthetic_ham10000`.
        width: As in `write_synthetic_ham10000`.
        height: As in `write_synthetic_ham10000`.
        seed: As in `write_synthetic_ham10000`.
        draw: As in `write_synthetic_ham10000`.
        mask_folder: Refused: the images come with their masks.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `dataset` and `mask_source` are `DRAWN`.

    Raises:
        SkinsegError: `root` is a file, an argument is out of range, or the folder holds something else.
    """
    if mask_folder is not None:
        raise SkinsegError(f"data.masks={mask_folder}: drawn images have masks of their own; leave it out.")
    root = Path(root).expanduser()
    if root.exists() and not root.is_dir():
        raise SkinsegError(f"data.root={root} is a file; expected a folder to write the drawn images below.")
    # The version is in the name so that an upgrade draws a new set beside the old one.
    name = f"synthetic_v{GENERATOR_VERSION}_{lesions}_{width}x{height}_seed{seed}"
    folder = write_synthetic_ham10000(
        root / name, lesions=lesions, width=width, height=height, seed=seed, draw=draw
    )
    catalog = read_ham10000(folder, problems, verify=verify)
    ours = {"mask_source": DRAWN}
    table = catalog.table.assign(dataset=DRAWN, group_source=DRAWN, licence=LICENCE, **ours)
    return replace(catalog, table=table, annotations=catalog.annotations.assign(**ours))


def _check(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise SkinsegError(f"Synthetic data: {name}={value}, expected {expected}.")


def _is_written(root: Path, record: dict[str, int]) -> bool:
    """Returns whether `root` is the finished data set; False where nothing is there yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    advice = "Name another folder, or remove this one to have it drawn anew."
    try:
        found = json.loads((root / SYNTHETIC_RECORD).read_text(encoding="utf-8"))
        expected = set(pd.read_csv(root / HAM10000_NAMES[0])["image_id"])
    except (OSError, ValueError, KeyError) as error:
        raise SkinsegError(
            f"{root} is there already, but is no finished synthetic data set: {error}. {advice}"
        ) from error
    if found != record:
        raise SkinsegError(f"{root} holds another synthetic data set: {found}, expected {record}. {advice}")
    images = {path.stem for folder in IMAGE_FOLDERS for path in (root / folder).glob("*.jpg")}
    masks = {path.name.removesuffix(MASK_SUFFIX) for path in (root / MASK_FOLDER).glob(f"*{MASK_SUFFIX}")}
    if missing := expected - (images & masks):
        raise SkinsegError(
            f"{root} is incomplete: image or mask of {len(missing)} of {len(expected)} ids is gone, "
            f"e.g. {min(missing)}. {advice}"
        )
    return True


def _write(folder: Path, record: dict[str, int]) -> None:
    for name in (*IMAGE_FOLDERS, MASK_FOLDER):
        (folder / name).mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number in range(record["lesions"]):
        lesion = describe_lesion(record["seed"], number)
        pictures = draw_lesion_images(
            lesion, width=record["width"], height=record["height"], seed=record["seed"]
        )
        for image, mask in pictures:
            image_id = f"ISIC_{FIRST_NUMBER + len(rows)}"
            # In turn, so that an image keeps its folder when more lesions are asked for.
            part = folder / IMAGE_FOLDERS[len(rows) % 2]
            Image.fromarray(image).save(part / f"{image_id}.jpg", quality=JPEG_QUALITY)
            Image.fromarray(mask).save(folder / MASK_FOLDER / f"{image_id}{MASK_SUFFIX}")
            rows.append(
                {
                    "lesion_id": lesion.lesion_id,
                    "image_id": image_id,
                    "dx": lesion.diagnosis,
                    "dx_type": lesion.confirmation,
                    "age": None if lesion.age is None else float(lesion.age),
                    "sex": lesion.sex,
                    "localization": lesion.localization,
                }
            )
    pd.DataFrame(rows).to_csv(folder / HAM10000_NAMES[0], index=False)
    (folder / SYNTHETIC_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
