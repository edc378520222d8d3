"""The whole way: from a folder of images to a scored run, and what interrupts it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY, Train, WriteHam, train_tiny, write_image, write_mask
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from skinseg import evaluate
from skinseg.build import nets, parts
from skinseg.callbacks import panels, scores
from skinseg.callbacks.checkpoint import BestAndLast
from skinseg.callbacks.metrics_file import go_on_from
from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.compose import compose
from skinseg.data.datamodule import LesionDataModule
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.models.counts import confusion_counts
from skinseg.run.writing import write_text
from skinseg.run.written import RECORD, afresh
from skinseg.scoring.overlap import OVERLAP_METRICS, overlap_scores
from skinseg.training.summary import show


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]  # type: ignore[no-any-return]


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "skinseg.train", *TINY, *overrides]


def test_a_folder_with_another_training_is_refused(train: Train, tmp_path: Path) -> None:
    """Of one that goes on in its own folder, the results so far go: they are not those of its weights."""
    folder = train()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SkinsegError, match=r"holds another training.*ckpt_path=.*last\.ckpt"):
        train("seed=1")
    (folder / "checkpoints/last.ckpt").rename(tmp_path / "last.ckpt")
    with pytest.raises(SkinsegError, match=r"holds another training.*ckpt_path=.*best\.ckpt"):
        train("seed=1")
    (tmp_path / "last.ckpt").rename(folder / "checkpoints/last.ckpt")
    with pytest.raises(SkinsegError, match="holds another training"):
        train(f"ckpt_path={shutil.copy(folder / 'checkpoints/last.ckpt', tmp_path / 'moved.ckpt')}")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(SkinsegError, match="another architecture"):
        train(f"ckpt_path={folder / 'checkpoints/last.ckpt'}", "model.decoder_channels=[32,32,32,16,16]")
    assert (folder / "scores.csv").is_file(), "what does not go on takes nothing away"
    train(f"ckpt_path={folder / 'checkpoints/last.ckpt'}", "trainer.max_epochs=2", "test=false")
    assert (folder / "summary.json").is_file()
    assert not {path.name for path in folder.iterdir()} & {"scores.csv", "evaluation.json"}
    assert json.loads((folder / "summary.json").read_text())["scores"]["test"] is None


@pytest.mark.parametrize("name", ["evaluation.json", "comparison.json", "masks/a_segmentation.png"])
def test_a_folder_of_another_command_is_refused(name: str, train: Train, tmp_path: Path) -> None:
    """What it says would be read as of this training."""
    folder = tmp_path / "run"
    with afresh(folder, "evaluate"):
        write_text(folder / name, "{}")
    if name.endswith(".json"):
        (folder / RECORD).unlink()  # as of an earlier version
    with pytest.raises(SkinsegError, match=rf"holds what another command wrote, e\.g\. {Path(name).name}"):
        train()
    assert not (folder / "config.yaml").exists()


def test_run_folder(train: Train) -> None:
    folder = train("report=true")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "scores.csv",
        "summary.json",
        "split.csv",
        "config.yaml",
        "provenance.json",
        "data.json",
        "predictions.png",
        "metrics.csv",
        "evaluation.json",
        "report.html",
        "MODEL_CARD.md",
        "files.csv",
        "calibration.csv",
        "checkpoints/best.ckpt",
        "checkpoints/best.MODEL_CARD.md",
        "checkpoints/last.ckpt",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]

    scores = pd.read_csv(folder / "scores.csv")
    front = ["image_id", "group", "diagnosis", *OVERLAP_METRICS]
    assert list(scores)[: len(front)] == front
    split = pd.read_csv(folder / "split.csv")
    assert list(split) == ["image_id", "group", "split"]
    assert sorted(scores["image_id"]) == sorted(split.loc[split["split"] == "test", "image_id"])

    summary = json.loads((folder / "summary.json").read_text())
    for metric in OVERLAP_METRICS:
        assert summary["scores"]["test"][metric] == pytest.approx(scores[metric].mean(), abs=1e-12)
    assert summary["scores"]["test"]["images"] == len(scores)
    assert summary["objective"]["value"] == pytest.approx(summary["scores"]["val"]["dice"], abs=1e-6)

    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run_dir"] == str(folder)
    assert "${" not in (folder / "config.yaml").read_text()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["packages"]["torch"] == torch.__version__.split("+")[0]
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--show-toplevel", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.split()
    if found[:1] == [str(REPOSITORY)]:
        assert provenance["git"]["commit"] == found[1]
    with Image.open(folder / "predictions.png") as picture:
        assert picture.width > 600


def evaluation_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return content


@pytest.mark.parametrize("overrides", [[], ["+debug=overfit", "data.overfit=8", "trainer.max_epochs=10"]])
def test_a_training_ends_as_an_evaluation_of_its_best_checkpoint_does(
    train: Train, tmp_path: Path, overrides: list[str]
) -> None:
    folder = train(*overrides, "report=true")
    ours = evaluation_of(folder)
    assert ours["scorings"] is None if overrides else ours["scorings"]["count"] == 1
    (line,) = (folder / "test_scorings.jsonl").read_text().splitlines()
    assert json.loads(line)["command"] == "train"
    if overrides:  # the images are those of the training, which no subset of the split is
        assert {stamp.split(":")[0] for stamp in ours["stamps"]} == {"OVERFIT", "TRAINING"}
        return
    again = tmp_path / "again"
    best = folder / "checkpoints/best.ckpt"
    card = (folder / "MODEL_CARD.md").read_text()
    assert (folder / "checkpoints/best.MODEL_CARD.md").read_text() == card
    evaluate.run(compose([f"ckpt={best}", f"run_dir={again}", "data.num_workers=0"], "evaluate"))
    for name in ("scores.csv", "files.csv", "calibration.csv"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    masks = [sorted((run / "masks").iterdir()) for run in (folder, again)]
    assert [mask.name for mask in masks[0]] == [mask.name for mask in masks[1]]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*masks, strict=True))
    theirs = evaluation_of(again)
    assert theirs["scorings"]["count"] == 2
    # Its own clock stops each image's time in the network.
    del theirs["costs"]["images_per_second"]
    theirs["cost"] = [row for row in theirs["cost"] if row[0] != "Speed"]
    for content in (ours, theirs):
        del content["created"], content["scorings"]
    assert ours == theirs


def test_a_training_on_other_test_data_ends_as_its_evaluation_does(
    train: Train, write_ham: WriteHam, tmp_path: Path
) -> None:
    root = write_ham(20)
    ids = ["ISIC_9000000", "ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    write_isic2018(tmp_path / "other", ids)
    next((tmp_path / "other").rglob("ISIC_0000003_segmentation.png")).unlink()
    other = ["test_data=isic2018", f"test_data.root={tmp_path / 'other'}", "test_data.on_missing_mask=keep"]
    folder = train(*other, root=root)
    again = tmp_path / "again"
    what = [f"ckpt={folder / 'checkpoints/best.ckpt'}", f"run_dir={again}", "data.num_workers=0"]
    evaluate.run(compose(what, "evaluate"))
    assert (folder / "scores.csv").read_bytes() == (again / "scores.csv").read_bytes()
    ours, theirs = evaluation_of(folder), evaluation_of(again)
    assert ours["left_out"] == theirs["left_out"]
    assert ours["left_out"]["without_a_mask"] == ["ISIC_0000003"]
    assert ours["left_out"]["in_training_data"] == ["ISIC_9000000"]
    assert ours["protocol"] == theirs["protocol"]
    card = (folder / "MODEL_CARD.md").read_text()
    assert (folder / "checkpoints/best.MODEL_CARD.md").read_text() != card, "two scorings"


@pytest.mark.slow
def test_processes_that_score_change_nothing(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    one = train(run_dir="one")
    monkeypatch.setattr(scores, "workers_for", lambda *_: 2)
    other = train(run_dir="other")
    assert (one / "scores.csv").read_bytes() == (other / "scores.csv").read_bytes()
    assert multiprocessing.active_children() == []


def test_a_training_that_goes_on_takes_its_own_results_away(train: Train) -> None:
    folder = train()
    theirs = folder / "masks/ISIC_0000001_segmentation.png"
    theirs.write_text("somebody's")
    train(f"ckpt_path={folder / 'checkpoints/last.ckpt'}", "trainer.max_epochs=2", "test=false")
    assert [path.name for path in (folder / "masks").iterdir()] == [theirs.name]
    assert not list(folder.rglob("*MODEL_CARD.md"))


def test_without_a_report_all_else_is_there(train: Train) -> None:
    folder = train("report=false")
    assert not (folder / "report.html").exists()
    assert {"evaluation.json", "MODEL_CARD.md", "masks"} <= {path.name for path in folder.iterdir()}
    assert evaluation_of(folder)["images"] == 8


def test_the_picture_of_drawn_images_is_stamped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    headings = []
    original = panels.draw_panels

    def draw(rows: Any, heading: str) -> Image.Image:
        headings.append(heading)
        return original(rows, heading)

    monkeypatch.setattr(panels, "draw_panels", draw)
    train_tiny(tmp_path / "data", tmp_path / "run", "data=synthetic", "data.reader.lesions=20")
    (heading,) = headings
    assert heading.endswith("   SYNTHETIC")
    (stamp,) = json.loads((tmp_path / "run/summary.json").read_text())["protocol"]["stamps"]
    assert stamp.startswith("SYNTHETIC:")


def test_scores_are_those_of_the_best_checkpoint_at_native_size(train: Train) -> None:
    """Scores again by hand, from checkpoint and files alone."""
    folder = train("trainer.max_epochs=3", "data.image_size=[24,32]")
    net, record = nets.load_net(folder / "checkpoints/best.ckpt")
    data: LesionDataModule = parts.datamodule(dict(record.config))
    expected = pd.read_csv(folder / "scores.csv").set_index("image_id")
    for sample in map(data.dataset("test").__getitem__, range(len(expected))):
        with torch.no_grad():
            probability = net.probabilities(sample["image"][None], (32, 40))[0]
        counts = confusion_counts(sample["truth"][None], probability >= 0.5)
        scores = overlap_scores(*counts.numpy().T)
        for metric in OVERLAP_METRICS:
            assert scores[metric][0] == pytest.approx(expected.loc[sample["image_id"], metric], abs=0.02)


def test_learns_a_handful_of_images_by_heart(train: Train) -> None:
    folder = train(
        "+debug=overfit", "data.overfit=4", "data.batch_size=4", "trainer.max_epochs=60", "optimizer.lr=0.01",
        "data.image_size=[32,40]", "callbacks=minimal", "logger=none",
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scores"]["test"]["dice"] > 0.97
    assert "OVERFIT" in summary["protocol"]["stamps"][0]


def test_scores_of_a_part_are_stamped(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the picture, too; and the log of test scorings does not take them for those of the whole subset."""
    headings: list[str] = []
    original = panels.draw_panels
    monkeypatch.setattr(
        panels, "draw_panels", lambda rows, heading: headings.append(heading) or original(rows, heading)
    )
    folder = train("trainer.limit_test_batches=1")
    assert [heading.rsplit("   ")[-1] for heading in headings] == ["PARTIAL"]
    whole = train(run_dir="whole")
    lines = [json.loads((run / "test_scorings.jsonl").read_text()) for run in (folder, whole)]
    assert [line["images"] for line in lines] == [4, 8]
    assert lines[0]["image_set"] != lines[1]["image_set"]
    stamps = json.loads((folder / "summary.json").read_text())["protocol"]["stamps"]
    assert stamps == ["PARTIAL: 4 of the 8 test images were scored"] == evaluation_of(folder)["stamps"]
    assert evaluation_of(folder)["images"] == 4
    assert json.loads((folder / "data.json").read_text())["split"]["test"] == {"images": 8, "groups": 4}


def test_test_side_only_on_request(train: Train) -> None:
    folder = train("test=false")
    assert not (folder / "scores.csv").exists()
    assert json.loads((folder / "summary.json").read_text())["scores"]["test"] is None


@pytest.mark.parametrize(
    ("overrides", "checkpoint", "weights_scored"),
    [
        (["trainer.max_steps=2"], True, "best.ckpt"),
        (["trainer.fast_dev_run=true"], False, "those of the last step"),
        (["callbacks.checkpoint=null", "callbacks.interrupt=null"], False, "those of the last step"),
    ],
)
def test_runs_that_keep_no_best_checkpoint(
    train: Train,
    caplog: pytest.LogCaptureFixture,
    overrides: list[str],
    checkpoint: bool,
    weights_scored: str,
) -> None:
    caplog.set_level("INFO", "skinseg")
    folder = train(*overrides)
    assert ("before its first validation" in caplog.text) == checkpoint
    assert ("No checkpoint was kept" in caplog.text) != checkpoint
    assert (folder / "checkpoints/best.ckpt").is_file() == checkpoint
    assert (folder / "scores.csv").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"]["weights"].startswith(weights_scored)


def test_a_resume_with_nothing_left_to_train_has_the_last_checkpoint_too(tmp_path: Path) -> None:
    trainer: Any = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    earlier = tmp_path / "earlier.ckpt"
    earlier.write_text("trained")
    keeper = BestAndLast(str(tmp_path / "checkpoints"), "val/dice", "max")
    module: Any = None
    keeper.on_fit_end(trainer, module)
    assert not keeper.last_path.exists(), "nothing was resumed"
    keeper.resumed_from = earlier
    keeper.on_fit_end(trainer, module)
    assert keeper.last_path.read_text() == "trained"
    keeper.last_path.write_text("of an epoch more")
    keeper.on_fit_end(trainer, module)
    assert keeper.last_path.read_text() == "of an epoch more"


def test_the_run_folder_is_shown_as_a_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    protocol = dict.fromkeys(("averaging", "resolution", "threshold", "threshold_origin", "split"), "")
    protocol |= {"group_key": "", "weights": ""}
    show({"name": "run", "scores": {}, "protocol": {**protocol, "stamps": []}}, Path("here"), None)
    assert f"Run folder: {tmp_path / 'here'}\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.precision=bf16-mixed"],
        ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"],
        ["trainer.deterministic=true", "channels_last=false"],
        ["data.batch_size=1", "data.image_size=[64,64]"],
        ["optimizer=sgd", "scheduler=plateau", "loss=lovasz"],
        ["logger=[csv,tensorboard]", "callbacks=default"],
    ],
)
def test_options_train(train: Train, overrides: list[str]) -> None:
    folder = train(*overrides)
    assert 0 <= json.loads((folder / "summary.json").read_text())["scores"]["test"]["dice"] <= 1


def test_same_seed_same_weights_other_seed_others(train: Train) -> None:
    one, same, other = (
        train(f"seed={seed}", "callbacks=minimal", "test=false", run_dir=f"run{i}") / "checkpoints/last.ckpt"
        for i, seed in enumerate((1, 1, 2))
    )
    assert_same_weights(one, same)
    with pytest.raises(AssertionError):
        assert_same_weights(one, other)


def test_init_from_takes_the_normalization_that_the_weights_were_trained_with(train: Train) -> None:
    first = torch.load(train() / "checkpoints/last.ckpt", weights_only=True)
    other = dict(first, state_dict=dict(first["state_dict"], mean=torch.full((1, 3, 1, 1), 99.0)))
    path = Path(first["skinseg"]["config"]["run_dir"]) / "other.ckpt"
    torch.save(other, path)
    folder = train(f"init_from={path}", "optimizer.lr=0.0", run_dir="second")
    assert torch.equal(weights(folder / "checkpoints/last.ckpt")["mean"], other["state_dict"]["mean"])


def test_init_from_takes_weights_only(train: Train) -> None:
    first = train("test=false")
    second = train(
        f"init_from={first}/checkpoints/last.ckpt", "test=false", "optimizer.lr=0.0", "trainer.max_steps=1",
        "callbacks=minimal", run_dir="second",
    )  # fmt: skip
    a, b = (weights(folder / "checkpoints/last.ckpt") for folder in (first, second))
    trained = [
        key for key in a if key.startswith("network.") and "running" not in key and "num_batches" not in key
    ]
    assert all(torch.equal(a[key], b[key]) for key in trained)
    assert torch.load(second / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() - start < seconds, "the run did not get there"
        time.sleep(0.01)


@pytest.mark.slow
def test_decoded_images_are_kept_and_change_no_score(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scores = {}
    for mode in ("none", "ram", "memmap"):
        train(f"data.cache={mode}", f"data.cache_dir={tmp_path / 'cache'}", run_dir=mode)
        scores[mode] = (tmp_path / mode / "scores.csv").read_text()
    assert scores["none"] == scores["ram"] == scores["memmap"]
    (folder,) = (tmp_path / "cache").glob("ham10000_32x32_*")
    assert f"Decoded images: {folder}" in caplog.text


def test_the_cache_of_other_test_data_is_made_before_the_fit(
    train: Train, write_ham: WriteHam, tmp_path: Path
) -> None:
    write_ham(30, root=tmp_path / "more")
    other = ("test_data=ham10000", f"test_data.root={tmp_path / 'more'}", "test_overlap=exclude")
    train(*other, "data.cache=none", f"data.cache_dir={tmp_path / 'cache'}", run_dir="without")
    assert not (tmp_path / "cache").exists()
    limit = 45 * 32 * 32 * 4 / 1e9  # enough for the 40 images of the training, not for 60
    with pytest.raises(SkinsegError, match=r"60 images of 32x32 take .* data\.cache_limit_gb"):
        train(*other, f"data.cache_limit_gb={limit}", f"data.cache_dir={tmp_path / 'cache'}", run_dir="with")
    assert not (tmp_path / "with/checkpoints").exists(), "nothing was trained for nothing"


def test_optimizer_that_refuses_its_arguments(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"optimizer or scheduler: arguments refused: .*foreach"):
        train("+optimizer.foreach=true")


@pytest.mark.parametrize("devices", [(), ("trainer.strategy=ddp",)])
def test_a_rank_left_in_the_environment_changes_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...]
) -> None:
    plain = {path.name for path in train("callbacks=minimal", "test=false", run_dir="plain").iterdir()}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning made of it at its import
    folder = train("callbacks=minimal", "test=false", *devices)
    assert {path.name for path in folder.iterdir()} == plain
    assert len(pd.read_csv(folder / "metrics.csv")) > 1


@pytest.mark.slow
class TestResume:
    RUN = ("trainer.max_epochs=6", "callbacks=minimal", "test=false", "logger=none")

    @pytest.fixture
    def whole(self, train: Train) -> Path:
        """The last checkpoint of an uninterrupted run."""
        return train(*self.RUN, run_dir="whole") / "checkpoints/last.ckpt"

    @pytest.mark.slow
    def test_after_sigkill(self, train: Train, whole: Path, tmp_path: Path) -> None:
        folder = tmp_path / "killed"
        data = f"data.root={tmp_path / 'ham10000'}"
        process = subprocess.Popen(
            command(*self.RUN, data, f"hydra.run.dir={folder}"), cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        last = folder / "checkpoints/last.ckpt"
        wait_for(last.is_file, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert torch.load(last, weights_only=True)["epoch"] < 5
        resumed = train(*self.RUN, f"ckpt_path={last}", run_dir="resumed")
        assert_same_weights(whole, resumed / "checkpoints/last.ckpt")

    @pytest.mark.parametrize("name", ["last", "best"])
    def test_from_either_checkpoint_into_another_folder(
        self, train: Train, whole: Path, name: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InterruptedRunError):
            train(*self.RUN, "+callbacks.stop={_target_: conftest.InterruptAt, step: 14}", run_dir="short")
        resumed = train(*self.RUN, f"ckpt_path={tmp_path}/short/checkpoints/{name}.ckpt", run_dir="new")
        assert_same_weights(whole, resumed / "checkpoints/last.ckpt")
        assert_same_weights(whole.with_name("best.ckpt"), resumed / "checkpoints/best.ckpt")
        objectives = [
            json.loads((run / "summary.json").read_text())["objective"] for run in (whole.parents[1], resumed)
        ]
        assert objectives[0] == objectives[1]
        before = torch.load(tmp_path / f"short/checkpoints/{name}.ckpt", weights_only=True)["skinseg"]
        training = json.loads((resumed / "summary.json").read_text())["training"]
        assert training["seconds"] > before["seconds"] > 0, "of both parts"

    def test_when_all_steps_are_done(self, train: Train, tmp_path: Path) -> None:
        """The best weights are validated after the fit, and must not be saved as the last ones."""
        short = [*self.RUN, "+trainer.val_check_interval=0.5"]  # after the sixth batch of seven at last
        uninterrupted = train(*short, run_dir="uninterrupted") / "checkpoints/last.ckpt"
        steps = torch.load(uninterrupted, weights_only=True)["global_step"]
        with pytest.raises(InterruptedRunError):
            train(
                *short,
                f"+callbacks.stop={{_target_: conftest.InterruptAt, step: {steps}}}",
                run_dir="stopped",
            )
        last = tmp_path / "stopped/checkpoints/last.ckpt"
        assert_same_weights(uninterrupted, last)
        resumed = train(*short, f"ckpt_path={last}", run_dir="resumed")
        assert json.loads((resumed / "summary.json").read_text())["training"]["steps"] == steps

    @pytest.mark.parametrize(
        ("moment", "name"),
        [("step: 5", "best"), ("validation: 2", "last"), ("step: 18} callbacks.interrupt=null", "last")],
    )
    def test_within_an_epoch_with_the_steps_and_counters_of_the_whole(
        self, train: Train, tmp_path: Path, moment: str, name: str
    ) -> None:
        """Validation follows the third batch and the sixth of seven."""
        run = (
            *self.RUN, "trainer.max_epochs=3", "+trainer.val_check_interval=0.5", "logger=csv",
            "callbacks.checkpoint.every_n_steps=3",
        )  # fmt: skip
        whole = train(*run, run_dir="whole")
        at, _, kill = moment.partition("} ")
        stop = f"+callbacks.stop={{_target_: conftest.InterruptAt, {at}}}"
        with pytest.raises(InterruptedRunError):
            train(*run, stop, *kill.split(), run_dir="stopped")
        start = tmp_path / f"stopped/checkpoints/{name}.ckpt"
        assert torch.load(start, weights_only=True)["global_step"] % 7 in (3, 6)
        resumed = train(*run, f"ckpt_path={start}", run_dir="resumed")
        steps, states = [], []
        for folder in (whole, resumed):
            steps.append(pd.read_csv(folder / "metrics.csv").dropna(subset="val/dice")["step"].tolist())
            last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
            scores = [state.get("current_score") for state in last["callbacks"].values()]
            states.append((last["loops"], scores))
        assert steps[0] == steps[1]
        assert states[0] == states[1]

    @pytest.mark.slow
    @pytest.mark.parametrize("end", ["trainer.max_steps=1000", "trainer.max_steps=30"])
    @pytest.mark.parametrize("moment", ["validation: 3", "step: 17"])
    def test_of_a_run_that_is_limited_by_steps(
        self, train: Train, tmp_path: Path, end: str, moment: str
    ) -> None:
        """From the end of an epoch, where a kill leaves the run, and from its middle."""
        kill = ["callbacks.interrupt=null"] if "validation" in moment else []
        self.stopped_and_resumed(train, tmp_path, moment, end, *kill)

    @pytest.mark.slow
    def test_after_ctrl_c_between_accumulated_batches(self, train: Train, tmp_path: Path) -> None:
        self.stopped_and_resumed(train, tmp_path, "batch: 1", "trainer.accumulate_grad_batches=3")

    def stopped_and_resumed(self, train: Train, tmp_path: Path, moment: str, *options: str) -> None:
        """Trains as a whole, and with Ctrl-C at a moment; the weights must be the same."""
        run = (*self.RUN, *options)
        whole = train(*run, run_dir="uninterrupted")
        stop = f"+callbacks.stop={{_target_: conftest.InterruptAt, {moment}}}"
        with pytest.raises(InterruptedRunError):
            train(*run, stop, run_dir="stopped")
        last = tmp_path / "stopped/checkpoints/last.ckpt"
        resumed = train(*run, f"ckpt_path={last}", run_dir="resumed")
        for name in ("last.ckpt", "best.ckpt"):
            assert_same_weights(whole / "checkpoints" / name, resumed / "checkpoints" / name)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "moment", ["step: 17", "validation: 2", "validation: 5", "validation: 3} callbacks.interrupt=null"]
    )
    def test_a_schedule_that_waits_for_a_better_score(
        self, train: Train, tmp_path: Path, moment: str
    ) -> None:
        run = (*self.RUN, "scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-5")
        train(*run, run_dir="whole")
        at, _, kill = moment.partition("} ")
        stop = f"+callbacks.stop={{_target_: conftest.InterruptAt, {at}}}"
        with pytest.raises(InterruptedRunError):
            train(*run, stop, *kill.split(), run_dir="stopped")
        train(*run, f"ckpt_path={tmp_path}/stopped/checkpoints/last.ckpt", run_dir="resumed")
        whole, resumed = (
            torch.load(tmp_path / f"{name}/checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
            for name in ("whole", "resumed")
        )
        assert resumed == whole
        assert whole[0]["_last_lr"][0] < 1e-5, "a score did not get better"

    @pytest.mark.slow
    @pytest.mark.parametrize("augment", ["none", "light_device"])
    def test_within_an_epoch_of_batches_that_are_copied(
        self, train: Train, augment: str, tmp_path: Path
    ) -> None:
        """A thread prepares the next batch; what it has taken from the order must not be lost."""
        options = ("trainer.max_epochs=3", f"augment={augment}", "data.cache=memmap")
        self.stopped_and_resumed(train, tmp_path, "step: 9", *options)

    @pytest.mark.slow
    def test_in_another_memory_layout(self, train: Train, tmp_path: Path) -> None:
        """A fused step of weights and moments in different layouts would pair the wrong ones."""
        last = train(*self.RUN, "trainer.max_epochs=1", "channels_last=false") / "checkpoints/last.ckpt"
        options = ("trainer.max_epochs=2", f"ckpt_path={last}")
        for layout in ("true", "false"):
            train(*self.RUN, *options, f"channels_last={layout}", run_dir=layout)
        there, here = (
            torch.load(tmp_path / f"{layout}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
            for layout in ("true", "false")
        )
        for name, value in there.items():
            torch.testing.assert_close(value, here[name], rtol=0, atol=1e-3, msg=name)

    def test_best_checkpoint_of_a_run_folder_that_was_moved(self, train: Train, tmp_path: Path) -> None:
        folder = train(*self.RUN, "trainer.max_epochs=1")
        checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        (state,) = [s for name, s in checkpoint["callbacks"].items() if "BestAndLast" in name]
        best = torch.tensor(0.9999)
        state["best_model_score"], state["best_k_models"] = best, dict.fromkeys(state["best_k_models"], best)
        state["current_score"] = state["kth_value"] = best
        torch.save(checkpoint, folder / "checkpoints/last.ckpt")
        moved = folder.rename(tmp_path / "moved")
        resumed = train(*self.RUN, f"ckpt_path={moved}/checkpoints/last.ckpt", run_dir="resumed")
        summary = json.loads((resumed / "summary.json").read_text())
        assert summary["objective"]["value"] == pytest.approx(0.9999)
        assert_same_weights(moved / "checkpoints/best.ckpt", resumed / "checkpoints/best.ckpt")

    @pytest.mark.slow
    @pytest.mark.parametrize("again", ["stopped", "elsewhere"])
    @pytest.mark.parametrize("moment", ["step: 17", "validation: 3"])
    def test_metrics_are_those_of_the_whole_run(
        self, train: Train, tmp_path: Path, moment: str, again: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where steps were logged that are trained again, as after a kill."""
        run = ("trainer.max_epochs=6", "callbacks=minimal", "test=false", "trainer.log_every_n_steps=2")
        whole = train(*run, run_dir="whole")
        with pytest.raises(InterruptedRunError):
            train(*run, f"+callbacks.stop={{_target_: conftest.InterruptAt, {moment}}}", run_dir="stopped")
        metrics = tmp_path / "stopped/metrics.csv"
        table = pd.read_csv(metrics)
        table.assign(step=table["step"] + 100).to_csv(metrics, mode="a", header=False, index=False)
        first = metrics.read_text().splitlines()[1]
        with metrics.open("a") as file:
            file.write(first)  # torn by a full disk, perhaps within its last number
        monkeypatch.chdir(tmp_path / "stopped/checkpoints")
        resumed = train(*run, "ckpt_path=last.ckpt", run_dir=again)
        # Not train/loss: that of the epoch in which a run was stopped is of the rest of it.
        names = ["epoch", "step", "train/loss_step", "val/loss", "val/dice"]
        expected, found = (
            pd.read_csv(folder / "metrics.csv")[names].dropna(how="all", subset=names[2:], ignore_index=True)
            for folder in (whole, resumed)
        )
        pd.testing.assert_frame_equal(found, expected)

    @pytest.mark.parametrize("moment", ["{step: 17}", "{step: 3}", "{validation: 2}"])
    def test_after_ctrl_c(self, train: Train, whole: Path, moment: str, tmp_path: Path) -> None:
        stop = moment.replace("{", "{_target_: conftest.InterruptAt, ")
        with pytest.raises(
            InterruptedRunError, match=r"nothing was scored.*ckpt_path=.*last\.ckpt"
        ) as caught:
            train(*self.RUN, f"+callbacks.stop={stop}", run_dir="stopped")
        assert caught.value.exit_code == 130
        assert not (tmp_path / "stopped/summary.json").exists()
        last = tmp_path / "stopped/checkpoints/last.ckpt"
        if "step" in moment:
            stopped_at = torch.load(last, weights_only=True)["global_step"]
            assert stopped_at == int(moment[7:-1]), "in the middle of an epoch"
        resumed = train(*self.RUN, f"ckpt_path={last}", run_dir="resumed")
        assert_same_weights(whole, resumed / "checkpoints/last.ckpt")

    def test_refuses_what_the_restored_state_would_replace(self, train: Train, tmp_path: Path) -> None:
        """Before it reads any data; tests/test_resuming.py has the settings."""
        run = ("callbacks=minimal", "logger=none", "test=false")
        last = train(*run) / "checkpoints/last.ckpt"
        record = (last.parents[1] / "config.yaml").read_bytes()
        found = r"optimizer\.lr: 0\.002 there, 1e-05 here"
        for folder in ("again", "run"):
            with pytest.raises(SkinsegError, match=f"{found}.*start anew from its weights with init_from"):
                train(
                    *run, "optimizer.lr=1e-5", f"ckpt_path={last}", run_dir=folder, root=tmp_path / "not read"
                )
        assert (last.parents[1] / "config.yaml").read_bytes() == record, "nothing was trained"
        train(*run, f"init_from={last}", "optimizer.lr=1e-5", "trainer.max_steps=1", run_dir="from_weights")

    def test_metrics_of_a_run_whose_file_is_empty(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.csv").touch()
        logger = CSVLogger(tmp_path / "again", name="", version="")
        go_on_from(logger, tmp_path / "checkpoints/last.ckpt", steps=3)
        logger.log_metrics({"val/dice": 0.5}, step=3)
        logger.save()
        assert len(pd.read_csv(tmp_path / "again/metrics.csv")) == 1

    @pytest.mark.slow
    def test_another_end_is_told_and_refused_before_it_was_stopped(
        self, train: Train, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = ("callbacks=minimal", "logger=none", "test=false")
        last = train(*run, "trainer.max_epochs=2") / "checkpoints/last.ckpt"
        with pytest.raises(SkinsegError, match=r"trainer\.max_epochs=1: .* has trained 2 epochs.*raise it"):
            train(*run, "trainer.max_epochs=1", f"ckpt_path={last}", run_dir="again")
        with caplog.at_level("INFO"):
            train(*run, "trainer.max_epochs=3", f"ckpt_path={last}", run_dir="longer")
            train(*run, "trainer.max_steps=99", "trainer.max_epochs=2", f"ckpt_path={last}", run_dir="steps")
        assert (
            "trainer.max_epochs: 2 there, 3 here; a schedule that spans the run ends with it" in caplog.text
        )
        assert "trainer.max_steps: -1 there, 99 here; a schedule" in caplog.text
        with pytest.raises(SkinsegError, match=r"trainer\.max_steps=1: .* has trained \d+ steps; it is the"):
            train(*run, "trainer.max_steps=1", "trainer.max_epochs=2", f"ckpt_path={last}", run_dir="again")

    def test_refuses_another_network_split_or_file(self, train: Train, tmp_path: Path) -> None:
        folder = train("test=false", "callbacks=minimal")
        last = folder / "checkpoints/last.ckpt"
        again = {"run_dir": "again"}
        with pytest.raises(
            SkinsegError, match=r"another architecture \(model\.decoder_channels: \[64, .* there"
        ):
            train(f"ckpt_path={last}", "model.decoder_channels=[32,32,32,16,16]", **again)
        with pytest.raises(SkinsegError, match=r"trained on the split .*data\.split\.file="):
            train(f"ckpt_path={last}", "data.split.seed=5", **again)
        with pytest.raises(
            SkinsegError, match=r"init_from: the checkpoint is of another architecture .*Unet"
        ):
            train(
                f"init_from={last}",
                "model.decoder_channels=[32,32,32,16,16]",
                root=tmp_path / "not read",
                **again,
            )
        with pytest.raises(SkinsegError, match=r"ckpt_path=.*absent\.ckpt: no such file"):
            train("ckpt_path=absent.ckpt", **again)
        last.write_bytes(last.read_bytes()[:5000])
        with pytest.raises(SkinsegError, match=r"\(5000 bytes\) is not a whole checkpoint.*best\.ckpt"):
            train(f"ckpt_path={last}", **again)
        foreign = tmp_path / "foreign.ckpt"
        torch.save({"state_dict": {}}, foreign)
        with pytest.raises(SkinsegError, match="was not written by skinseg"):
            train(f"init_from={foreign}", **again)


def test_full_disk_while_saving_leaves_the_previous_checkpoint(train: Train, tmp_path: Path) -> None:
    folder = train("test=false", "callbacks=minimal")
    last = folder / "checkpoints/last.ckpt"
    before = last.read_bytes()
    # A limit of the process on the size of files: the kernel refuses to write on, as on a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(SkinsegError, match=r"\.ckpt cannot be written: .*untouched"):
            train("test=false", "callbacks=minimal", "trainer.max_epochs=2", f"ckpt_path={last}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert last.read_bytes() == before
    assert not list(folder.rglob("*.tmp"))


class Broken(Callback):
    """Raises what nobody has thought of, or that the disk is full, in a hook beside the fit."""

    def __init__(self, hook: str, full: bool = False) -> None:
        def fail(trainer: L.Trainer, *_: Any) -> None:
            if hook == "on_fit_end" or trainer.state.fn != TrainerFn.FITTING:
                raise OSError(errno.ENOSPC, "No space left") if full else RuntimeError("unheard of")

        setattr(self, hook, fail)


@pytest.mark.parametrize(
    ("hook", "what"),
    [
        ("on_fit_end", "its end"),
        ("on_validation_start", "scoring the validation subset"),
        ("on_test_start", "scoring the test subset"),
        ("on_test_end", "scoring the test subset"),
    ],
)
def test_what_fails_after_the_fit_leaves_what_is_known(
    hook: str, what: str, train: Train, tmp_path: Path
) -> None:
    broken = f"+callbacks.broken={{_target_: test_train.Broken, hook: {hook}}}"
    best = tmp_path / "run/checkpoints/best.ckpt"
    with pytest.raises(SkinsegError) as caught:
        train(broken)
    assert f"The training is done, but {what} failed: RuntimeError: unheard of." in str(caught.value)
    assert f"python -m skinseg.evaluate ckpt={best}" in str(caught.value)
    assert best.is_file()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["failed"]["what"] == what
    assert "unheard of" in summary["failed"]["traceback"][-1]
    assert 0 <= summary["objective"]["value"] <= 1
    assert summary["training"]["steps"] > 0
    assert (summary["scores"]["val"] is not None) == hook.startswith("on_test")
    scored = hook == "on_test_end"
    assert (summary["scores"]["test"] is not None) == scored
    assert (tmp_path / "run/test_scorings.jsonl").exists() == scored
    if hook == "on_test_start":
        folder = train(f"ckpt_path={best.with_name('last.ckpt')}")
        whole = json.loads((folder / "summary.json").read_text())
        assert "failed" not in whole
        assert whole["objective"] == summary["objective"]
        assert whole["scores"]["test"] is not None


def test_what_fails_after_the_test_side_was_scored_does_not_hide_the_scoring(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unheard of")

    monkeypatch.setattr("skinseg.training.ending.summarise", fail)
    with pytest.raises(SkinsegError, match="writing what was found failed: RuntimeError: unheard of"):
        train()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (line,) = (tmp_path / "run/test_scorings.jsonl").read_text().splitlines()
    assert json.loads(line)["dice"] == pytest.approx(summary["scores"]["test"]["dice"])
    assert json.loads(line)["checkpoint"] == "best.ckpt"


def test_a_full_disk_that_nothing_else_has_told(train: Train, tmp_path: Path) -> None:
    broken = "+callbacks.broken={_target_: test_train.Broken, hook: on_test_end, full: true}"
    with pytest.raises(SkinsegError, match=rf"{tmp_path / 'run'}: the disk is full .*\. Free space, or take"):
        train(broken)


def test_a_full_disk_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's writer says nothing of the disk."""
    path = tmp_path / "some.ckpt"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SkinsegError, match=r"some\.ckpt cannot be written: File too large.* free space"):
            WholeCheckpointIO().save_checkpoint({"x": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_run_folder_that_cannot_be_written(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkinsegError, match=r"config\.yaml cannot be written"):
        train(run_dir="file/run")


def test_nan_loss_names_the_images(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"The loss is nan at epoch 1, step \d+, for the images ISIC_9"):
        train("optimizer.lr=1e30", "trainer.gradient_clip_val=null", "trainer.max_epochs=50")


def test_gpu_asked_for_where_there_is_none(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SkinsegError, match=r"trainer\.accelerator=gpu: PyTorch finds no GPU.*trainer=cpu"):
        train("trainer=gpu")
    with pytest.raises(SkinsegError, match=r"trainer\.precision=16-mixed: PyTorch finds no GPU.*bf16-mixed"):
        train("trainer.accelerator=auto", "trainer.precision=16-mixed")
    assert [path.name for path in tmp_path.iterdir()] == ["ham10000"], "no run folder"


def test_image_size_that_the_stride_does_not_divide(train: Train) -> None:
    with pytest.raises(
        SkinsegError, match=r"multiples of 32 pixels; the nearest is 'data\.image_size=\[96,128\]'"
    ):
        train("model=fpn", "model.encoder_weights=null", "data.image_size=[90,130]")


def test_batch_size_one_where_it_cannot_be(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"data\.batch_size=1: DeepLabV3 .* Take data\.batch_size=2"):
        train("model=deeplabv3", "model.encoder_weights=null", "data.batch_size=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split.seed=-1", r"data\.split\.seed=-1: expected 0 or more"),
        ("callbacks.panels.every_n_epochs=0", r"callbacks\.panels.*every_n_epochs=0"),
        ("data.batch_size=0", r"data\.batch_size=0: expected 1 or more"),
        ("trainer.devices=0", r"trainer: lightning\.Trainer refused its arguments"),
        (
            "augment.transforms.horizontal_flip.p=2",
            r"augment\.transforms\.horizontal_flip: .* refused its arguments",
        ),
    ],
)
def test_values_out_of_range(train: Train, override: str, message: str) -> None:
    with pytest.raises(SkinsegError, match=message):
        train(override)


def test_split_without_training_images(train: Train, write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(20)
    split = pd.read_csv(train(root=root) / "split.csv")
    split[split["split"] != "train"].to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(SkinsegError, match=r"The split has no train images"):
        train(f"data.split.file={tmp_path / 'own.csv'}", root=root, run_dir="second")


class OwnNetwork(torch.nn.Module):
    """A network that knows nothing of skinseg, with a nested part and free keyword arguments."""

    def __init__(self, stem: torch.nn.Module, encoder_name: str, width: int, **_: object) -> None:
        super().__init__()
        self.stem, self.encoder_name = stem, encoder_name
        self.head = torch.nn.Conv2d(width, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(images))  # type: ignore[no-any-return]


class DictNetwork(torch.nn.Module):
    def __init__(self, **_: object) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(3, 1, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.head(images)}


OWN = (
    "model._target_=test_train.OwnNetwork",
    "model.encoder_name=dino_v3", "+model.width=4",
    "+model.stem={_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 4, kernel_size: 3, padding: 1}",
)  # fmt: skip


def test_network_of_ones_own(train: Train) -> None:
    assert (train(*OWN, "data.image_size=[40,40]") / "scores.csv").is_file()


class Overflowing(OwnNetwork):
    """Gives NaN from the sixth batch on that it is not trained with: in the test."""

    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += not self.training
        logits = super().forward(images)
        return logits if self.passes < 6 else logits * float("nan")


def test_a_network_that_gives_nan_has_no_scores(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"masks cannot be scored:\n.*the network gives NaN"):
        train(*OWN, "model._target_=test_train.Overflowing")


def test_network_that_returns_no_tensor(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"DictNetwork returns a dict .*; expected logits of shape"):
        train("model._target_=test_train.DictNetwork")


def test_without_a_logger(train: Train) -> None:
    assert (train("logger=none") / "scores.csv").is_file()


@pytest.mark.slow
def test_plateau_counts_validations(train: Train) -> None:
    """Each validation improves, so the rate must stay, however many epochs lie between two of them."""
    folder = train(
        "scheduler=plateau", "scheduler.patience=1", "trainer.max_epochs=9",
        "trainer.check_val_every_n_epoch=4", "optimizer.lr=0.0005",
    )  # fmt: skip
    rates = pd.read_csv(folder / "metrics.csv")["lr-AdamW"].dropna()
    assert set(rates) == {0.0005}


def test_messages_on_test_data_name_its_keys(train: Train, write_ham: WriteHam, tmp_path: Path) -> None:
    root = write_ham(20)
    write_isic2018(tmp_path / "other", ["ISIC_0000001", "ISIC_0000002"])
    next((tmp_path / "other" / "ISIC2018_Task1_Training_GroundTruth").iterdir()).unlink()
    with pytest.raises(SkinsegError, match=r"1 image has no mask; test_data\.on_missing_mask=drop"):
        train("test_data=isic2018", f"test_data.root={tmp_path / 'other'}", root=root)
    with pytest.raises(SkinsegError, match=r"absent.*\n.*test_data\.root=<the folder"):
        train("test_data=isic2018", f"test_data.root={tmp_path / 'absent'}", root=root)


def test_weights_that_cannot_be_fetched(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"could not be fetched.*model\.encoder_weights=null"):
        train("model=unet", "model.encoder_name=resnet18")


class TestCommandLine:
    """One process for each: what the user sees, and the exit code."""

    @staticmethod
    def call(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*overrides), cwd=cwd, capture_output=True, text=True, check=False)

    def test_unknown_keys_however_written(self, tmp_path: Path) -> None:
        done = self.call("model.encoder_nam=x", "+data.batchsize=3", cwd=tmp_path)
        assert done.returncode == 2
        assert "did you mean model.encoder_name?" in done.stderr
        assert "did you mean data.batch_size?" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout

    def test_unknown_option(self, tmp_path: Path) -> None:
        done = self.call("model=unett", cwd=tmp_path)
        assert done.returncode == 2
        assert "unetplusplus" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("seed=1 hydra.run.dir=", "hydra.run.dir is empty"),
            (
                "seed=1 hydra.run.dir=x/${oc.env:SKINSEG_UNSET}",
                "Environment variable 'SKINSEG_UNSET' not found",
            ),
            ("-m seed=1,2 hydra.sweep.dir=", "hydra.sweep.dir is empty"),
            ("-m seed=1,2 hydra.sweep.dir=x/${nothing}", "'nothing' not found"),
        ],
    )
    def test_a_folder_that_has_no_name(self, line: str, said: str, tmp_path: Path) -> None:
        """Such as one of a variable that is not set."""
        words = [sys.executable, "-m", "skinseg.train", *line.split(" "), *TINY]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_no_data(self, tmp_path: Path) -> None:
        done = self.call(cwd=tmp_path)
        assert done.returncode == 2
        assert "data=synthetic" in done.stderr
        assert done.stderr.startswith("No HAM10000 here"), "nothing before the message"
        assert "Traceback" not in done.stderr
        (log,) = tmp_path.glob("outputs/*/*/train.log")
        assert log.read_text() == done.stderr, "the folder says why there is no run in it"

    @pytest.mark.slow
    def test_ctrl_c(self, write_ham: WriteHam, tmp_path: Path) -> None:
        process = subprocess.Popen(
            command(f"data.root={write_ham(20)}", "trainer.max_epochs=3000", "hydra.run.dir=run"),
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for((tmp_path / "run/checkpoints/last.ckpt").is_file, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "ckpt_path=" in errors
        assert "Traceback" not in errors
        assert "epoch 1/3000" in output, "one line for each epoch where the output is not a terminal"
        assert not (tmp_path / "run/scores.csv").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_to_the_group_saves(
        self, write_ham: WriteHam, tmp_path: Path, number: signal.Signals
    ) -> None:
        """Loader processes get it too. SIGTERM comes twice, as from a scheduler and from a parent."""
        slow = "+callbacks.slow={_target_: test_train.Slow, folder: '${run_dir}'}"
        process = subprocess.Popen(
            command(
                f"data.root={write_ham(20)}", "trainer.max_epochs=3000", "hydra.run.dir=run", slow,
                "data.num_workers=2", "data.cache=none", "callbacks=minimal",
            ),
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for((tmp_path / "run/slow.txt").is_file, process)
        for _ in range(2 if number == signal.SIGTERM else 1):
            os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "ckpt_path=" in errors
        assert "Traceback" not in errors
        checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == int((tmp_path / "run/slow.txt").read_text())


class Slow(Callback):
    """Waits in a step in the middle of the second epoch, and writes its number."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "slow.txt"

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            self.path.write_text(str(trainer.global_step))
            time.sleep(3)


def write_isic2018(root: Path, ids: list[str]) -> None:
    for image_id in ids:
        write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.jpg", size=(40, 32))
        write_mask(
            root / "ISIC2018_Task1_Training_GroundTruth" / f"{image_id}_segmentation.png", size=(40, 32)
        )


def test_train_on_one_test_on_another(
    train: Train, write_ham: WriteHam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_ham(20)
    # ISIC_9000000 and ISIC_9000001 are one lesion of the training data.
    write_isic2018(tmp_path / "other", ["ISIC_9000000", "ISIC_0000001", "ISIC_0000002"])
    other = ["test_data=isic2018", f"test_data.root={tmp_path / 'other'}"]
    folder = train(*other, root=root)
    scores = pd.read_csv(folder / "scores.csv")
    assert scores["image_id"].tolist() == ["ISIC_0000001", "ISIC_0000002"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scores"]["test"]["images"] == 2
    assert summary["protocol"]["test_data"]["datasets"] == ["isic2018"]
    assert summary["protocol"]["test_data"]["left_out"] == {
        "in_training_data": 1,
        "lesion_in_training_data": 0,
    }
    data = json.loads((folder / "data.json").read_text())
    assert data["test_data"]["split"]["left_out"]["in_training_data"]["image_ids"] == ["ISIC_9000000"]
    assert "without 1 image that is in the training data and 0 more of its lesions" in capsys.readouterr().out
    with pytest.raises(SkinsegError, match="1 image of the test data is in the training data"):
        train(*other, "test_overlap=refuse", root=root, run_dir="refused")
    with pytest.raises(SkinsegError, match=r"leave out test_data\.overfit"):
        train(*other, "test_data.overfit=2", root=root, run_dir="refused")


def test_split_by_image_is_stamped_on_all_records(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("data.split.unit=image")
    stamp = "LEAKY: split by image;"
    assert stamp in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"]["group_key"] == "image"
    assert [text for text in summary["protocol"]["stamps"] if text.startswith(stamp)]
    assert stamp in json.loads((folder / "data.json").read_text())["split"]["stamps"][0]
    record = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["skinseg"]
    assert record["stamps"][0].startswith(stamp)
    assert stamp in (folder / "hparams.yaml").read_text()


def test_images_without_mask_are_neither_trained_on_nor_scored(train: Train, write_ham: WriteHam) -> None:
    root = write_ham(20)
    masks = sorted((root / "HAM10000_segmentations_lesion_tschandl").iterdir())
    for path in masks[:6]:
        path.unlink()
    folder = train("data.on_missing_mask=keep", root=root)
    data = json.loads((folder / "data.json").read_text())
    assert data["catalog"]["images"] == 40
    assert data["catalog"]["by_mask_source"] == {"ham10000": 34, "none": 6}
    assert len(pd.read_csv(folder / "split.csv")) == 34


@pytest.mark.slow
def test_sweep_with_a_search_path_into_a_folder_of_an_odd_name(write_ham: WriteHam, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    folder = tmp_path / "it's a=b (c), [d]"
    quoted = str(folder).replace("'", "\\'")
    sweep = ["-m", *command(f"data.root={write_ham(20)}", "+experiment=mine", "seed=1")[3:]]
    where = [f"hydra.searchpath=[file://{own.parent}]", f"hydra.sweep.dir='{quoted}'"]
    done = subprocess.run(
        [*command()[:3], *sweep, *where], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "0" / "summary.json").read_text())["name"] == "mine"


@pytest.mark.slow
def test_ctrl_c_in_a_sweep_lets_the_job_save(write_ham: WriteHam, tmp_path: Path) -> None:
    long = command(f"data.root={write_ham(20)}", "trainer.max_epochs=3000", "callbacks=minimal", "seed=1")
    sweep = [*long[:3], "-m", *long[3:], f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    process = subprocess.Popen(
        sweep, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    last = tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt"
    wait_for(last.is_file, process)  # type: ignore[arg-type]
    before = last.stat().st_mtime_ns
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert b"To go on, add to the same command: ckpt_path=" in out
    assert process.returncode == 130
    assert last.stat().st_mtime_ns > before
