import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import build_mask, describe_cases
from conftest import SCORER
from PIL import Image

from skinseg.scoring.overlap import OVERLAP_METRICS, confusion_counts, foreground, overlap_scores

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
GOLDEN = json.loads((HERE / "golden_isic_challenge.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-12


def score_one(truth, prediction):
    counts = confusion_counts(foreground(truth), foreground(prediction))
    scores = overlap_scores(*(np.array([count], dtype=np.int64) for count in counts))
    return list(counts), {name: float(score[0]) for name, score in scores.items()}


def random_counts(seed=0, images=500):
    # Small counts make zeros, and so every degenerate case, common.
    counts = np.random.default_rng(seed).integers(0, 5, size=(4, images))
    return counts[:, counts.sum(axis=0) > 0].astype(np.int64)


# --- against the stored answers of the public scorer ---------------------------------------------------


def test_golden_file_answers_the_present_cases():
    keys = ("name", "height", "width", "truth", "prediction")
    assert [{key: case[key] for key in keys} for case in GOLDEN["cases"]] == describe_cases()
    assert len({case["name"] for case in GOLDEN["cases"]}) == len(GOLDEN["cases"])
    assert GOLDEN["scorer"] == SCORER[0].replace("==", " ")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_equals_public_scorer(case):
    masks = {side: build_mask(case[side], case["height"], case["width"]) for side in ("truth", "prediction")}
    for side, mask in masks.items():
        digest = hashlib.sha256(mask.tobytes()).hexdigest()
        assert digest.startswith(case[f"{side}_sha256"]), f"cases.py built another {side} than was scored"

    counts, scores = score_one(masks["truth"], masks["prediction"])

    assert counts == case["counts"]
    assert scores == pytest.approx(case["scores"], rel=0, abs=TOLERANCE)


def test_mean_over_images_equals_public_scorers_macro_average():
    counts = np.array([case["counts"] for case in GOLDEN["cases"]], dtype=np.int64)
    means = {name: float(score.mean()) for name, score in overlap_scores(*counts.T).items()}
    assert means == pytest.approx(GOLDEN["macro_average"], rel=0, abs=TOLERANCE)


# --- the rules, stated -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # (tp, fp, fn, tn) -> dice, jaccard, threshold_jaccard, sensitivity, specificity, accuracy
        pytest.param((0, 0, 0, 8), (1, 1, 1, 1, 1, 1), id="both empty"),
        pytest.param((0, 2, 0, 6), (0, 0, 0, 1, 0.75, 0.75), id="empty truth"),
        pytest.param((0, 8, 0, 0), (0, 0, 0, 1, 0, 0), id="empty truth, full prediction"),
        pytest.param((0, 0, 2, 6), (0, 0, 0, 0, 1, 0.75), id="empty prediction"),
        pytest.param((0, 0, 8, 0), (0, 0, 0, 0, 1, 0), id="full truth, empty prediction"),
        pytest.param((6, 0, 2, 0), (6 / 7, 0.75, 0.75, 0.75, 1, 0.75), id="full truth"),
        pytest.param((8, 0, 0, 0), (1, 1, 1, 1, 1, 1), id="both full"),
        pytest.param((2, 6, 0, 0), (0.4, 0.25, 0, 1, 0, 0.25), id="full prediction"),
        pytest.param((13, 3, 4, 80), (26 / 33, 0.65, 0.65, 13 / 17, 80 / 83, 0.93), id="Jaccard 0.65"),
        pytest.param((12, 4, 4, 80), (0.75, 0.6, 0, 0.75, 80 / 84, 0.92), id="Jaccard below 0.65"),
    ],
)
def test_rules(counts, expected):
    scores = overlap_scores(*(np.array([count]) for count in counts))
    assert tuple(scores) == OVERLAP_METRICS
    assert [float(score[0]) for score in scores.values()] == pytest.approx(expected, rel=0, abs=TOLERANCE)


def test_foreground_is_above_128():
    mask = np.array([[0, 1, 127], [128, 129, 255]], dtype=np.uint8)
    lesion = foreground(mask)
    assert lesion.dtype == np.bool_
    assert lesion.tolist() == [[False, False, False], [False, True, True]]


# --- properties ------------------------------------------------------------------------------------------


def test_counts_sum_to_pixels_and_are_plain_integers():
    rng = np.random.default_rng(1)
    truth, prediction = rng.random((2, 37, 53)) < 0.4
    counts = confusion_counts(truth, prediction)
    assert all(type(count) is int for count in counts)
    assert sum(counts) == truth.size
    tp, fp, fn, tn = counts
    assert confusion_counts(prediction, truth) == (tp, fn, fp, tn)
    assert confusion_counts(~truth, ~prediction) == (tn, fn, fp, tp)


def test_counts_of_views_equal_counts_of_copies():
    truth, prediction = np.random.default_rng(2).random((2, 40, 30)) < 0.5
    assert confusion_counts(truth.T[::2], prediction.T[::2]) == confusion_counts(
        truth.T[::2].copy(), prediction.T[::2].copy()
    )


def test_scores_are_float64_in_unit_range():
    counts = random_counts()
    for name, score in overlap_scores(*counts).items():
        assert score.dtype == np.float64, name
        assert score.shape == counts.shape[1:], name
        assert ((score >= 0) & (score <= 1)).all(), name


def test_overlap_is_symmetric_and_complement_swaps_sensitivity_with_specificity():
    tp, fp, fn, tn = random_counts(3)
    scores, swapped = overlap_scores(tp, fp, fn, tn), overlap_scores(tp, fn, fp, tn)
    for name in ("dice", "jaccard", "threshold_jaccard", "accuracy"):
        np.testing.assert_array_equal(scores[name], swapped[name], err_msg=name)
    complement = overlap_scores(tn, fn, fp, tp)
    np.testing.assert_array_equal(scores["sensitivity"], complement["specificity"])
    np.testing.assert_array_equal(scores["accuracy"], complement["accuracy"])


def test_dice_and_jaccard_determine_each_other():
    scores = overlap_scores(*random_counts(4))
    dice, jaccard = scores["dice"], scores["jaccard"]
    np.testing.assert_allclose(dice, 2 * jaccard / (1 + jaccard), rtol=0, atol=TOLERANCE)
    assert set(scores["threshold_jaccard"]) == {0.0, *jaccard[jaccard >= 0.65]}


def test_vectorised_equals_one_by_one():
    counts = random_counts(5)
    together = overlap_scores(*counts)
    for image in range(counts.shape[1]):
        alone = overlap_scores(*counts[:, image : image + 1])
        assert {name: score[0] for name, score in alone.items()} == {
            name: score[image] for name, score in together.items()
        }


def test_no_images_have_no_scores():
    scores = overlap_scores(*np.zeros((4, 0), dtype=np.int64))
    assert {name: score.shape for name, score in scores.items()} == dict.fromkeys(OVERLAP_METRICS, (0,))


def test_narrow_integers_do_not_overflow():
    narrow = (np.array([count], dtype=np.uint8) for count in (200, 200, 200, 200))
    assert overlap_scores(*narrow)["dice"][0] == 0.5


def test_inputs_are_left_as_they_were():
    counts = random_counts(6)
    before = counts.copy()
    overlap_scores(*counts)
    np.testing.assert_array_equal(counts, before)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4), (1, 5), (20,), (4, 5, 1)])
def test_masks_of_different_shapes_are_refused(shape):
    # (1, 5) would broadcast and (20,) has as many pixels; either would be scored silently.
    with pytest.raises(ValueError, match="shape"):
        confusion_counts(np.zeros((4, 5), dtype=bool), np.zeros(shape, dtype=bool))


def test_masks_that_are_not_bool_are_refused():
    lesion = np.ones((4, 5), dtype=bool)
    with pytest.raises(TypeError, match="uint8"):
        confusion_counts(lesion, np.full((4, 5), 255, dtype=np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.float32, np.int64])
def test_foreground_of_anything_but_uint8_is_refused(dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        foreground(np.ones((4, 5), dtype=dtype))


def test_impossible_counts_are_refused():
    one, two = np.array([1]), np.array([1, 1])
    with pytest.raises(ValueError, match="shape"):
        overlap_scores(one, one, one, two)
    with pytest.raises(ValueError, match="negative"):
        overlap_scores(one, one, -one, one)
    with pytest.raises(ValueError, match="no pixels"):
        overlap_scores(*(two * 0,) * 4)
    with pytest.raises(TypeError, match="float64"):
        overlap_scores(one, one, one, one * 0.5)


def test_import_needs_neither_torch_nor_lightning_nor_hydra():
    code = (
        "import sys, skinseg.scoring.overlap\n"
        "heavy = {'torch', 'lightning', 'hydra', 'torchmetrics'} & set(sys.modules)\n"
        "assert 'torch' not in sys.modules and not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- against the public scorer itself --------------------------------------------------------------------


def find_real_masks(count):
    data = Path(os.environ.get("SKINSEG_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    folder = data / "ham10000" / "HAM10000_segmentations_lesion_tschandl"
    # The pattern leaves out the "._ISIC_..." files that the published archive holds.
    masks = sorted(folder.glob("ISIC_*_segmentation.png"))
    if len(masks) < count:
        pytest.skip(f"{folder} holds {len(masks)} masks, fewer than {count}; set SKINSEG_TEST_DATA")
    return [masks[index] for index in np.linspace(0, len(masks) - 1, count).astype(int)]


def erode(lesion, steps):
    for _ in range(steps):
        framed = np.pad(lesion, 1)
        lesion = lesion & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return lesion


@pytest.mark.slow
def test_public_scorer_still_gives_the_stored_answers(ask_scorer, tmp_path):
    golden = ask_scorer(tmp_path / "golden.json")
    assert golden["scorer"] == GOLDEN["scorer"]
    assert golden["cases"] == GOLDEN["cases"]
    # A sum over images may be taken in another order by another pandas.
    assert golden["macro_average"] == pytest.approx(GOLDEN["macro_average"], rel=0, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.realdata
def test_equals_public_scorer_on_real_masks(request, tmp_path):
    paths = find_real_masks(50)
    # Asked for late, so that without the data nothing is installed.
    ask_scorer = request.getfixturevalue("ask_scorer")
    folders = tmp_path / "truth", tmp_path / "prediction"
    for folder in folders:
        folder.mkdir()

    ours, counts = {}, []
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            truth = np.asarray(image.convert("L"))
        shift, steps = number % 7 * 3, number % 5 * 2
        prediction = np.roll(truth, (shift, -2 * shift), axis=(0, 1))
        prediction = np.where(erode(foreground(prediction), steps), np.uint8(255), np.uint8(0))
        if number % 10 == 9:
            prediction[:] = 0
        image_id = path.stem.removesuffix("_segmentation")
        for folder, mask in zip(folders, (truth, prediction), strict=True):
            Image.fromarray(mask).save(folder / f"{image_id}.png")
        image_counts, image_scores = score_one(truth, prediction)
        counts.append(image_counts)
        ours[image_id] = {"counts": image_counts, "scores": image_scores}

    answers = ask_scorer(tmp_path / "answers.json", "--folders", *folders)

    assert len(ours) == 50
    assert ours.keys() == answers["images"].keys()
    for image_id, answer in answers["images"].items():
        assert ours[image_id]["counts"] == answer["counts"], image_id
        assert ours[image_id]["scores"] == pytest.approx(answer["scores"], rel=0, abs=TOLERANCE), image_id
    scores = overlap_scores(*np.array(counts, dtype=np.int64).T)
    means = {name: float(score.mean()) for name, score in scores.items()}
    assert means == pytest.approx(answers["macro_average"], rel=0, abs=TOLERANCE)
    # The check is worth something only where the masks meet neither fully nor not at all.
    assert ((scores["jaccard"] > 0) & (scores["jaccard"] < 1)).sum() >= 30
