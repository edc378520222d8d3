"""Photographs with outlines for a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.data.diagnoses import DIAGNOSES
from skinseg.data.files import fit_mask
from skinseg.data.inputs import resize_image
from skinseg.data.photographs import DEFAULT_MAX_MEGAPIXELS, read_image, read_mask
from skinseg.inference.files import kept_mask_name
from skinseg.report.page import GalleryImage

_LONGEST = 720


def extremes(table: pd.DataFrame, each: int, metric: str = "dice") -> pd.DataFrame:
    """Chooses the worst, the median and the best images.

    Args:
        table: A row per image: image_id and the metric, greater is better.
        each: How many of each kind; fewer where the images do not suffice for all three.
        metric: Its column.

    Returns:
        Rows of the table with a column kind, the worst first; no image is in two kinds.
    """
    ordered = table.sort_values([metric, "image_id"], ignore_index=True)
    each = min(each, max(1, len(ordered) // 3))
    middle = max(each, (len(ordered) - each) // 2)
    kinds = {
        "worst": ordered.iloc[:each],
        "median": ordered.iloc[middle : middle + each],
        "best": ordered.iloc[max(middle + each, len(ordered) - each) :].iloc[::-1],
    }
    return pd.concat([rows.assign(kind=kind) for kind, rows in kinds.items()])


def gallery_image(
    row: Mapping[str, object],
    masks: Mapping[str, Path],
    metrics: Mapping[str, float],
    note: str,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> GalleryImage:
    """Reads a photograph with the outlines of its masks.

    Args:
        row: image_id, image (missing: a grey ground is drawn), kind.
        masks: Mask files by what they are.
        metrics: Scores to be shown with it.
        note: A line under it.
        max_megapixels: Most millions of pixels of a picture.
    """
    path = row["image"]
    native = {name: read_mask(file, max_megapixels) for name, file in masks.items()}
    first = next(iter(native.values()))
    if isinstance(path, str):
        photograph = read_image(path, max_megapixels=max_megapixels)
    else:
        photograph = np.full((*first.shape, 3), 200, np.uint8)
    size = (photograph.shape[0], photograph.shape[1])
    scale = min(1.0, _LONGEST / max(size))
    small = resize_image(photograph, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
    done, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done
    return GalleryImage(
        image_id=str(row["image_id"]),
        kind=str(row["kind"]),
        width=size[1],
        height=size[0],
        jpeg=jpeg.tobytes(),
        outlines={name: outlines(fit_mask(mask, size)) for name, mask in native.items()},
        scores=dict(metrics),
        note=note,
    )


def outlines(mask: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
    """Returns the outlines of a mask, holes included, as corners (x, y) of shape (n, 2) in pixels."""
    found, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    corners = [np.asarray(contour[:, 0, :], dtype=np.int32) for contour in found]
    # A speck or a line of pixels has no inside to be seen by; a box around it has.
    return [points if len(points) > 2 else _box(points) for points in corners]


def _box(points: NDArray[np.int32]) -> NDArray[np.int32]:
    (left, top), (right, bottom) = points.min(axis=0) - 1, points.max(axis=0) + 1
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.int32)


def describe(row: Mapping[str, object]) -> str:
    """Says what is known of an image: diagnosis, age, sex, site."""

    def known(key: str, form: Callable[[object], str] = str) -> list[str]:
        value = row.get(key)
        return [] if value is None or value != value else [form(value)]

    diagnosis = known("diagnosis", lambda code: DIAGNOSES.get(str(code), str(code)))
    words = [*diagnosis, *known("age", lambda age: f"{age:g} y"), *known("sex"), *known("site")]
    return ", ".join(word.replace("_", " ") for word in words)


def prediction_file(folder: Path, image_id: str) -> Path:
    """Returns where an evaluation keeps the mask that was predicted."""
    return folder / "masks" / kept_mask_name(image_id)
