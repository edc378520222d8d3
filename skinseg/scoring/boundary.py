"""Distances between the outlines of two masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def hd95(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The 95th-percentile Hausdorff distance of two masks.

    The larger of the two directed 95th percentiles of the distances from the border pixels of one mask to
    the nearest border pixel of the other, as in MONAI's `compute_hausdorff_distance(percentile=95)`; MedPy
    pools both directions and differs. A border pixel is a pixel of the mask with one of its four neighbours
    outside of it; beyond the frame is outside.

    Args:
        one: bool array of shape (H, W).
        other: Likewise.

    Returns:
        Pixels, from 0; nan where a mask is empty, for then there is no distance.

    Raises:
        ValueError: The shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"The masks have the shapes {one.shape} and {other.shape}.")
    if not one.any() or not other.any():
        return float("nan")
    # Nothing outside of the pair's bounding box matters, and lesions fill a part of the frame.
    x, y, width, height = cv2.boundingRect((one | other).astype(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    borders = [_border(mask[box]) for mask in (one, other)]
    away = [
        cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for border in borders
    ]
    return float(max(np.percentile(away[1][borders[0]], 95), np.percentile(away[0][borders[1]], 95)))


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    border: NDArray[np.bool_] = mask & (inner == 0)
    return border
