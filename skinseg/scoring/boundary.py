"""Distances between the outlines of two masks, and what follows from them."""

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

BAND_PERCENT = 2.0
"""How wide the bands of `boundary_iou` are, in percent of the frame's diagonal; its authors' default."""

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def hd95(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The 95th-percentile Hausdorff distance of two masks.

    The larger of the two directed 95th percentiles of the distances from the border pixels of one mask to
    the nearest border pixel of the other, as in MONAI's `compute_hausdorff_distance(percentile=95)`; MedPy
    pools both directions and differs. A border pixel is a pixel of the mask with one of its four neighbours
    outside of it; beyond the frame is outside.

    Args:
        one: bool array of shape (H, W).
        other: bool array of shape (H, W).

    Returns:
        Pixels, from 0; nan where a mask is empty, for then there is no distance. Exact to float64 where
        the distances are below 1400 pixels or so, to float32 beyond.

    Raises:
        ValueError: The shapes differ, are not two-dimensional or hold no pixel.
        TypeError: A mask is not bool; of masks of 0 and 255 the distances would be wrong without a word.
    """
    _check(one, other)
    return _hd95(*_between_borders(*_crop(one, other)))


def boundary_scores(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    tolerance_px: float = 2.0,
    tolerance_percent: float = 0.5,
) -> dict[str, float]:
    """Scores one image by its outlines, and by how large its lesion came out.

    A border pixel is a pixel of the mask with one of its four neighbours outside of it; beyond the frame is
    outside. Every border pixel counts once and has one distance, to the nearest border pixel of the other
    mask. The diagonal is hypot(H, W).

    - hd95: see `hd95`.
    - assd: the average symmetric surface distance, the mean of the distances of both borders pooled, so that
      the longer border weighs more. Equal to MONAI's `compute_average_surface_distance(symmetric=True)` and
      MedPy's `assd`.
    - nsd: the normalised surface Dice (Nikolov et al., J Med Internet Res 2021), the share of the border
      pixels of both masks with a distance <= the tolerance. Equal to MONAI's `compute_surface_dice`.
    - boundary_iou: the Jaccard of the two bands of pixels that an erosion by a square of 2 d + 1 takes off
      each mask, d = max(1, round(2 % of the diagonal)), half to even (Cheng et al., CVPR 2021; the square and
      the rounding are those of the authors' code). It is blind beyond the bands: masks that are nowhere wider
      than 2 d are all band, and of them it is the Jaccard; a ring of width d scores 1 against the same ring
      filled. So read it beside the Jaccard; the authors' evaluation takes the smaller of the two.
    - area_bias = 100 (predicted pixels - true pixels) / true pixels, above 0 where the prediction is too
      large; area_error is its absolute value.

    MedPy's `hd95` takes the percentile of both directions pooled, and DeepMind's `surface-distance` puts the
    border between the pixels and weighs its elements by their length. Of the pairs in tests/scoring, a square
    and one with a satellite have a hd95 of 27.4 here, of 0 in MedPy and of 28.7 in surface-distance; moved
    blobs an nsd of 0.662 here and of 0.685 in surface-distance; one region of two an assd of 12.0 here and of
    8.9 as the mean of surface-distance's two averages.

    What the masks leave undefined is nan:

    | truth | prediction | hd95, assd | nsd, boundary_iou | area_bias | area_error |
    |---|---|---|---|---|---|
    | empty | empty | nan | 1 | nan | nan |
    | empty | some pixels | nan | 0 | nan | nan |
    | some pixels | empty | nan | 0 | -100 | 100 |
    | some pixels | some pixels | by the formula | by the formula | by the formula | by the formula |

    What a comparison puts in place of the undefined distances is `skinseg.scoring.metrics.with_penalties`.

    The ones and zeros are those of `overlap_scores`; MONAI's surface Dice of two empty masks is nan. A mask
    that fills the frame is nothing special: its border runs along the frame.

    Args:
        truth: bool array of shape (H, W); True is lesion.
        prediction: bool array of the same shape.
        tolerance_px: The tolerance of nsd, in pixels, from 0.
        tolerance_percent: The tolerance of nsd_percent, in percent of the diagonal, from 0.

    Returns:
        The names of `BOUNDARY_METRICS`, in their order: hd95 and assd in pixels, from 0; hd95_percent and
        assd_percent in percent of the diagonal, from 0; nsd, nsd_percent and boundary_iou in [0, 1];
        area_bias in percent of the true area, from -100, and area_error, from 0.

    Raises:
        ValueError: The shapes differ, are not two-dimensional or hold no pixel, or a tolerance is negative or
            not finite.
        TypeError: A mask is not bool.
    """
    _check(truth, prediction)
    for tolerance in (tolerance_px, tolerance_percent):
        if not 0 <= tolerance < np.inf:
            raise ValueError(f"A tolerance is {tolerance}; expected a finite number from 0.")
    diagonal = float(np.hypot(*truth.shape))
    cropped = _crop(truth, prediction)
    there, back = _between_borders(*cropped)
    both = np.concatenate((there, back))
    distance = _hd95(there, back)
    average = float(both.mean()) if both.size else float("nan")

    pixels, predicted = (int(np.count_nonzero(mask)) for mask in cropped)
    no_border = float(pixels == predicted == 0)
    near, near_percent = (
        float(np.count_nonzero(both <= tolerance) / both.size) if both.size else no_border
        for tolerance in (tolerance_px, tolerance_percent / 100 * diagonal)
    )
    bias = 100 * (predicted - pixels) / pixels if pixels else float("nan")
    return {
        "hd95": distance,
        "hd95_percent": 100 * distance / diagonal,
        "assd": average,
        "assd_percent": 100 * average / diagonal,
        "nsd": near,
        "nsd_percent": near_percent,
        "boundary_iou": _band_jaccard(*cropped, max(1, round(BAND_PERCENT / 100 * diagonal))),
        "area_bias": bias,
        "area_error": abs(bias),
    }


def _check(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> None:
    if one.shape != other.shape:
        raise ValueError(f"The masks have the shapes {one.shape} and {other.shape}.")
    if one.ndim != 2 or not one.size:
        raise ValueError(f"The masks have the shape {one.shape}; expected (H, W) with a pixel at least.")
    if one.dtype != np.bool_ or other.dtype != np.bool_:
        raise TypeError(f"The masks are {one.dtype} and {other.dtype}; expected bool.")


def _crop(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks in the box around their union, contiguous; of two empty masks nothing is left.

    Outside of the box both are empty, so that whatever reads beyond it as outside sees no difference, also
    where it ends at the frame; and lesions fill a part of the frame.
    """
    union = np.ascontiguousarray(one | other)
    x, y, width, height = cv2.boundingRect(union.view(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    return np.ascontiguousarray(one[box]), np.ascontiguousarray(other[box])


def _between_borders(
    one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each border pixel to the nearest one of the other mask, there and back.

    In pixels, float64 of shape (n,); none at all where a mask is empty.
    """
    if not one.any() or not other.any():
        return np.empty(0), np.empty(0)
    borders = [_rim(mask, _CROSS) for mask in (one, other)]
    return _distances(borders[0], borders[1]), _distances(borders[1], borders[0])


def _hd95(there: NDArray[np.float64], back: NDArray[np.float64]) -> float:
    if not there.size:
        return float("nan")
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _band_jaccard(one: NDArray[np.bool_], other: NDArray[np.bool_], width: int) -> float:
    """Of the pixels at most `width` rows and columns away from some pixel outside of their mask."""
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    bands = [_rim(mask, square) for mask in (one, other)] if one.size else [one, other]
    union = int(np.count_nonzero(bands[0] | bands[1]))
    return int(np.count_nonzero(bands[0] & bands[1])) / union if union else 1.0


def _distances(border: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From each pixel of a border to the nearest pixel of the other, in pixels, float64 of shape (n,)."""
    away = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Between pixels, squares of distances are integers. OpenCV's float32 root differs in its last bit with
    # the buffer's address (by Intel's IPP), so that without this two calls on the same masks would differ.
    squares = np.rint(np.square(away[border], dtype=np.float64))
    distances: NDArray[np.float64] = np.sqrt(squares)
    return distances


def _rim(mask: NDArray[np.bool_], element: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels of a mask that an erosion takes off it, where beyond the frame is outside."""
    inner = cv2.erode(mask.view(np.uint8), element, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rim: NDArray[np.bool_] = mask & (inner == 0)
    return rim
