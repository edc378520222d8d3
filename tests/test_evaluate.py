"""From a checkpoint or a folder of masks to scores, intervals and a report."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import chosen, make_ham, train_tiny, write_image
from conftest import write_mask as mask_box
from PIL import Image
from trees import write_isic9

from skinseg.build import nets
from skinseg.config.check import check
from skinseg.config.compose import compose, config_dir, plain
from skinseg.errors import SkinsegError
from skinseg.evaluate import EvaluateConfig, run
from skinseg.evaluation.card import model_card
from skinseg.evaluation.content import ceiling
from skinseg.evaluation.gallery import outlines
from skinseg.predict import run as predict
from skinseg.run.identity import method_identity
from skinseg.run.test_log import LOG
from skinseg.scoring.metrics import HEADLINE, METRICS
from skinseg.scoring.overlap import OVERLAP_METRICS
from skinseg.scoring.statistics import LEAST_LESIONS, cluster_intervals
from skinseg.tracking import artifacts

PREDICTED = [name for name in METRICS if name not in ("brier", "ece")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with HAM10000 and a run on it; tests that change it work on a copy."""
    root = tmp_path_factory.mktemp("trained")
    train_tiny(make_ham(root / "ham10000", 30), root / "run", "trainer.max_epochs=8", "optimizer.lr=0.01")
    return root


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of the data and the run, which now lies elsewhere than where it was trained."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "ham10000", tmp_path / "ham10000")
    return tmp_path


def evaluate(place: Path, *overrides: str, folder: str = "evaluation", own: bool = True) -> Path:
    what = ["workers=0", "draws=200", "gallery=2", f"run_dir={place / folder}"]
    if own:
        what += [f"ckpt={place / 'run/checkpoints/best.ckpt'}", "data.num_workers=0"]
        what += (
            [] if any(o.startswith("data=") or "truth=" in o for o in overrides) else [f"data.root={place}"]
        )
    run(compose([*what, *overrides], "evaluate"))
    return place / folder


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    table = pd.read_csv(folder / "scores.csv").set_index("image_id")
    return table, json.loads((folder / "evaluation.json").read_text())


def test_scores_are_those_of_the_training_and_more(place: Path) -> None:
    folder = evaluate(place)
    scores, evaluation = read(folder)
    own = pd.read_csv(place / "run/scores.csv").set_index("image_id")
    assert len(own) > 10
    for metric in OVERLAP_METRICS:
        assert (scores[metric] == own[metric]).all()
        assert evaluation["scores"][metric]["mean"] == pytest.approx(own[metric].mean())
    assert list(evaluation["scores"]) == list(METRICS)
    dice = evaluation["scores"]["dice"]
    assert dice["low"] is dice["high"] is None, "these are too few lesions"
    assert evaluation["lesions"] == own["group"].nunique()
    summary = json.loads((place / "run/summary.json").read_text())
    assert evaluation["identity"]["split"] == summary["protocol"]["split"]
    assert {key: evaluation["identity"][key] for key in ("method", "seed", "fold")} == {
        key: summary["identity"][key] for key in ("method", "seed", "fold")
    }
    assert evaluation["curves"]["val/dice"][-1][0] == 7
    strata = {stratum["column"]: stratum["rows"] for stratum in evaluation["strata"]}
    assert {"stratum_diagnosis", "stratum_age"} <= strata.keys()
    (nevus,) = [row for row in strata["stratum_diagnosis"] if row["value"] == "melanocytic nevus (nv)"]
    nevi = scores[scores["diagnosis"] == "nv"]
    assert (nevus["images"], nevus["lesions"]) == (len(nevi), nevi["group"].nunique())
    assert {m: s["mean"] for m, s in nevus["scores"].items()} == pytest.approx(
        nevi[list(HEADLINE)].mean().to_dict()
    )
    page = (folder / "report.html").read_text()
    assert f"{dice['mean']:.4f}" in page
    assert summary["protocol"]["split"] in page


@pytest.mark.slow
def test_every_test_scoring_is_logged_and_counted(place: Path) -> None:
    assert len((place / "run" / LOG).read_text().splitlines()) == 1, "the training's own"
    _, first = read(evaluate(place))
    assert first["scorings"]["count"] == 2
    assert "always with the same" in first["scorings"]["text"]
    _, second = read(evaluate(place, "threshold=0.3", folder="second"))
    assert second["scorings"]["count"] == 3
    assert "2 ways" in second["scorings"]["text"]
    _, validation = read(evaluate(place, "side=val", folder="third"))
    assert validation["scorings"] is None
    assert len((place / "run" / LOG).read_text().splitlines()) == 3, "validation may be looked at"
    assert any(stamp.startswith("VALIDATION") for stamp in validation["stamps"])


@pytest.mark.slow
def test_a_model_card_lies_beside_the_checkpoint(place: Path) -> None:
    _, evaluation = read(evaluate(place))
    card = (place / "run/checkpoints/best.MODEL_CARD.md").read_text()
    dice = evaluation["scores"]["dice"]
    for word in (
        "Not for diagnosis",
        f"{dice['mean']:.4f}",
        "not available",
        evaluation["identity"]["split"],
    ):
        assert word in card
    assert "CC BY-NC" in card, "the licence of the images"
    (place / "run/checkpoints/best.MODEL_CARD.md").unlink()
    evaluate(place, "side=val", folder="val")
    assert not (place / "run/checkpoints/best.MODEL_CARD.md").exists(), "scores of validation are no card"
    evaluate(place, "threshold=0.3", folder="by_hand")
    assert not (place / "run/checkpoints/best.MODEL_CARD.md").exists(), "nor those of a threshold by hand"
    evaluate(place, f"ckpt={place / 'run/checkpoints/last.ckpt'}", folder="last")
    cards = [path.name for path in (place / "run/checkpoints").glob("*.md")]
    assert cards == ["last.MODEL_CARD.md"], "each checkpoint has its own"


@pytest.mark.slow
def test_masks_of_predict_score_to_the_last_digit_as_the_checkpoint(place: Path) -> None:
    scores, _ = read(evaluate(place))
    test = sorted(scores.index)
    for kind, target in (("images", "jpg"), ("truth", "png")):
        (place / kind).mkdir()
        for image_id in test:
            for path in (place / "ham10000").rglob(f"{image_id}*.{target}"):
                shutil.copy(path, place / kind)
    ckpt = f"ckpt={place / 'run/checkpoints/best.ckpt'}"
    output = place / "out"
    predict(
        compose(
            [ckpt, f"input={place / 'images'}", f"output={output}", "num_workers=0", "run_dir=x"], "predict"
        )
    )
    masks = [f"predictions={output}", f"truth={place / 'truth'}"]
    again, evaluation = read(evaluate(place, *masks, folder="masks", own=False))
    assert sorted(again.index) == test
    assert (again[PREDICTED] == scores[PREDICTED]).all(axis=None)
    assert evaluation["calibration"] is None
    assert "brier" not in again
    data = ["data=ham10000", f"data.root={place}", f"split_file={place / 'run/split.csv'}"]
    third, by_data = read(evaluate(place, f"predictions={output}", *data, folder="data", own=False))
    assert (third[PREDICTED] == scores[PREDICTED]).all(axis=None)
    assert (
        by_data["identity"]["split"]
        == json.loads((place / "run/summary.json").read_text())["protocol"]["split"]
    )
    both = [f"images={place / 'images'}", f"truth={place / 'truth'}", "overlap=keep"]
    fourth, folders = read(evaluate(place, *both, folder="folders"))
    assert (fourth[PREDICTED] == scores[PREDICTED]).all(axis=None)
    assert folders["stamps"] == [
        f"CONTAMINATED: {len(test)} of {len(test)} images are of the data set of the training"
    ]
    with pytest.raises(SkinsegError, match=r"leaves nothing to score.*in the training data"):
        evaluate(place, *both[:2])


@pytest.mark.slow
def test_worker_processes_change_nothing(place: Path) -> None:
    one, _ = read(evaluate(place))
    two, _ = read(evaluate(place, "workers=2", "data.num_workers=1", folder="workers"))
    pd.testing.assert_frame_equal(one, two)


def test_the_checkpoint_alone_is_enough(place: Path) -> None:
    shutil.move(place / "run/checkpoints/best.ckpt", place / "moved.ckpt")
    scores, _ = read(evaluate(place, f"ckpt={place / 'moved.ckpt'}"))
    assert (scores["dice"] == pd.read_csv(place / "run/scores.csv").set_index("image_id")["dice"]).all()
    _, evaluation = read(place / "evaluation")
    assert "no run folder" in evaluation["scorings"]["text"]
    assert evaluation["curves"] is None
    assert "training_seconds" not in evaluation["costs"]


@pytest.mark.slow
def test_threshold_of_validation(place: Path) -> None:
    _, evaluation = read(evaluate(place, "threshold=val"))
    said = dict(evaluation["protocol"])["Threshold"]
    assert "validation images" in said
    chosen = float(said.split()[0])
    means = {}
    for threshold in (0.2, 0.5, 0.8):
        scores, _ = read(evaluate(place, "side=val", f"threshold={threshold}", folder=str(threshold)))
        means[threshold] = scores["dice"].mean()
    best, _ = read(evaluate(place, "side=val", f"threshold={chosen}", folder="chosen"))
    assert best["dice"].mean() >= max(means.values())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["threshold=test"], "chosen on validation"),
        (["threshold=1.5"], "threshold=1.5"),
        (["ckpt=null"], "Say what to evaluate"),
        (["predictions=x", "truth=y"], "not both"),
        (["ckpt=[]"], "no checkpoint"),
        (["ckpt=nowhere.ckpt"], "no such file"),
        (["truth=x"], "needs images"),
        (["images=x"], "needs truth"),
        (["draws=1"], "100 or more"),
        (["level=95"], "coverage"),
        (["data.root=/nowhere"], "/nowhere"),
        (["strata=/nowhere.csv"], "/nowhere.csv"),
        (["device=cuda"], "device=cuda"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    place: Path, overrides: list[str], said: str
) -> None:
    if overrides == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SkinsegError, match=said):
        evaluate(place, *overrides)
    assert not (place / "evaluation/scores.csv").exists()


DATA_SETS = sorted(path.stem for path in (config_dir() / "data").glob("[!b]*.yaml"))


@pytest.mark.parametrize("name", DATA_SETS)
def test_config_of_each_data_set(name: str) -> None:
    config = plain(compose([*chosen(name), "run_dir=.", "ckpt=x"], "evaluate"))
    check(config, EvaluateConfig)
    assert config["data"]["verify"] == plain(compose([*chosen(name), "run_dir=."]))["data"]["verify"]


@pytest.mark.slow
def test_choosing_between_checkpoints_of_a_run_on_test_is_refused(place: Path) -> None:
    both = f"ckpt=[{place / 'run/checkpoints/best.ckpt'},{place / 'run/checkpoints/last.ckpt'}]"
    with pytest.raises(SkinsegError, match="chosen on test"):
        evaluate(place, both)
    evaluate(place, both, "side=val")
    found = sorted(path.parent.name for path in (place / "evaluation").glob("*/report.html"))
    assert [name[:2] for name in found] == ["0_", "1_"]


@pytest.mark.slow
def test_a_checkpoints_name_does_not_say_where_its_evaluation_is_written(place: Path) -> None:
    both = [place / "run/checkpoints/best.ckpt", place / "run/checkpoints/last.ckpt"]
    names = ["x/../../../pwned", 80 * "\N{GRINNING FACE}" + 300 * "a"]
    for path, name in zip(both, names, strict=True):
        change(path, lambda whole, name=name: whole["skinseg"]["config"].update(name=name))  # type: ignore[misc]
    before = {path.name for path in place.iterdir()}
    evaluate(place, f"ckpt=[{both[0]},{both[1]}]", "side=val")
    assert {path.name for path in place.iterdir()} == {*before, "evaluation"}
    assert len(list((place / "evaluation").glob("[01]_*/report.html"))) == 2


@pytest.mark.slow
def test_a_test_side_by_another_name_is_one(place: Path) -> None:
    """What is scored counts, and not what a table calls it."""
    split = pd.read_csv(place / "run/split.csv")
    split["split"] = split["split"].map({"train": "train", "val": "test", "test": "val"})
    split.to_csv(place / "other.csv", index=False)
    own = ["data=ham10000", f"data.root={place}", "overlap=keep", f"split_file={place / 'other.csv'}"]
    _, evaluation = read(evaluate(place, *own, "side=val"))
    assert not [stamp for stamp in evaluation["stamps"] if stamp.startswith("VALIDATION")]
    assert evaluation["scorings"]["count"] == 2
    both = f"ckpt=[{place / 'run/checkpoints/best.ckpt'},{place / 'run/checkpoints/last.ckpt'}]"
    with pytest.raises(SkinsegError, match="chosen on test"):
        evaluate(place, *own, "side=val", both)
    _, evaluation = read(evaluate(place, *own, "side=test", folder="val"))
    assert "VALIDATION: a checkpoint was chosen on these images" in evaluation["stamps"]
    assert evaluation["scorings"] is None


def test_without_a_log_nothing_is_scored(place: Path) -> None:
    (place / "run" / LOG).unlink()
    (place / "run" / LOG).mkdir()
    with pytest.raises(SkinsegError, match=f"{LOG}, which logs every test scoring, cannot be written"):
        evaluate(place)
    assert not (place / "evaluation").exists()
    evaluate(place, "side=val")


def test_a_malformed_mask_of_validation_is_named(place: Path) -> None:
    split = pd.read_csv(place / "run/split.csv")
    image_id = split.loc[split["split"] == "val", "image_id"].iloc[0]
    (mask,) = (place / "ham10000").rglob(f"{image_id}_segmentation.png")
    Image.fromarray(np.eye(32, 40, dtype=np.uint8)).save(mask)
    with pytest.raises(SkinsegError, match=f"1 mask cannot be scored:\\n.*{image_id}.*values 0, 1"):
        evaluate(place, "threshold=val")


def test_what_the_loader_is_told_of_other_data(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ham(place / "more", 32)
    asked: list[Any] = []
    original = nets.predictor

    def predictor(*args: Any, **options: Any) -> Any:
        asked.append((options["batch_size"], options["num_workers"]))
        return original(*args, **options)

    monkeypatch.setattr(nets, "predictor", predictor)
    evaluate(place, "data=ham10000", f"data.root={place / 'more'}", "data.batch_size=3", "data.num_workers=0")
    assert asked == [(3, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_folder_describes_the_last_evaluation_alone(
    place: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    """Two checkpoints, then one on another subset, then masks; what somebody else put there stays."""
    shutil.copytree(place / "run", place / "other")
    change(place / "other/checkpoints/best.ckpt", lambda c: c["skinseg"]["config"].update(run_dir="other"))
    both = f"ckpt=[{place / 'run/checkpoints/best.ckpt'},{place / 'other/checkpoints/best.ckpt'}]"
    folder = evaluate(place, both, "side=val", f"workers={workers}")
    assert len(list(folder.glob("*/masks/*.png"))) > 10
    own = folder / "masks/drawn_segmentation.png"
    own.parent.mkdir()
    for path in (own, folder / "notes.csv"):
        path.write_bytes(b"mine")

    scores, _ = read(evaluate(place, f"workers={workers}"))
    assert not list(folder.glob("[01]_*"))
    assert (folder / "MODEL_CARD.md").is_file()
    assert (folder / "calibration.csv").is_file()
    assert {path.name for path in (folder / "masks").iterdir()} == {
        own.name, *(f"{image_id}_segmentation.png" for image_id in scores.index)
    }  # fmt: skip
    assert ": 1 mask that this evaluation did not write, e.g. drawn_segmentation.png" in caplog.text

    shutil.copytree(place / "ham10000/HAM10000_segmentations_lesion_tschandl", place / "truth")
    for path in sorted((place / "truth").iterdir())[3:]:
        path.unlink()
    masks = [f"predictions={place / 'truth'}", f"truth={place / 'truth'}", f"workers={workers}"]
    evaluate(place, *masks, own=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".skinseg", "evaluation.json", "files.csv", "masks", "notes.csv", "provenance.json", "report.html",
        "scores.csv",
    ]  # fmt: skip
    assert len(list((folder / "masks").iterdir())) == 4


def test_an_earlier_evaluations_masks_are_not_scored_into_its_own_folder(place: Path) -> None:
    folder = evaluate(place, "side=val")
    kept = sorted((folder / "masks").iterdir())
    for path in (place / "ham10000/HAM10000_segmentations_lesion_tschandl").iterdir():
        if path.name not in {mask.name for mask in kept}:
            path.unlink()
    truth = f"truth={place / 'ham10000/HAM10000_segmentations_lesion_tschandl'}"
    with pytest.raises(SkinsegError, match=r"predictions=.*another folder"):
        evaluate(place, f"predictions={folder / 'masks'}", truth, own=False)
    assert sorted((folder / "masks").iterdir()) == kept
    evaluate(place, f"predictions={folder / 'masks'}", truth, own=False, folder="second")


def test_nothing_else_that_lies_in_the_folder_is_uploaded(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of Weights & Biases are stand-ins: one per evaluation, the second without a calibration."""
    uploaded: list[Any] = []
    run = SimpleNamespace(id="a", log_artifact=uploaded.append, log=lambda _: None)
    monkeypatch.setattr(artifacts, "runs", lambda _: [run])
    (place / "evaluation").mkdir()
    for name in ("patients.csv", "comparison.json"):
        (place / "evaluation" / name).write_text("mine")
    evaluate(place)
    truth = place / "ham10000/HAM10000_segmentations_lesion_tschandl"
    evaluate(place, f"predictions={truth}", f"truth={truth}", own=False)
    first, second = ([*artifact.manifest.entries] for artifact in uploaded)
    assert [artifact.type for artifact in uploaded] == ["evaluation", "evaluation"]
    assert {"scores.csv", "calibration.csv", "MODEL_CARD.md", "report.html"} <= set(first)
    assert set(second) == set(first) - {"calibration.csv", "MODEL_CARD.md"}
    assert not {"patients.csv", "comparison.json", ".skinseg"} & set(first)


def test_an_evaluation_into_a_training_is_refused(place: Path) -> None:
    before = (place / "run/scores.csv").read_bytes()
    with pytest.raises(SkinsegError, match="folder of a training"):
        evaluate(place, folder="run")
    assert (place / "run/scores.csv").read_bytes() == before


def folders_of(place: Path, names: list[str], masked: int) -> list[str]:
    """Photographs of these names, and masks of the first of them."""
    for number, name in enumerate(names):
        write_image(place / "images" / f"{name}.jpg")
        if number < masked:
            mask_box(place / "truth" / f"{name}.png")
    return [f"images={place / 'images'}", f"truth={place / 'truth'}", "overlap=keep"]


def test_photographs_without_a_mask_are_counted_everywhere(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    where = folders_of(place, [f"image_{number}" for number in range(8)], 4)
    (place / "images/image_9.dcm").write_bytes(b"")
    folder = evaluate(place, *where)
    scores, evaluation = read(folder)
    assert len(scores) == evaluation["images"] == 4
    assert evaluation["left_out"] == {
        "without_a_mask": ["image_4", "image_5", "image_6", "image_7"],
        "of_a_kind_that_is_not_read": ["image_9.dcm"],
    }
    for text in (capsys.readouterr().out, (folder / "report.html").read_text()):
        assert "4 images (without a mask)" in text
        assert "1 image (of a kind that is not read)" in text
    assert "Pictures that are not read: 1 .dcm" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("overlap", ["keep", "exclude"])
def test_images_of_a_data_set_without_a_mask_are_counted(place: Path, overlap: str) -> None:
    data = make_ham(place / "others/ham10000", 3)
    renamed = data / "HAM10000_metadata.csv"
    renamed.write_text(renamed.read_text().replace("ISIC_9", "ISIC_8").replace("HAM_9", "HAM_8"))
    for path in data.glob("*/ISIC_9*"):
        path.rename(path.with_name(path.name.replace("ISIC_9", "ISIC_8")))
    next(data.glob("*/ISIC_8000003_segmentation.png")).unlink()
    what = ["data=ham10000", f"data.root={data}", "data.on_missing_mask=keep", f"overlap={overlap}"]
    _, evaluation = read(evaluate(place, *what))
    assert evaluation["left_out"] == {"without_a_mask": ["ISIC_8000003"]}
    assert ["Left out", "1 image (without a mask)"] in evaluation["protocol"]


@pytest.mark.slow
def test_names_that_are_no_text_or_very_long_are_scored_and_compared(place: Path) -> None:
    latin, long = os.fsdecode(b"caf\xe9"), "b" * 245
    where = folders_of(place, [latin, long, "c [bold]", "d"], 4)
    folder = evaluate(place, *where)
    scores, evaluation = read(folder)
    assert set(scores.index) == {r"caf\udce9", long, "c [bold]", "d"}
    assert len(list((folder / "masks").iterdir())) == 4
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert r"caf\udce9" in page
    assert len(pd.read_csv(folder / "files.csv")) == 4
    evaluate(place, f"predictions={place / 'truth'}", *where[:2], f"run_dir='{place / latin}'", own=False)
    _, masks = read(place / latin)
    assert masks["images"] == evaluation["images"]


def test_a_speck_has_an_outline() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1, 1] = mask[5, 4:7] = 255
    found = sorted(outlines(mask), key=lambda points: points[0, 1])
    assert [points.tolist() for points in found] == [
        [[0, 0], [2, 0], [2, 2], [0, 2]],
        [[3, 4], [7, 4], [7, 6], [3, 6]],
    ]


def change(path: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint = torch.load(path, weights_only=True)
    how(checkpoint)
    torch.save(checkpoint, path)


def test_nan_names_the_image(place: Path) -> None:
    change(
        place / "run/checkpoints/best.ckpt",
        lambda c: [v.fill_(np.nan) for v in c["state_dict"].values() if v.is_floating_point()],
    )
    with pytest.raises(SkinsegError, match=r"NaN for .*ISIC_\d+\.jpg"):
        evaluate(place)
    assert not (place / "evaluation/scores.csv").exists()


def test_a_checkpoint_without_its_split_is_refused(place: Path) -> None:
    change(place / "run/checkpoints/best.ckpt", lambda c: c["skinseg"].pop("sides"))
    with pytest.raises(SkinsegError, match="which images it was trained on"):
        evaluate(place)


def test_test_images_that_are_not_there_are_named(place: Path) -> None:
    image_id = read(evaluate(place))[0].index[0]
    for path in (place / "ham10000").rglob(f"{image_id}*"):
        path.unlink()
    table = pd.read_csv(place / "ham10000/HAM10000_metadata.csv")
    table[table["image_id"] != image_id].to_csv(place / "ham10000/HAM10000_metadata.csv", index=False)
    with pytest.raises(SkinsegError, match=f"1 of the .*{image_id}"):
        evaluate(place, folder="again")


@pytest.mark.slow
def test_other_data_without_what_was_trained_on(place: Path) -> None:
    """A second HAM10000 that shares 60 images with the first and has 20 more."""
    make_ham(place / "more", 40)
    other = ["data=ham10000", f"data.root={place / 'more'}", "data.num_workers=0"]
    scores, evaluation = read(evaluate(place, *other))
    assert len(scores) == 20
    assert ["Left out", "60 images (in training data)"] in evaluation["protocol"]
    with pytest.raises(SkinsegError, match="overlap=exclude"):
        evaluate(place, *other, "overlap=refuse", folder="refused")
    kept, evaluation = read(evaluate(place, *other, "overlap=keep", folder="kept"))
    assert len(kept) == 80
    subsets = pd.read_csv(place / "run/split.csv")["split"].value_counts()
    assert evaluation["stamps"] == [
        "CONTAMINATED: 60 of 80 images are of the data set of the training",
        f"VALIDATION: a checkpoint was chosen on {subsets['val']} of these 80 images",
        f"TRAINING: the network was trained on {subsets['train']} of these 80 images",
    ]


def test_strata_of_the_users_own(place: Path) -> None:
    ids = pd.read_csv(place / "run/scores.csv")["image_id"]
    device = ["A" if number % 2 else "B" for number in range(len(ids))]
    pd.DataFrame({"image_id": ids, "device": device}).to_csv(place / "mine.csv", index=False)
    scores, evaluation = read(evaluate(place, f"strata={place / 'mine.csv'}"))
    mine = next(stratum for stratum in evaluation["strata"] if stratum["label"] == "device")
    found = {row["value"]: row["scores"]["dice"]["mean"] for row in mine["rows"]}
    expected = scores["dice"].groupby(pd.Series(device, index=ids)).mean().to_dict()
    assert found == pytest.approx(expected)
    assert all(row["small"] for row in mine["rows"]), "of a few lesions"


# Folders of masks that somebody else wrote


def write_masks(folder: Path, number: int = 8, *, shift: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    folder.mkdir()
    for index in range(number):
        mask = np.zeros(size[::-1], np.uint8)
        mask[5:20, 5 + shift : 20 + index + shift] = 255
        Image.fromarray(mask).save(folder / f"ISIC_{index:07d}_segmentation.png")
    return folder


def score_masks(place: Path, *overrides: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    what = [f"predictions={place / 'predictions'}", f"truth={place / 'truth'}", *overrides]
    return read(evaluate(place, *what, own=False))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    write_masks(tmp_path / "truth")
    write_masks(tmp_path / "predictions", shift=2)
    return tmp_path


FIRST = "ISIC_0000000_segmentation.png"


def save(path: Path, pixels: Any, **how: Any) -> None:
    Image.fromarray(np.asarray(pixels)).save(path, **how)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: (f / FIRST).unlink(), "lacks 1 image: ISIC_0000000"),
    "extra": (lambda f: shutil.copy(f / FIRST, f / "ISIC_0000099.png"), "in addition 1 image: ISIC_0000099"),
    "doubled": (lambda f: shutil.copy(f / FIRST, f / "ISIC_0000000.png"), "several files for 1 image"),
    "wrong size": (
        lambda f: save(f / FIRST, np.zeros((15, 20), np.uint8)),
        "20x15 pixels, expected the truth's 40x30",
    ),
    "colour": (lambda f: save(f / FIRST, np.zeros((30, 40, 3), np.uint8)), "mode RGB"),
    "0 and 1": (lambda f: save(f / FIRST, np.eye(30, 40, dtype=np.uint8)), "values 0, 1"),
    "16 bits": (lambda f: save(f / FIRST, np.zeros((30, 40), np.uint16)), "mode I;16"),
    "broken": (lambda f: (f / FIRST).write_bytes(b"\x89PNG"), "not an image"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_predictions_that_do_not_fit_are_refused(masks: Path, kind: str) -> None:
    spoil, said = SPOILED[kind]
    spoil(masks / "predictions")
    with pytest.raises(SkinsegError, match=said):
        score_masks(masks)
    assert not (masks / "evaluation/scores.csv").exists()


def test_jpeg_masks_are_refused(masks: Path) -> None:
    mask = Image.open(masks / "predictions" / FIRST)
    (masks / "predictions" / FIRST).unlink()
    mask.save(masks / "predictions/ISIC_0000000.jpg")
    with pytest.raises(SkinsegError, match=r"expected 0 \(skin\) and 255"):
        score_masks(masks)


def test_an_empty_folder_is_refused(masks: Path) -> None:
    for path in (masks / "predictions").iterdir():
        path.unlink()
    with pytest.raises(SkinsegError, match="holds no picture"):
        score_masks(masks)
    shutil.rmtree(masks / "predictions")
    with pytest.raises(SkinsegError, match="no such folder"):
        score_masks(masks)


def test_empty_predictions_score_nothing_and_their_distances_are_undefined(masks: Path) -> None:
    for path in (masks / "predictions").iterdir():
        save(path, np.zeros((30, 40), np.uint8))
    scores, evaluation = score_masks(masks)
    assert (scores["dice"] == 0).all()
    assert scores["hd95"].isna().all()
    assert evaluation["scores"]["hd95"] == {
        "n": 0,
        "undefined": 8,
        "no_interval": "",
        **dict.fromkeys(("mean", "low", "high", "q1", "median", "q3")),
    }
    assert (masks / "evaluation/report.html").is_file()


def test_intervals_from_as_many_lesions_on_as_they_need(tmp_path: Path) -> None:
    write_masks(tmp_path / "truth", LEAST_LESIONS, size=(140, 30))
    write_masks(tmp_path / "predictions", LEAST_LESIONS, shift=2, size=(140, 30))
    table, evaluation = score_masks(tmp_path)
    dice = evaluation["scores"]["dice"]
    own = cluster_intervals(table["dice"], table["group"], draws=200)
    assert (dice["low"], dice["high"]) == pytest.approx((own.low[0], own.high[0]), abs=1e-12)
    assert evaluation["scores"]["area_error"]["low"] is None
    assert "none of fewer than 100 lesions" in evaluation["interval"]
    for part in evaluation["strata"]:
        for row in part["rows"]:
            assert row["small"] == (row["lesions"] < LEAST_LESIONS)
            assert (row["scores"]["dice"]["low"] is None) == row["small"]


def test_a_group_of_equal_scores_says_why_it_has_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but one image of a group are so bad that their threshold Jaccard is 0."""
    number = LEAST_LESIONS
    write_masks(tmp_path / "truth", 2 * number)
    write_masks(tmp_path / "predictions", 2 * number)
    empty = np.zeros((30, 40), np.uint8)
    for index in range(1, number):
        save(tmp_path / f"predictions/ISIC_{index:07d}_segmentation.png", empty)
    ids = [f"ISIC_{index:07d}" for index in range(2 * number)]
    own = pd.DataFrame({"image_id": ids, "clinic": ["bad"] * number + ["good"] * number})
    own.to_csv(tmp_path / "own.csv", index=False)
    _, evaluation = score_masks(tmp_path, f"strata={tmp_path / 'own.csv'}")
    (bad, _) = next(part["rows"] for part in evaluation["strata"] if part["column"] == "clinic")
    score = bad["scores"]["threshold_jaccard"]
    assert score["low"] is None
    assert score["no_interval"] == "nearly all lesions have the same value"
    assert evaluation["scores"]["threshold_jaccard"]["no_interval"] == ""
    page = (tmp_path / "evaluation/report.html").read_text()
    assert "no interval: nearly all lesions have the same value" in page


def test_words_of_a_training_are_not_said_of_masks_of_any_program(masks: Path) -> None:
    _, evaluation = score_masks(masks)
    said = dict(evaluation["protocol"])
    assert "Split" not in said
    assert said["Set of images"].startswith(evaluation["identity"]["split"])
    page = (masks / "evaluation/report.html").read_text()
    assert "est subset" not in page
    assert "How often these masks were scored is not recorded." in page


def test_what_is_said_of_a_checkpoint_is_true_of_it(place: Path) -> None:
    """Chosen, the last one, or renamed so that nobody can tell."""
    checkpoints = place / "run/checkpoints"
    shutil.copy(checkpoints / "last.ckpt", place / "moved.ckpt")
    for path, expected in (
        (checkpoints / "best.ckpt", "best val/dice on validation"),
        (checkpoints / "last.ckpt", "the most recent one of its run, not the one chosen by val/dice"),
        (place / "moved.ckpt", "whether this one was chosen, its name does not say"),
    ):
        _, evaluation = read(evaluate(place, f"ckpt={path}", "side=val", folder=path.stem))
        assert dict(evaluation["protocol"])["Checkpoint"].endswith(f"{expected})")
        assert "VALIDATION: a checkpoint was chosen on these images" in evaluation["stamps"]


def test_no_interval_of_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_masks(tmp_path / "truth", 1)
    write_masks(tmp_path / "predictions", 1, shift=1)
    _, evaluation = score_masks(tmp_path)
    assert evaluation["scores"]["dice"]["low"] is None
    assert "no intervals: 1 lesion," in evaluation["interval"]
    page = (tmp_path / "evaluation/report.html").read_text().partition("<body>")[2]
    for said in (page, capsys.readouterr().out):
        assert not re.findall(r"\b1 (?:more )?(?:image|mask|photograph|lesion|time|run|pair)s\b", said)


def test_lesions_of_a_folder(masks: Path) -> None:
    ids = [f"ISIC_{index:07d}" for index in range(8)]
    pd.DataFrame({"image_id": ids, "lesion_id": list("aabbccdd")}).to_csv(masks / "lesions.csv", index=False)
    scores, evaluation = score_masks(masks, f"strata={masks / 'lesions.csv'}")
    assert evaluation["lesions"] == 4
    assert scores["group"].tolist() == list("aabbccdd")
    assert evaluation["scores"]["dice"]["low"] is None, "eight images of four lesions are four"


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_lesions_of_a_large_folder(tmp_path: Path, kind: str) -> None:
    """They are names and no stratum, however many; an image without one stands alone."""
    for folder in ("truth", "predictions"):
        write_masks(tmp_path / folder, 90)
    ids = [f"ISIC_{index:07d}" for index in range(90)]
    lesions = [index // 2 if kind == "numbers" else f"lesion {index // 2}" for index in range(80)]
    table = pd.DataFrame({"image_id": ids, "lesion_id": [*lesions, *[None] * 10]})
    table.astype({"lesion_id": "Int64" if kind == "numbers" else str}).to_csv(
        tmp_path / "lesions.csv", index=False, na_rep=""
    )
    scores, evaluation = score_masks(tmp_path, f"strata={tmp_path / 'lesions.csv'}")
    assert evaluation["lesions"] == 50
    assert scores["group"].iloc[79] == str(lesions[79])
    assert scores["group"].iloc[80:].tolist() == ids[80:]
    said = dict(evaluation["protocol"])
    assert said["Lesions"] == "10 images have no known lesion id; each counts as one"
    assert said["Images"] == "90 of 50 lesions: the folder truth"


def test_ids_of_strata_and_split_files_are_those_of_the_files(
    masks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Names of files, in letters of another case, with blanks; what matches nothing is named."""
    ids = [f" isic_{index:07d}.JPG" for index in range(8)]
    lesions = pd.DataFrame({"image_id": [*ids, "ISIC_9"], "lesion_id": [*"aabb", "cc ", "cc", " ", "", "z"]})
    lesions.to_csv(masks / "lesions.csv", index=False, sep=";", encoding="utf-16")
    with caplog.at_level(logging.WARNING):
        scores, evaluation = score_masks(masks, f"strata={masks / 'lesions.csv'}")
    assert evaluation["lesions"] == 5
    assert scores["group"].tolist() == [*"aabb", "cc", "cc", "ISIC_0000006", "ISIC_0000007"]
    assert "8 of 9 image ids match the 8 images; these do not: ISIC_9." in caplog.text
    (masks / "evaluation").rename(masks / "first")
    subsets = ["Test "] * 4 + ["train"] * 4
    pd.DataFrame({"Image ID": ids, "Split": subsets}).to_csv(masks / "sides.csv", index=False)
    for folder in ("truth", "predictions"):
        for index in range(4, 8):
            (masks / folder / f"ISIC_{index:07d}_segmentation.png").rename(masks / f"{folder}_{index}.png")
    scores, _ = score_masks(masks, f"split_file={masks / 'sides.csv'}")
    assert len(scores) == 4


@pytest.mark.parametrize("column", ["lesion_id", "device"])
def test_an_image_that_a_table_lists_twice(masks: Path, column: str) -> None:
    table = pd.DataFrame({"image_id": ["ISIC_0000000", "isic_0000000.png"], column: ["A", "B"]})
    table.to_csv(masks / "s.csv", index=False)
    with pytest.raises(SkinsegError, match=r"1 image id occurs twice, ISIC_0000000 first"):
        score_masks(masks, f"strata={masks / 's.csv'}")


def test_strata_of_other_images_are_a_mistake(masks: Path) -> None:
    pd.DataFrame({"image_id": ["ISIC_7000000"], "device": ["A"]}).to_csv(masks / "s.csv", index=False)
    with pytest.raises(SkinsegError, match=r"none of its 1 image id .*such as ISIC_0000000, found such as"):
        score_masks(masks, f"strata={masks / 's.csv'}")


def test_the_truth_is_read_as_strictly(masks: Path) -> None:
    save(masks / "truth" / FIRST, np.eye(30, 40, dtype=np.uint8))
    with pytest.raises(SkinsegError, match="values 0, 1"):
        score_masks(masks)


def test_annotators_stand_beside_the_network(tmp_path: Path) -> None:
    """The masks of two people, and of none who would be pseudo; only the first of them is the truth."""
    ids = [f"ISIC_{index:07d}" for index in range(8)]
    write_isic9(tmp_path / "data", {"Train/nevus": ids[:4], "Train/melanoma": ids[4:]})
    size = (20, 15)
    for folder, shift in (("one", 0), ("two", 1), ("drawn", 5), ("predictions", 3)):
        for image_id in ids if folder != "two" else ids[:3]:
            box = mask_box(tmp_path / folder / f"{image_id}_segmentation.png", size=size, shift=shift)
            assert box.is_file()
    sources = ",".join(f'"{kind}:{tmp_path / kind}"' for kind in ("one", "two"))
    reader = f'data.reader.masks=[{sources},"pseudo:{tmp_path / "drawn"}"]'
    what = ["data=isic9", f"data.root={tmp_path / 'data'}", reader, f"predictions={tmp_path / 'predictions'}"]
    _, evaluation = read(evaluate(tmp_path, *what, own=False))
    ceiling = evaluation["ceiling"]
    assert "3 of the scored images have several masks" in ceiling["text"]
    dice = next(row for row in ceiling["rows"] if row["metric"] == "dice")
    # Boxes five pixels wide, of which a shift leaves 5 - shift in common.
    assert (dice["annotators"], dice["model"]) == pytest.approx((4 / 5, 2 / 5))
    assert "Human ceiling" in (tmp_path / "evaluation/report.html").read_text()


def test_a_network_that_finds_nothing_is_not_set_above_the_annotators() -> None:
    of_images = {"image_id": ["a", "b"], "height": 30, "width": 40}
    pairs = pd.DataFrame({**of_images, "dice": [0.8, 0.0], "hd95": [4.0, np.nan]})
    scores = pd.DataFrame({**of_images, "dice": [0.9, 0.0], "hd95": [2.0, np.nan]})
    found = ceiling(pairs, scores)
    assert found is not None
    distance = next(row for row in found["rows"] if row["metric"] == "hd95")
    assert (distance["annotators"], distance["model"], distance["images"]) == (27, 26, 2)
    assert "counts as its diagonal" in found["text"]


def test_a_mean_has_the_share_undefined_beside_it(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((masks / "predictions").iterdir())[:2]:
        save(path, np.zeros((30, 40), np.uint8))
    ids = [f"ISIC_{index:07d}" for index in range(8)]
    own = masks / "own.csv"
    pd.DataFrame({"image_id": ids, "clinic": ["x"] * 4 + ["y"] * 4}).to_csv(own, index=False)
    _, evaluation = score_masks(masks, f"strata={own}")
    assert "2 (25.0 %)" in capsys.readouterr().out
    page = (masks / "evaluation/report.html").read_text()
    assert "undefined on 2 of 8 images (25.0 %)" in page
    assert "undefined on 2 of 4 images (50.0 %)" in page, "also in a stratum"
    card = model_card({**evaluation, "costs": {}}, "network", 30)
    assert "2 of 8 images (25.0 %)" in card


def test_a_line_of_the_log_that_was_cut_short_counts_and_swallows_none(place: Path) -> None:
    log = place / "run" / LOG
    log.write_text(log.read_text()[:-20])
    _, evaluation = read(evaluate(place))
    assert evaluation["scorings"]["count"] == 2
    assert len(log.read_text().splitlines()) == 2


def test_where_the_data_lie_and_how_fast_it_ran_is_not_the_method(place: Path) -> None:
    config = json.loads((place / "run/summary.json").read_text())["config"]
    other = {**config, "compile": "default", "gradient_checkpointing": True, "matmul_precision": "high"}
    other["data"] = {**config["data"], "root": "/elsewhere", "cache_dir": "/scratch"}
    assert method_identity(other) == method_identity(config)
    tested = {**config, "test_data": {**config["data"], "cache_dir": "/a"}}
    moved = {**config, "test_data": {**config["data"], "cache_dir": "/b", "root": "/c"}}
    assert method_identity(tested) == method_identity(moved) != method_identity(config)
    before = {key: value for key, value in config.items() if key not in ("preprocess", "mix", "search")}
    before["data"] = {key: value for key, value in config["data"].items() if key != "masks"}
    assert method_identity(before) == method_identity(config), "as before there was such a choice"


def test_what_changes_the_weights_is_the_method(place: Path) -> None:
    config = json.loads((place / "run/summary.json").read_text())["config"]

    def identity(**changed: object) -> dict[str, Any]:
        nodes = dict(config["callbacks"])
        nodes["progressive_resizing"] = {**nodes["progressive_resizing"], **changed}
        return method_identity({**config, "callbacks": nodes})

    def only(*names: str) -> dict[str, Any]:
        nodes = {name: config["callbacks"][name] for name in names}
        return method_identity({**config, "callbacks": nodes})

    assert identity() == identity(until=0.5) == only("early_stopping")
    assert only() == only("panels") == only("learning_rate") != only("early_stopping")
    assert identity(start=0.5) not in (identity(), identity(start=0.5, until=0.5))
    grey = plain(compose(["preprocess=shades_of_grey", "mix=cutmix", "run_dir=."]))
    for key in ("preprocess", "mix"):
        assert method_identity({**config, key: grey[key]}) != method_identity(config)
