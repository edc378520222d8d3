"""Scores of outlines, against a search through all pairs of pixels and against other libraries' answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from outlines import describe_outlines, draw
from scipy.spatial import cKDTree

from skinseg.scoring.boundary import BOUNDARY_METRICS, boundary_scores, hd95

Mask = NDArray[np.bool_]
OUTLINES = describe_outlines()
GOLDEN = json.loads((Path(__file__).parent / "golden_boundary.json").read_text(encoding="utf-8"))
EMPTY = np.zeros((40, 50), bool)


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


def scores_by_search(
    truth: Mask, prediction: Mask, tolerance_px: float = 2.0, tolerance_percent: float = 0.5, width: int = 0
) -> dict[str, float]:
    def band(mask: Mask) -> Mask:
        outside = np.argwhere(~np.pad(mask, 1))
        inside = np.argwhere(np.pad(mask, 1))
        rows_or_columns, _ = cKDTree(outside).query(inside, p=np.inf)
        result = np.zeros(mask.shape, bool)
        result[tuple((inside[rows_or_columns <= width] - 1).T)] = True
        return result

    diagonal = sum(length**2 for length in truth.shape) ** 0.5
    width = width or max(1, round(diagonal / 50))
    distances = [*directed(truth, prediction)[0], *directed(truth, prediction)[1]]
    bands = band(truth), band(prediction)
    far, mean = by_search(truth, prediction), sum(distances) / len(distances)
    bias = 100 * (prediction.sum() / truth.sum() - 1)
    return {
        "hd95": far,
        "hd95_percent": far / diagonal * 100,
        "assd": mean,
        "assd_percent": mean / diagonal * 100,
        "nsd": np.mean([distance <= tolerance_px for distance in distances]),
        "nsd_percent": np.mean([100 * distance <= tolerance_percent * diagonal for distance in distances]),
        "boundary_iou": (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum(),
        "area_bias": bias,
        "area_error": abs(bias),
    }


@pytest.mark.parametrize("name", OUTLINES)
@pytest.mark.parametrize("quarter_turns", range(4))
def test_scores_equal_to_a_search(name: str, quarter_turns: int) -> None:
    truth, prediction = (np.rot90(mask, quarter_turns) for mask in OUTLINES[name])
    scores = boundary_scores(truth, prediction)
    assert tuple(scores) == BOUNDARY_METRICS
    assert all(type(score) is float for score in scores.values())
    assert scores == pytest.approx(scores_by_search(truth, prediction), rel=1e-12, abs=1e-12)
    assert scores["hd95"] == hd95(truth, prediction), "to the last bit"


@pytest.mark.parametrize("seed", range(8))
def test_tolerances(seed: int) -> None:
    truth, prediction = blob(seed), blob(seed + 50)
    # 4.7 % of the diagonal of 100 lie between two distances that occur, 5 px are one.
    scores = boundary_scores(truth, prediction, tolerance_px=5, tolerance_percent=4.7)
    assert scores == pytest.approx(scores_by_search(truth, prediction, 5, 4.7), rel=1e-12, abs=1e-12)
    assert 0 < scores["nsd_percent"] < scores["nsd"] < 1
    assert scores["nsd"] == boundary_scores(truth, prediction, tolerance_percent=5)["nsd_percent"]


def test_the_tolerance_itself_is_near_enough() -> None:
    pair = OUTLINES["single pixels"]
    assert boundary_scores(*pair, tolerance_px=5)["nsd"] == 1
    assert boundary_scores(*pair, tolerance_px=np.nextafter(5, 0))["nsd"] == 0
    assert boundary_scores(*OUTLINES["the same blobs"], tolerance_px=0, tolerance_percent=0)["nsd"] == 1


@pytest.mark.parametrize("name", OUTLINES)
def test_equal_to_the_libraries_of_the_same_definition(name: str) -> None:
    answers, pair = GOLDEN["cases"][name], OUTLINES[name]
    digests = [hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16] for mask in pair]
    assert digests == answers["sha256"], "other masks than the libraries saw"
    scores = boundary_scores(*pair, tolerance_px=GOLDEN["tolerance_px"])
    # MONAI computes in float32.
    for metric in ("hd95", "assd", "nsd"):
        assert scores[metric] == pytest.approx(answers["monai"][metric], rel=2e-7, abs=1e-7), metric
    assert scores["assd"] == pytest.approx(answers["medpy"]["assd"], rel=1e-12, abs=1e-12)


def test_golden_file_is_of_these_pairs() -> None:
    assert list(GOLDEN["cases"]) == list(OUTLINES)


@pytest.mark.parametrize(
    ("name", "metric", "ours", "library", "theirs"),
    [
        ("a square and one with a satellite", "hd95", 27.4, "medpy", 0.0),
        ("a square and one with a satellite", "hd95", 27.4, "surface_distance", 28.7),
        ("moved blobs", "nsd", 0.662, "surface_distance", 0.685),
        ("moved blobs", "nsd", 0.662, "monai:by_length", 0.685),
        ("one region of two", "assd", 12.0, "surface_distance", 8.9),
    ],
)
def test_differences_from_other_definitions_are_as_documented(
    name: str, metric: str, ours: float, library: str, theirs: float
) -> None:
    library, _, variant = library.partition(":")
    answer = GOLDEN["cases"][name][library][f"{metric}_{variant}" if variant else metric]
    digits = 3 if metric == "nsd" else 1
    assert round(boundary_scores(*OUTLINES[name])[metric], digits) == ours
    assert round(answer, digits) == theirs


def test_known_scores() -> None:
    scores = boundary_scores(draw(30, 40, (5, 5, 10, 10)), draw(30, 40, (5, 5, 10, 12)))
    # Off the other border lie 8 of 36 border pixels (two by 1, six by 2) and 12 of 40 (two by 1, ten by 2).
    assert scores["assd"] == pytest.approx((2 * 1 + 6 * 2 + 2 * 1 + 10 * 2) / 76, rel=1e-12)
    assert scores["nsd"] == 1
    assert scores["hd95"] == 2
    assert scores["hd95_percent"] == 4, "of a diagonal of 50"
    assert scores["nsd_percent"] == (28 + 28) / 76, "at a quarter of a pixel"
    assert scores["area_bias"] == scores["area_error"] == 20
    assert scores["boundary_iou"] == 28 / (36 + 40 - 28)


def test_too_small_an_area_is_negative() -> None:
    scores = boundary_scores(draw(30, 40, (5, 5, 10, 10)), draw(30, 40, (5, 5, 10, 9)))
    assert scores["area_bias"] == -10
    assert scores["area_error"] == 10


@pytest.mark.parametrize(
    ("truth", "prediction", "score", "bias"),
    [
        (EMPTY, EMPTY, 1.0, float("nan")),
        (EMPTY, box(3, 3, 5, 5), 0.0, float("nan")),
        (box(3, 3, 5, 5), EMPTY, 0.0, -100.0),
        (~EMPTY, EMPTY, 0.0, -100.0),
    ],
)
def test_empty_masks(truth: Mask, prediction: Mask, score: float, bias: float) -> None:
    nan = float("nan")
    expected = (nan, nan, nan, nan, score, score, score, bias, abs(bias))
    scores = boundary_scores(truth, prediction)
    assert scores == pytest.approx(dict(zip(BOUNDARY_METRICS, expected, strict=True)), abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("height", "width", "band"),
    # 2 % of the diagonals are 0.1, 0.72, 1.5, 2.5 and 7.
    [(3, 4, 1), (20, 30, 1), (45, 60, 2), (75, 100, 2), (210, 280, 7)],
)
def test_width_of_the_bands(height: int, width: int, band: int) -> None:
    full = np.ones((height, width), bool)
    other = full.copy()
    other[:, -1] = False
    expected = scores_by_search(full, other, width=band)["boundary_iou"]
    assert boundary_scores(full, other)["boundary_iou"] == pytest.approx(expected, rel=1e-12)


def test_bands_run_along_the_frame() -> None:
    # Beyond the frame is outside: of the full frame of 60 x 80, all within 2 pixels of its sides is band.
    full, less = draw(60, 80, (0, 0, 60, 80)), draw(60, 80, (0, 0, 60, 79))
    one, other = 60 * 80 - 56 * 76, 60 * 79 - 56 * 75
    both = other - 56
    assert boundary_scores(full, less)["boundary_iou"] == both / (one + other - both)


def test_boundary_iou_is_blind_beyond_the_bands() -> None:
    filled, ring = draw(60, 80, (10, 10, 30, 40)), draw(60, 80, (10, 10, 30, 40), (12, 12, 26, 36))
    assert boundary_scores(filled, ring)["boundary_iou"] == 1
    narrower = draw(60, 80, (10, 10, 30, 40), (11, 11, 28, 38))
    assert boundary_scores(filled, narrower)["boundary_iou"] < 1


def test_boundary_iou_of_narrow_masks_is_the_jaccard() -> None:
    one, other = draw(60, 80, (10, 10, 4, 40)), draw(60, 80, (12, 10, 4, 40))
    assert boundary_scores(one, other)["boundary_iou"] == 80 / 240


def test_swapping_the_masks_changes_the_area_alone() -> None:
    one, other = blob(3), blob(4)
    there, back = boundary_scores(one, other), boundary_scores(other, one)
    for metric in BOUNDARY_METRICS[:-2]:
        assert there[metric] == pytest.approx(back[metric], rel=1e-12), metric


def test_what_lies_around_the_pair_is_only_in_the_diagonal() -> None:
    pair = [box(10, 12, 15, 20), box(12, 15, 14, 20)]
    wide = [np.pad(mask, ((0, 30), (0, 40))) for mask in pair]
    there, back = boundary_scores(*pair), boundary_scores(*wide)
    for metric in ("hd95", "assd", "nsd", "area_bias", "area_error"):
        assert there[metric] == back[metric]
    assert there["hd95_percent"] > back["hd95_percent"]


@pytest.mark.parametrize("function", [hd95, boundary_scores])
def test_refused_masks(function: object) -> None:
    assert callable(function)
    mask = box(1, 1, 3, 3)
    with pytest.raises(ValueError, match="shapes"):
        function(mask, mask[1:])
    with pytest.raises(ValueError, match="H, W"):
        function(mask[None], mask[None])
    with pytest.raises(ValueError, match="a pixel at least"):
        function(mask[:0], mask[:0])
    with pytest.raises(TypeError, match="uint8"):
        function(mask.astype(np.uint8), mask)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_refused_tolerances(tolerance: float) -> None:
    mask = box(1, 1, 3, 3)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_scores(mask, mask, tolerance_px=tolerance)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_scores(mask, mask, tolerance_percent=tolerance)
