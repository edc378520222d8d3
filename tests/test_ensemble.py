"""Several trainings as one predictor."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_ham, train_tiny
from trees import write_isic9

from skinseg.build import nets
from skinseg.config.compose import compose, plain
from skinseg.ensemble import run
from skinseg.errors import SkinsegError
from skinseg.evaluate import run as evaluate
from skinseg.inference.files import find_photographs
from skinseg.predict import run as predict
from skinseg.run.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of one data set, each with another normalisation, in the folders of a sweep."""
    root = tmp_path_factory.mktemp("ensemble")
    data = make_ham(root / "ham10000", 18)
    for fold in range(3):
        folder = train_tiny(
            data, root / "sweep" / str(fold), "test=false", "data.split.folds=3", f"data.split.fold={fold}"
        )
        path = folder / "checkpoints/best.ckpt"
        checkpoint = read_checkpoint(path, key="ckpt")
        checkpoint["state_dict"]["mean"] += 10 * fold
        checkpoint["state_dict"]["std"] *= 1 + fold
        torch.save(checkpoint, path)
    (root / "sweep/comparison").mkdir()  # a sweep's folder holds more than runs
    return root / "sweep"


def ensemble(folder: Path, runs: str, *overrides: str) -> Path:
    return run(compose([f"runs={runs}", f"run_dir={folder}", *overrides], "ensemble"))


def test_nothing_is_no_ensemble(tmp_path: Path) -> None:
    with pytest.raises(SkinsegError, match="found 0 checkpoints; an ensemble needs two"):
        ensemble(tmp_path / "ensemble", "[]")


def probabilities(path: Path, files: list[str]) -> np.ndarray:
    predictor = nets.predictor(
        *nets.load_net(path), device="cpu", precision="32-true", batch_size=4, num_workers=0
    )
    return np.stack([prediction.probability for prediction in predictor(files)])


def test_probability_is_the_mean_of_the_members(sweep: Path, tmp_path: Path) -> None:
    joined = ensemble(tmp_path, str(sweep))
    assert joined == tmp_path / "checkpoints/ensemble.ckpt"
    photographs = find_photographs(sweep.parent / "ham10000", "input").files
    files = [str(path) for path in photographs.values()]
    members = [probabilities(sweep / f"{fold}/checkpoints/best.ckpt", files) for fold in range(3)]
    assert np.ptp(members, axis=0).max() > 0.01  # else any weighting would do
    np.testing.assert_allclose(probabilities(joined, files), np.mean(members, axis=0), atol=2e-6)


@pytest.mark.parametrize(
    "name", ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "summary.json", "split.csv", "evaluation.json"]
)
def test_a_folder_of_something_else_is_refused(name: str, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for path in (tmp_path / name, tmp_path / "config.yaml"):
        path.write_text("of a training")
    with pytest.raises(SkinsegError, match=rf"something else than an ensemble, e\.g\. {Path(name).name}"):
        ensemble(tmp_path, str(sweep))
    assert (tmp_path / "config.yaml").read_text() == "of a training"
    assert not (tmp_path / "checkpoints/ensemble.ckpt").exists()


def test_an_ensemble_is_made_anew_in_its_folder(sweep: Path, tmp_path: Path) -> None:
    joined = ensemble(tmp_path, str(sweep))
    joined.with_name("ensemble.MODEL_CARD.md").touch()
    assert ensemble(tmp_path, f"[{sweep / '0'},{sweep / '1'}]") == joined


def test_no_image_of_the_folds_is_left_for_a_test(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = ensemble(tmp_path, str(sweep))
    said = re.search(r"(\d+) images were in the training of a member, (\d+) chose", capsys.readouterr().out)
    assert said is not None
    assert sum(map(int, said.groups())) == 36
    config = [f"ckpt={joined}", f"run_dir={tmp_path / 'evaluation'}", f"data.root={sweep.parent}"]
    with pytest.raises(SkinsegError, match=r"each was in the training of one of the ensemble's members"):
        evaluate(compose([*config, "workers=0"], "evaluate"))
    with pytest.raises(SkinsegError, match=r"leaves? nothing"):  # nor under another name
        evaluate(compose([*config, "workers=0", "data=ham10000"], "evaluate"))


@pytest.mark.slow
def test_seeds_are_tested_on_what_all_of_them_left(sweep: Path, tmp_path: Path) -> None:
    """With the same split for all the test subset is theirs, and its scores are of a method of its own."""
    data = sweep.parent / "ham10000"
    for seed in range(2):
        train_tiny(data, tmp_path / "runs" / str(seed), "test=false", f"seed={seed}", "data.split.seed=0")
    joined = ensemble(
        tmp_path / "both", f"[{tmp_path / 'runs/0'},{tmp_path / 'runs/1/checkpoints/best.ckpt'}]"
    )
    what = [f"data.root={data.parent}", "workers=0", "draws=200", "gallery=1", "data.num_workers=0"]
    found = {}
    for path in (joined, tmp_path / "runs/0/checkpoints/best.ckpt"):
        folder = tmp_path / "evaluations" / path.stem
        evaluate(compose([f"ckpt={path}", f"run_dir={folder}", *what], "evaluate"))
        found[path.stem] = json.loads((folder / "evaluation.json").read_text())
    assert found["ensemble"]["images"] == found["best"]["images"] > 0
    assert found["ensemble"]["identity"]["split"] == found["best"]["identity"]["split"]
    assert found["ensemble"]["identity"]["method"] != found["best"]["identity"]["method"]
    assert found["ensemble"]["name"] == "ensemble"
    assert found["ensemble"]["costs"]["parameters"] == 2 * found["best"]["costs"]["parameters"]
    assert ["Network", "Ensemble of 2, input 32x32"] in found["ensemble"]["protocol"]
    assert (tmp_path / "both/checkpoints/ensemble.MODEL_CARD.md").is_file()


def test_other_data_and_photographs(sweep: Path, tmp_path: Path) -> None:
    joined = ensemble(tmp_path / "ensemble", str(sweep))
    write_isic9(tmp_path / "photographs", {"Train/nevus": ["ISIC_9000000", "ISIC_9000001"]})
    arguments = [f"ckpt={joined}", f"input={tmp_path / 'photographs'}", f"output={tmp_path / 'masks'}"]
    predict(compose([*arguments, f"run_dir={tmp_path}", "num_workers=0"], "predict"))
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.png")) == [
        "ISIC_9000000_segmentation.png", "ISIC_9000001_segmentation.png"
    ]  # fmt: skip


def test_an_image_of_any_members_training_is_none_of_the_test(sweep: Path, tmp_path: Path) -> None:
    """Two folds; that it was of a training counts more than that it chose an epoch or was tested."""
    joined = ensemble(tmp_path, f"[{sweep / '0'},{sweep / '1'}]")
    subsets = pd.DataFrame(read_checkpoint(joined, key="ckpt")["skinseg"]["sides"]).set_index("image_id")[
        "split"
    ]
    members = [
        pd.DataFrame(read_checkpoint(sweep / f"{fold}/checkpoints/best.ckpt", key="ckpt")["skinseg"]["sides"])
        .set_index("image_id")["split"]
        for fold in range(2)
    ]  # fmt: skip
    assert len(subsets) == 36
    for image_id, subset in subsets.items():
        there = {member[image_id] for member in members}
        assert subset == next(name for name in ("train", "val", "test") if name in there)


@pytest.mark.slow
def test_what_cannot_be_one_predictor(sweep: Path, tmp_path: Path) -> None:
    joined = ensemble(tmp_path / "ensemble", str(sweep))
    other = train_tiny(
        sweep.parent / "ham10000", tmp_path / "larger", "test=false", "data.image_size=[64,32]"
    )
    grey = train_tiny(sweep.parent / "ham10000", tmp_path / "grey", "test=false", "preprocess=grey_world")
    for runs, message in (
        (
            f"[{sweep / '0'},{grey}]",
            r"other preprocessing for .*best.ckpt \(none\) than for .*best.ckpt \(grey_world\), or",
        ),
        (str(sweep / "0"), "found 1 checkpoint; an ensemble needs two or more"),
        (f"[{sweep / '0'},{sweep / '0/checkpoints/best.ckpt'}]", "named twice"),
        (f"[{joined},{sweep / '0'}]", "is an ensemble already"),
        (f"[{sweep / '0'},{other}]", r"data.image_size is \[32, 32\] for .*best.ckpt, \[64, 32\] for"),
        (str(tmp_path / "nowhere"), "nowhere: neither a checkpoint, nor a folder"),
    ):
        with pytest.raises(SkinsegError, match=message):
            ensemble(tmp_path / "refused", runs)
    assert not list((tmp_path / "refused").rglob("*.ckpt"))
    with pytest.raises(SkinsegError, match="of another architecture"):
        train_tiny(sweep.parent / "ham10000", tmp_path / "again", f"init_from={joined}")


def test_preprocessing_is_that_of_all_members(sweep: Path, tmp_path: Path) -> None:
    grey = plain(compose(["preprocess=grey_world", "run_dir=."]))["preprocess"]
    for fold in range(2):
        checkpoint = read_checkpoint(sweep / f"{fold}/checkpoints/best.ckpt", key="ckpt")
        checkpoint["skinseg"]["config"]["preprocess"] = grey
        (tmp_path / f"{fold}/checkpoints").mkdir(parents=True)
        torch.save(checkpoint, tmp_path / f"{fold}/checkpoints/best.ckpt")
    with pytest.raises(SkinsegError, match=r"other preprocessing for .* \(grey_world\) than for .* \(none\)"):
        ensemble(tmp_path / "refused", f"[{tmp_path / '0'},{sweep / '1'}]")
    joined = ensemble(tmp_path / "ensemble", f"[{tmp_path / '0'},{tmp_path / '1'}]")
    assert read_checkpoint(joined, key="ckpt")["skinseg"]["config"]["preprocess"] == grey
    checkpoint = read_checkpoint(sweep / "0/checkpoints/best.ckpt", key="ckpt")
    assert checkpoint["skinseg"]["config"].pop("preprocess")["transforms"] == {}
    torch.save(checkpoint, tmp_path / "0/checkpoints/best.ckpt")
    ensemble(tmp_path / "older", f"[{tmp_path / '0'},{sweep / '1'}]")  # which had no word of it


def test_a_sweep_with_jobs_that_were_done_before_and_one_that_is_not_done(
    sweep: Path, tmp_path: Path
) -> None:
    jobs = [{"number": n, "state": "done", "folder": str(n), "scores": str(sweep / str(n))} for n in range(2)]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    joined = ensemble(tmp_path / "ensemble", str(tmp_path))
    assert len(read_checkpoint(joined, key="ckpt")["skinseg"]["members"]) == 2
    jobs.append({"number": 2, "state": "interrupted", "folder": "2", "scores": str(sweep / "2")})
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    with pytest.raises(SkinsegError, match=r"not done: 2 \(interrupted\)"):
        ensemble(tmp_path / "refused", str(tmp_path))


def test_other_lesions_are_refused(sweep: Path, tmp_path: Path) -> None:
    """An image that one run trained on as another lesion would pass for a test image of the ensemble."""
    path = tmp_path / "other.ckpt"
    checkpoint = read_checkpoint(sweep / "1/checkpoints/best.ckpt", key="ckpt")
    checkpoint["skinseg"]["sides"]["group"][0] = "another"
    torch.save(checkpoint, path)
    image = checkpoint["skinseg"]["sides"]["image_id"][0]
    with pytest.raises(SkinsegError, match=f"image {image} is of another lesion"):
        ensemble(tmp_path / "refused", f"[{sweep / '0'},{path}]")


def test_a_run_without_a_checkpoint_is_named(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep/1/checkpoints").mkdir(parents=True)
    missing = re.escape(str(tmp_path / "sweep/1/checkpoints/best.ckpt"))
    with pytest.raises(SkinsegError, match=rf"runs={missing}: no such file"):
        ensemble(tmp_path / "ensemble", f"[{sweep},{tmp_path / 'sweep'}]")
