"""The LightningModule: losses that are not finite."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from conftest import Train
from lightning.pytorch.callbacks import Callback

from skinseg.models.segmenter import LesionSegmenter
from skinseg.models.watch import LossWatch, NonFiniteLossError


def test_watch_looks_only_when_it_is_due_and_names_the_first_bad_batch() -> None:
    watch = LossWatch(every=4)
    for step, loss in enumerate((1.0, float("inf"), float("nan"))):
        watch.add(torch.tensor(loss), 2, step, [f"image_{step}", "other"])
    with pytest.raises(
        NonFiniteLossError, match="The loss is inf at epoch 3, step 1, for the images image_1, o"
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
        NonFiniteLossError, match=r"The loss is nan at epoch 2, step 9, for the images ISIC_9"
    ):
        train(
            "callbacks=minimal", "test=false", "trainer.max_epochs=3",
            "+callbacks.broken={_target_: models.test_segmenter.BreakLossAt, step: 9}",
        )  # fmt: skip
    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == 0
        assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]  # type: ignore[no-any-return]


class Small(torch.nn.Module):
    """Quick to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images).tanh() * 3  # type: ignore[no-any-return]


SMALL = ("~model", "+model={_target_: models.test_segmenter.Small}")

FAST = ("callbacks=minimal", "test=false", "logger=none", "trainer.max_epochs=2")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fused_optimizer_steps_as_the_plain_one(train: Train, optimizer: str, precision: str) -> None:
    """Also with gradients that are clipped, which Lightning refuses of itself in mixed precision."""
    run = (*FAST, "trainer.max_steps=4", f"optimizer={optimizer}", f"trainer.precision={precision}")
    fused, plain = (train(*run, f"optimizer.fused={fused}", run_dir=fused) for fused in ("true", "false"))
    state = torch.load(fused / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["fused"] is True
    for (key, one), other in zip(weights(fused).items(), weights(plain).values(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=2e-3, rtol=1e-2), key


def test_device_without_fused_optimizer_steps_unfused(
    train: Train, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", _refuse)
    folder = train(*FAST, "trainer.max_steps=1")
    assert "optimizer.fused=true: not on cpu here; stepping unfused" in caplog.text
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["fused"] is False


def _refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError(
        "`fused=True` requires all the params to be floating point Tensors of supported devices"
    )


@pytest.mark.slow
def test_compiled_run_keeps_the_names(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    run = (*FAST, "trainer.max_steps=2", "optimizer=sgd")
    plain, compiled = (train(*run, f"compile={mode}", run_dir=str(mode)) for mode in ("null", "default"))
    assert "going on uncompiled" not in caplog.text
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert weights(plain).keys() == weights(compiled).keys()
    for (key, one), other in zip(weights(plain).items(), weights(compiled).values(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=2e-3, rtol=1e-2), key
    costs = [
        json.loads((folder / "summary.json").read_text())["costs"]["gflops"] for folder in (plain, compiled)
    ]
    assert costs[0] == costs[1] > 0


@pytest.mark.slow
def test_without_a_compiler_the_run_goes_on(
    train: Train, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config

    # Otherwise a graph that was compiled before would be taken from the disk.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    with config.patch({"cpp.cxx": ("/nonexistent/compiler",), "fx_graph_cache": False}):
        folder = train(*FAST, *SMALL, "compile=default")
    warnings = [record.getMessage() for record in caplog.records if "compile=default" in record.getMessage()]
    assert len(warnings) == 1
    assert "going on uncompiled. " in warnings[0]
    assert "\n" not in warnings[0]
    plain = weights(train(*FAST, *SMALL, run_dir="plain"))
    assert all(torch.equal(value, plain[key]) for key, value in weights(folder).items())


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_learning_rate_grows_with_the_batch(train: Train, scaling: str, factor: float) -> None:
    """Batches of 4, two of them accumulated, beside a reference of 2."""
    options = ["trainer.accumulate_grad_batches=2", "scheduler=none", "lr_reference_batch=2", "test=false"]
    folder = train(*options, f"lr_scaling={scaling}")
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.002 * factor)


def test_an_optimizers_loaded_state_is_laid_out_as_its_weights() -> None:
    """Of timm's optimizers some count their steps with a plain number."""
    weight = torch.nn.Parameter(torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([weight])
    moment = torch.rand(4, 3, 2, 2)
    optimizer.state[weight] = {"step": 3, "moment": moment}
    module = SimpleNamespace(trainer=SimpleNamespace(optimizers=[optimizer]))
    LesionSegmenter.on_train_start(module)  # type: ignore[arg-type]
    state = optimizer.state[weight]
    assert state["step"] == 3
    assert state["moment"].stride() == weight.stride() != moment.stride()
    assert torch.equal(state["moment"], moment)
