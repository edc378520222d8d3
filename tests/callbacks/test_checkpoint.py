"""best.ckpt holds the weights that its score is of, last.ckpt the most recent ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import TINY, Train
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf

from skinseg.config.compose import compose, plain
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.models.segmenter import LesionSegmenter
from skinseg.train import run as run_training

RUN = ("callbacks=minimal", "test=false")


class NoteLast(Callback):
    """Writes the step of last.ckpt that is there at the start of each batch."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        last = self.folder / "checkpoints/last.ckpt"
        step = torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0
        with (self.folder / "last.csv").open("a") as file:
            csv.writer(file).writerow((trainer.global_step, step))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that gives the validations of a fit these scores, in order."""

    log = LesionSegmenter.log

    def script(*scores: float) -> None:
        left = list(scores)

        def say(self: LesionSegmenter, name: str, value: Any, **how: Any) -> None:
            fitting = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
            log(self, name, left.pop(0) if name == "val/dice" and fitting else value, **how)

        monkeypatch.setattr(LesionSegmenter, "log", say)

    return script


def read(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _own_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_last_is_of_the_last_epoch_though_an_earlier_one_was_best(
    train: Train, scripted: Callable[..., None]
) -> None:
    scripted(0.2, 0.9, 0.5, 0.4)
    folder = train(*RUN, "trainer.max_epochs=4")
    assert read(folder, "best.ckpt")["epoch"] == 1
    assert read(folder, "last.ckpt")["epoch"] == 3
    objective = json.loads((folder / "summary.json").read_text())["objective"]
    assert objective["value"] == pytest.approx(0.9)


def test_a_stopped_run_repeats_no_finished_epoch(
    train: Train, scripted: Callable[..., None], tmp_path: Path
) -> None:
    scripted(0.9, 0.5, 0.4)
    stop = "+callbacks.stop={_target_: conftest.InterruptAt, validation: 2}"
    with pytest.raises(InterruptedRunError):
        train(*RUN, "trainer.max_epochs=4", "callbacks.interrupt=null", stop)
    assert read(tmp_path / "run", "last.ckpt")["epoch"] == 1


@pytest.mark.parametrize(
    ("validations", "steps"),
    [
        ("+trainer.val_check_interval=0.4", 2),
        ("+trainer.val_check_interval=4 trainer.check_val_every_n_epoch=null", 4),
        ("trainer.check_val_every_n_epoch=2", 14),
        ("+trainer.val_check_interval=0.4 trainer.accumulate_grad_batches=2", 1),
    ],
)
def test_best_holds_the_weights_that_were_validated(
    train: Train, scripted: Callable[..., None], validations: str, steps: int
) -> None:
    """The first validation is the best; what is trained after it must not get into best.ckpt."""
    scripted(0.9, *[0.1] * 20)
    folder = train(*RUN, "trainer.max_epochs=3", *validations.split())
    assert read(folder, "best.ckpt")["global_step"] == steps
    assert read(folder, "last.ckpt")["epoch"] == 2


@pytest.mark.parametrize(
    "validations",
    ["+trainer.val_check_interval=0.4", "+trainer.val_check_interval=4 trainer.check_val_every_n_epoch=null"],
)
def test_the_objective_is_what_the_saved_weights_score(train: Train, validations: str) -> None:
    folder = train(*RUN, "trainer.max_epochs=3", *validations.split())
    summary = json.loads((folder / "summary.json").read_text())
    # The weights of best.ckpt are validated again at the end of a run.
    assert summary["objective"]["value"] == pytest.approx(summary["scores"]["val"]["dice"], abs=1e-6)


@pytest.mark.parametrize(
    ("often", "longest"),
    [("callbacks.checkpoint.every_n_steps=2", 3), ("callbacks.checkpoint.every_n_minutes=1e-9", 10)],
)
def test_last_is_also_written_within_an_epoch(train: Train, often: str, longest: int) -> None:
    note = "+callbacks.note={_target_: test_checkpoint.NoteLast, folder: '${run_dir}'}"
    folder = train(*RUN, "data.batch_size=2", "trainer.max_epochs=2", often, note)
    rows = list(csv.reader((folder / "last.csv").open()))
    ages = [int(now) - int(last) for now, last in rows]
    assert len(ages) > 20
    assert max(ages) <= longest
    assert any(last not in ("0", rows[-1][0]) for _, last in rows)


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_within_an_epoch(train: Train, tmp_path: Path) -> None:
    run = (*RUN, "trainer.max_epochs=3", "trainer.accumulate_grad_batches=2")
    whole = train(*run, run_dir="whole")
    stop = "+callbacks.stop={_target_: conftest.InterruptAt, step: 6}"
    with pytest.raises(InterruptedRunError):  # as a kill: nothing is saved at the signal itself
        train(
            *run, "callbacks.checkpoint.every_n_steps=1", "callbacks.interrupt=null", stop, run_dir="stopped"
        )
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5
    resumed = train(*run, f"ckpt_path={last}", run_dir="resumed")
    for name in ("last.ckpt", "best.ckpt"):
        there, here = read(whole, name)["state_dict"], read(resumed, name)["state_dict"]
        assert all(torch.equal(value, here[key]) for key, value in there.items()), name


@pytest.mark.slow
def test_a_job_that_goes_on_beside_what_it_left_keeps_its_best(
    train: Train, scripted: Callable[..., None], tmp_path: Path
) -> None:
    """As a sweep does: what an interrupted job left is moved aside, and its planned configuration resumed."""
    run = (*RUN, "trainer.max_epochs=4")
    stop = "+callbacks.stop={_target_: conftest.InterruptAt, validation: 2}"
    scripted(0.9, 0.5, 0.4)
    with pytest.raises(InterruptedRunError):
        train(*run, stop, run_dir="job")
    aside = (tmp_path / "job").rename(tmp_path / "aside")
    data = f"data.root={tmp_path / 'ham10000'}"
    planned = plain(compose([*TINY, data, *run, f"run_dir={tmp_path / 'job'}"]))
    scripted(0.3, 0.2, 0.1)
    run_training(OmegaConf.create({**planned, "ckpt_path": str(aside / "checkpoints/last.ckpt")}))
    summary = json.loads((tmp_path / "job/summary.json").read_text())
    assert summary["objective"]["value"] == pytest.approx(0.9)
    assert read(tmp_path / "job", "best.ckpt")["epoch"] == 0


@pytest.mark.parametrize("form", ["{run}/checkpoints/../../{name}", "{folder}", "local://{folder}"])
def test_paths_in_a_checkpoint_are_not_followed(
    train: Train, scripted: Callable[..., None], form: str, tmp_path: Path
) -> None:
    """Lightning removes the file or folder of the best model so far when a better one comes."""
    run = (*RUN, "trainer.max_epochs=3")
    stop = "+callbacks.stop={_target_: conftest.InterruptAt, validation: 1}"
    scripted(0.5, 0.4)
    with pytest.raises(InterruptedRunError):
        train(*run, stop)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "mine.jpg").touch()
    last = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    (state,) = [s for name, s in checkpoint["callbacks"].items() if "BestAndLast" in name]
    path = form.format(run=tmp_path / "run", name="photographs", folder=photographs)
    state |= {"best_model_path": path, "kth_best_model_path": path}
    state["best_k_models"] = {path: state["best_model_score"]}
    torch.save(checkpoint, last)
    scripted(0.6, 0.7)
    train(*run, f"ckpt_path={last}")
    assert (photographs / "mine.jpg").is_file()
    assert read(tmp_path / "run", "best.ckpt")["epoch"] == 2


def test_refuses_intervals_that_are_none(train: Train) -> None:
    with pytest.raises(SkinsegError, match=r"callbacks\.checkpoint: .*every_n_steps=0: expected more than 0"):
        train(*RUN, "callbacks.checkpoint.every_n_steps=0")
