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
        Pixels, from 0; nan where a mask is empty, for then there is no distance. Exact to float64 where
        the distances are below 1400 pixels or so, to float32 beyond.

    Raises:
        ValueError: The shapes differ.
        TypeError: A mask is not bool; of masks of 0 and 255 the distances would be wrong without a word.
    """
    if one.shape != other.shape:
        raise ValueError(f"The masks have the shapes {one.shape} and {other.shape}.")
    if one.dtype != np.bool_ or other.dtype != np.bool_:
        raise TypeError(f"The masks are {one.dtype} and {other.dtype}; expected bool.")
    if not one.any() or not other.any():
        return float("nan")
    # Nothing outside of the pair's bounding box matters, and lesions fill a part of the frame.
    x, y, width, height = cv2.boundingRect((one | other).astype(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    borders = [_border(mask[box]) for mask in (one, other)]
    there, back = (_distances(borders[i], borders[1 - i]) for i in (0, 1))
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _distances(border: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From each pixel of a border to the nearest pixel of the other, in pixels, float64 of shape (n,)."""
    away = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Between pixels, squares of distances are integers. OpenCV's float32 root differs in its last bit with
    # the buffer's address (by Intel's IPP), so that without this two calls on the same masks would differ.
    squares = np.rint(np.square(away[border], dtype=np.float64))
    distances: NDArray[np.float64] = np.sqrt(squares)
    return distances


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    border: NDArray[np.bool_] = mask & (inner == 0)
    return border
