"""The LightningModule: losses that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Train
from lightning.pytorch.callbacks import Callback

from skinseg.models.segmenter import LesionSegmenter, LossWatch, NonFiniteLossError


def test_watch_looks_only_when_it_is_due_and_names_the_first_bad_batch() -> None:
    watch = LossWatch(every=4)
    for step, loss in enumerate((1.0, float("inf"), float("nan"))):
        watch.add(torch.tensor(loss), 2, step, [f"image_{step}", "other"])
    with pytest.raises(
        NonFiniteLossError, match="The loss is inf at epoch 2, step 1, for the images image_1, o"
    ):
        watch.add(torch.tensor(1.0), 2, 3, ["image_3"])
    watch.look()  # what was reported is done with


def test_watch_never_reads_a_single_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these calls makes the host wait for a GPU."""
    watch, reads = LossWatch(every=10), []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self.numel()) or tolist(self))
    for name in ("item", "__bool__", "__float__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("waits for the device"))
    for step in range(25):
        watch.add(torch.tensor(1.0), 0, step, ["image"])
    watch.look()
    assert reads == [10, 10, 5]


class BreakLossAt(Callback):
    """As on a GPU: losses are looked at later; the loss of one step is NaN."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer: L.Trainer, pl_module: LesionSegmenter) -> None:
        pl_module.watch = LossWatch(every=1000)
        loss = pl_module.loss

        class Broken(torch.nn.Module):
            def forward(self, *arguments: Any) -> torch.Tensor:
                broken = pl_module.trainer.training and trainer.global_step == self_.step
                return loss(*arguments) * (float("nan") if broken else 1)  # type: ignore[no-any-return]

        self_ = self
        pl_module.loss = Broken()


def test_lost_weights_never_replace_a_checkpoint(train: Train, tmp_path: Path) -> None:
    """NaN at the last step of an epoch, before anyone has looked."""
    with pytest.raises(
        NonFiniteLossError, match=r"The loss is nan at epoch 1, step 9, for the images ISIC_9"
    ):
        train(
            "callbacks=minimal", "test=false", "trainer.max_epochs=3",
            "+callbacks.broken={_target_: models.test_segmenter.BreakLossAt, step: 9}",
        )  # fmt: skip
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == 0
        assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
