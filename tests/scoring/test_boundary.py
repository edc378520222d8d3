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


def by_search(one: Mask, other: Mask) -> float:
    def border(mask: Mask) -> NDArray[np.int64]:
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inside)

    a, b = border(one), border(other)
    return float(max(np.percentile(cKDTree(b).query(a)[0], 95), np.percentile(cKDTree(a).query(b)[0], 95)))


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_a_search_through_all_pairs(seed: int) -> None:
    one, other = blob(seed), blob(seed + 100)
    assert hd95(one, other) == pytest.approx(by_search(one, other), abs=1e-4)
    assert hd95(one, other) == hd95(other, one)


def test_known_values() -> None:
    square = box(10, 10, 8, 8)
    assert hd95(square, square) == 0
    assert hd95(box(10, 10, 1, 1), box(13, 14, 1, 1)) == 5
    # All but the leading edge of the smaller box lie on the larger one's outline.
    assert hd95(box(0, 0, 40, 50), box(0, 0, 40, 50)) == 0
    assert hd95(box(5, 5, 20, 20), box(5, 15, 20, 20)) == pytest.approx(10, abs=1e-4)


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
        hd95(np.ones((2, 3), bool), np.ones((3, 2), bool))
