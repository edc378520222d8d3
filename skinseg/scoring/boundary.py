"""Distances between the outlines of two masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BOUNDARY_METRICS = (
    "hd95",
    "hd95_percent",
    "assd",
    "assd_percent",
    "nsd",
    "nsd_percent",
    "boundary_iou",
    "area_bias",
    "area_error",
)

RIM = 0.02
"""Width of the rim of `boundary_iou`, as a share of the diagonal."""


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
    there, back = _border_distances(one, other)
    return max(_percentile(there), _percentile(back))


def boundary_scores(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    tolerance_px: float = 2.0,
    tolerance_percent: float = 0.5,
) -> dict[str, float]:
    """Scores how well two outlines agree, and two areas.

    Borders are those of `hd95`. Libraries define these scores in several ways; ours are:

    - hd95: as the function of that name; equal to MONAI's.
    - assd: the mean of all distances from border pixels of either mask to the other's border, both
      directions pooled: MONAI's `compute_average_surface_distance(symmetric=True)`. MedPy averages the two directions'
      means; surface-distance weighs border elements by their length.
    - nsd: the share of the border pixels of both masks that lie within the tolerance of the other's
      border (Nikolov et al., JMIR 2021): MONAI's `compute_surface_dice(use_subvoxels=False)`.
    - boundary_iou: Jaccard of the two masks' inner rims, that is of the pixels that go when the mask is eroded
      by a square as wide as 2 % of the diagonal on each side (Cheng et al., CVPR 2021, and their code).
    - area_bias: (prediction - truth) / truth of the lesion's pixels, in percent; area_error: without its sign.

    | truth | prediction | hd95, assd | nsd, boundary IoU | area |
    |---|---|---|---|---|
    | empty | empty | nan | 1 | 0 |
    | empty | some pixels | nan | 0 | nan |
    | some pixels | empty | nan | 0 | bias -100, error 100 |

    Args:
        truth: bool array of shape (H, W).
        prediction: Likewise.
        tolerance_px: Of nsd, in pixels, from 0.
        tolerance_percent: Of nsd_percent, in percent of the frame's diagonal.

    Returns:
        The names of `BOUNDARY_METRICS` in their order: hd95 and assd in pixels, the same in percent of the
        diagonal, nsd twice and boundary_iou in [0, 1], area in percent.

    Raises:
        ValueError: The shapes differ.
        TypeError: A mask is not bool.
    """
    there, back = _border_distances(truth, prediction)
    diagonal = float(np.hypot(*truth.shape))
    pooled = np.concatenate([there, back])
    hausdorff = max(_percentile(there), _percentile(back))
    assd = float(pooled.mean()) if len(pooled) else float("nan")
    true, predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    both_empty = float(not true and not predicted)

    def within(tolerance: float) -> float:
        return float((pooled <= tolerance).mean()) if len(pooled) else both_empty

    bias = 0.0 if both_empty else 100 * (predicted - true) / true if true else float("nan")
    return {
        "hd95": hausdorff,
        "hd95_percent": 100 * hausdorff / diagonal,
        "assd": assd,
        "assd_percent": 100 * assd / diagonal,
        "nsd": within(tolerance_px),
        "nsd_percent": within(tolerance_percent / 100 * diagonal),
        "boundary_iou": _boundary_iou(truth, prediction, max(1, round(RIM * diagonal))),
        "area_bias": bias,
        "area_error": abs(bias),
    }


def _boundary_iou(one: NDArray[np.bool_], other: NDArray[np.bool_], width: int) -> float:
    box = _box(one | other)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    rims = []
    for mask in (one[box], other[box]):
        inner = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        rims.append(mask & (inner == 0))
    union = int(np.count_nonzero(rims[0] | rims[1]))
    return int(np.count_nonzero(rims[0] & rims[1])) / union if union else 1.0


def _border_distances(
    one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each border pixel to the other's border, there and back, in pixels; none where a mask is empty."""
    if one.shape != other.shape:
        raise ValueError(f"The masks have the shapes {one.shape} and {other.shape}.")
    if one.dtype != np.bool_ or other.dtype != np.bool_:
        raise TypeError(f"The masks are {one.dtype} and {other.dtype}; expected bool.")
    if not one.any() or not other.any():
        return np.empty(0), np.empty(0)
    # Nothing outside of the pair's bounding box matters, and lesions fill a part of the frame.
    box = _box(one | other)
    borders = [_border(mask[box]) for mask in (one, other)]
    return _distances(borders[0], borders[1]), _distances(borders[1], borders[0])


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def _percentile(distances: NDArray[np.float64]) -> float:
    return float(np.percentile(distances, 95)) if len(distances) else float("nan")


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
