"""Averaged weights: what is validated, kept, loaded and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import Train
from lightning.pytorch.callbacks import Callback

from skinseg.build import nets, parts
from skinseg.callbacks.averaging import WeightAverage
from skinseg.callbacks.scores import score_table
from skinseg.errors import InterruptedRunError, SkinsegError
from skinseg.scoring.overlap import OVERLAP_METRICS

pytestmark = pytest.mark.slow

RUN = ("trainer.max_epochs=4", "logger=none", "callbacks.panels=null", "callbacks.early_stopping=null")
EMA = (*RUN, "callbacks=ema", "callbacks.weight_average.decay=0.9")
SWA = (*RUN, "callbacks=swa", "callbacks.weight_average.start=0.5")
WEIGHT = "segmentation_head.0.weight"


class Note(Callback):
    """Writes the weight of each step, of each validation, and when it is tested."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seen: dict[str, list[torch.Tensor]] = {"step": [], "val": [], "test": []}

    def _note(self, kind: str, pl_module: Any) -> None:
        self.seen[kind].append(pl_module.network.state_dict()[WEIGHT].clone())
        torch.save(self.seen, self.path)

    def on_train_batch_end(self, _: L.Trainer, pl_module: L.LightningModule, *__: Any) -> None:
        self._note("step", pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            self._note("val", pl_module)

    def on_test_start(self, _: L.Trainer, pl_module: L.LightningModule) -> None:
        self._note("test", pl_module)


def noted(train: Train, *overrides: str) -> tuple[Path, dict[str, list[torch.Tensor]]]:
    folder = train(
        *overrides, "+callbacks.note={_target_: callbacks.test_averaging.Note, path: '${run_dir}/note.pt'}"
    )
    return folder, torch.load(folder / "note.pt", weights_only=True)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]  # type: ignore[no-any-return]


def assert_same(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_ema_is_what_is_validated_tested_kept_and_loaded(train: Train) -> None:
    folder, seen = noted(train, *EMA)
    average = seen["step"][0]
    averages = []
    for n, weight in enumerate(seen["step"][1:], start=2):
        average = average.lerp(weight, 1 - min(0.9, n / (9 + n)))
        averages.append(average)
    per_epoch = len(seen["step"]) // 4
    for epoch in range(4):
        expected = averages[(epoch + 1) * per_epoch - 2]
        assert torch.allclose(seen["val"][epoch], expected, atol=1e-6)
        assert not torch.allclose(seen["val"][epoch], seen["step"][(epoch + 1) * per_epoch - 1], atol=1e-6)
    assert torch.equal(weights(folder / "checkpoints/last.ckpt")[f"network.{WEIGHT}"], seen["val"][3])

    best = weights(folder / "checkpoints/best.ckpt")[f"network.{WEIGHT}"]
    assert any(torch.equal(best, value) for value in seen["val"][:4])
    assert torch.equal(best, seen["test"][0])
    net, record = nets.load_net(folder / "checkpoints/best.ckpt")
    config = {**record.config, "init_from": str(folder / "checkpoints/best.ckpt")}
    segmenter = parts.segmenter(config)
    assert torch.equal(net.network.state_dict()[WEIGHT], best)
    data = parts.datamodule(config)
    L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False).test(
        segmenter, datamodule=data, verbose=False
    )
    again, scores = score_table(segmenter, data, "test"), pd.read_csv(folder / "scores.csv")
    for metric in OVERLAP_METRICS:
        assert again[metric].to_numpy() == pytest.approx(scores[metric].to_numpy(), abs=1e-12)


def test_swa_is_the_mean_of_the_epochs_since_its_start(train: Train) -> None:
    _, seen = noted(train, *SWA)
    per_epoch = len(seen["step"]) // 4
    ends = [seen["step"][(epoch + 1) * per_epoch - 1] for epoch in range(4)]
    assert torch.equal(seen["val"][0], ends[0]), "before the start: the weights themselves"
    for epoch in (1, 2, 3):  # half of the steps are over at the end of the second epoch
        assert torch.allclose(seen["val"][epoch], torch.stack(ends[1 : epoch + 1]).mean(dim=0), atol=1e-6)


@pytest.mark.parametrize(
    ("average", "moment"), [(EMA, "step: 13"), (SWA, "validation: 2")], ids=["ema", "swa"]
)
def test_resume_is_exact(train: Train, tmp_path: Path, average: tuple[str, ...], moment: str) -> None:
    whole = train(*average, "test=false", run_dir="whole")
    with pytest.raises(InterruptedRunError):
        train(
            *average, f"+callbacks.stop={{_target_: conftest.InterruptAt, {moment}}}", run_dir="stopped"
        )  # fmt: skip
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    resumed = train(*average, "test=false", f"ckpt_path={last}", run_dir="resumed")
    for name in ("last", "best"):
        assert_same(whole / f"checkpoints/{name}.ckpt", resumed / f"checkpoints/{name}.ckpt")


def test_shares_are_checked() -> None:
    with pytest.raises(ValueError, match=r"decay=1\.0: expected"):
        WeightAverage("ema", decay=1.0)


def test_averaged_weights_are_not_gone_on_with_alone(train: Train) -> None:
    folder = train(*EMA, "trainer.max_epochs=1")
    with pytest.raises(SkinsegError, match=r"holds averaged weights; go on with the same callbacks=ema"):
        train(*RUN, f"ckpt_path={folder}/checkpoints/last.ckpt", run_dir="resumed")
