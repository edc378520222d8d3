"""Distances between outlines, against a search through all pairs of border pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skinseg.scoring.boundary import hd95

Mask = NDArray[np.bool_]


def blob(seed: int, shape: tuple[int, int] = (60, 80)) -> Mask:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), 6)
    return np.asarray(noise > np.quantile(noise, 0.7))


def box(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((40, 50), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def directed(one: Mask, other: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    def border(mask: Mask) -> NDArray[np.int64]:
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inside)

    a, b = border(one), border(other)
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]


def by_search(one: Mask, other: Mask) -> float:
    return max(float(np.percentile(distances, 95)) for distances in directed(one, other))


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_a_search_through_all_pairs(seed: int) -> None:
    one, other = blob(seed), blob(seed + 100)
    # Closer than float32: as OpenCV gives it, the last bit changes from call to call.
    assert hd95(one, other) == pytest.approx(by_search(one, other), rel=0, abs=1e-9)
    assert hd95(one, other) == hd95(other, one)


def test_equal_to_a_search_at_the_size_of_photographs() -> None:
    corners = np.zeros((2, 1024, 1024), bool)
    corners[0, :40, :30] = corners[1, -50:, -20:] = True
    assert hd95(*corners) == pytest.approx(by_search(*corners), rel=0, abs=1e-9)
    assert hd95(*corners) > 1300


def test_known_values() -> None:
    square = box(10, 10, 8, 8)
    assert hd95(square, square) == 0
    assert hd95(box(10, 10, 1, 1), box(13, 14, 1, 1)) == 5


@pytest.mark.parametrize("k", [0, 1, 2, 7, 15])
def test_squares_apart_by_k(k: int) -> None:
    # More than 5% of an outline lies on the side that moved away.
    assert hd95(box(5, 5, 20, 20), box(5, 5 + k, 20, 20)) == k
    assert hd95(box(5, 5, 20, 20), box(5 + k, 5, 20, 20)) == k


def test_beyond_the_frame_is_outside() -> None:
    # Only so has a full frame an outline; its left side lies 10 from that of the other mask.
    full, half = box(0, 0, 40, 50), box(0, 10, 40, 40)
    assert hd95(full, full) == 0
    assert hd95(full, half) == pytest.approx(by_search(full, half), rel=0, abs=1e-9) == 10


@pytest.mark.parametrize("quarter_turns", range(4))
def test_an_outline_along_the_frame_counts_like_any_other(quarter_turns: int) -> None:
    at_edge = np.rot90(box(0, 12, 10, 20), quarter_turns), np.rot90(box(0, 15, 14, 20), quarter_turns)
    inside = box(9, 12, 10, 20), box(9, 15, 14, 20)
    assert hd95(*at_edge) == hd95(*inside) == pytest.approx(by_search(*inside), rel=0, abs=1e-9)


def test_the_larger_direction_and_not_both_pooled() -> None:
    # A satellite of 8% of one outline: over the 5% of its direction, under the 5% of both together.
    one = box(2, 2, 20, 20)
    other = one.copy()
    other[36, 43:49] = True
    there, back = directed(one, other)
    pooled = float(np.percentile(np.concatenate((there, back)), 95))
    assert np.percentile(there, 95) == pooled == 0
    assert hd95(one, other) == hd95(other, one) == pytest.approx(by_search(one, other), rel=0, abs=1e-9)
    assert hd95(one, other) > 20


def test_ends_of_an_outline_count_but_single_pixels_do_not() -> None:
    square = box(10, 10, 12, 12)
    speck = square.copy()
    speck[30, 45] = True
    assert hd95(square, speck) == 0, "one far pixel of 45 is above the 95th percentile"
    assert hd95(square, box(10, 10, 12, 20)) > 5


def test_undefined_for_an_empty_mask() -> None:
    empty = np.zeros((40, 50), bool)
    assert np.isnan(hd95(empty, box(1, 1, 3, 3)))
    assert np.isnan(hd95(empty, empty))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes"):
        hd95(np.ones((2, 3), bool), np.ones((1, 3), bool))


def test_masks_that_are_not_bool_are_refused() -> None:
    with pytest.raises(TypeError, match="uint8"):
        hd95(box(1, 1, 3, 3), box(1, 1, 3, 3).astype(np.uint8) * 255)
