"""Small data sets on disk in their real layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

ISIC9 = "Skin cancer ISIC The International Skin Imaging Collaboration"


def write_image(path: Path, *, size: tuple[int, int] = (20, 15), colour: object = None) -> Path:
    """Writes a JPEG of one colour, which by default depends on the file's name alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if colour is None:
        seed = np.frombuffer(path.stem.encode(), np.uint8).astype(int)
        colour = tuple(int(v) for v in np.random.default_rng(seed).integers(90, 240, 3))
    Image.new("RGB", size, colour).save(path, quality=90)  # type: ignore[arg-type]
    return path


def write_mask(path: Path, *, size: tuple[int, int] = (20, 15), shift: int = 0) -> Path:
    """Writes a mask with a box in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[size[1] // 4 : size[1] // 2, size[0] // 4 + shift : size[0] // 2 + shift] = 255
    Image.fromarray(mask).save(path)
    return path


def write_isic9(root: Path, files: dict[str, list[str]]) -> Path:
    """Writes class folders such as "Train/nevus" with the images of the given ids."""
    for folder, ids in files.items():
        (root / ISIC9 / folder).mkdir(parents=True, exist_ok=True)
        for image_id in ids:
            write_image(root / ISIC9 / folder / f"{image_id}.jpg")
    return root


def write_ham_metadata(path: Path, lesions: dict[str, str], dx: str = "nv") -> Path:
    """Writes HAM10000's metadata: image id to lesion id."""
    rows = [(lesion, image, dx, "histo", 40, "male", "back") for image, lesion in lesions.items()]
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


MASK_FOLDERS = {
    "ham10000": "HAM10000_segmentations_lesion_tschandl",
    "isic2018": "ISIC2018_Task1_Training_GroundTruth",
    "isic2017": "ISIC-2017_Training_Part1_GroundTruth",
    "isic2016": "ISBI2016_ISIC_Part1_Training_GroundTruth",
    "imaplusplus": "segs",
}


def mask_path(root: Path, source: str, image_id: str) -> Path:
    """Where a source keeps the mask of an image."""
    ending = {"isic2016": "_Segmentation.png", "imaplusplus": "_A03_T1_S1_5ab.png"}
    return root / MASK_FOLDERS[source] / f"{image_id}{ending.get(source, '_segmentation.png')}"
