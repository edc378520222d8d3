"""skinseg by its own command: `skinseg.train.run` with a configuration composed from overrides.

A callback reads the clock; loggers (CSV), checkpoints and callbacks are as a user has them by default.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler

from benchmarks.training.work import Result, StepClock, Work, peak_memory, rate, synchronise, timed_loading
from skinseg.build import nets, parts
from skinseg.config.compose import compose, plain
from skinseg.train import run as train


class _Waiting(Profiler):
    """Tells the clock how long the training loop has waited for each batch."""

    def __init__(self, clock: StepClock) -> None:
        super().__init__()
        self._clock = clock
        self._begin = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._begin = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._clock.waited(time.perf_counter() - self._begin)


class Clock(Callback):
    """Measures training steps and the first validation.

    Args:
        work: Path of the work's JSON.
    """

    last: Clock
    """The one of this process's latest run."""

    def __init__(self, work: str) -> None:
        self._work = Work.read(Path(work))
        self._steps = StepClock(self._work)
        self._begin = 0.0
        self.result: Result = {}
        Clock.last = self

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listens to Lightning's own stop-watch."""
        trainer.profiler = _Waiting(self._steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes a step's loss."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._steps.stepped(loss.detach())
        if self._steps.result and "losses" in self._steps.result and "losses" not in self.result:
            self.result |= self._steps.result | peak_memory(self._work)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the validation's clock."""
        synchronise(self._work)
        self._begin = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the time of the fit's validation, which is the first."""
        synchronise(self._work)
        images = len(self._work.files("val")[0])
        self.result.setdefault("validate_images_per_s", images / (time.perf_counter() - self._begin))


def overrides(work: Work) -> list[str]:
    """Returns the words of the command line."""
    words = [
        "data=ham10000",
        f"data.root={work.data}",
        f"data.split.file={work.data}/split.csv",
        f"data.image_size=[{work.size},{work.size}]",
        f"data.batch_size={work.batch}",
        f"data.num_workers={work.workers}",
        "model=unet",
        f"model.encoder_name={work.encoder}",
        "model.encoder_weights=null",
        f"optimizer.lr={work.lr}",
        f"trainer.accelerator={'gpu' if work.device == 'cuda' else 'cpu'}",
        f"trainer.precision={'bf16-mixed' if work.precision == 'bf16' else '32-true'}",
        f"trainer.max_epochs={work.epochs or 1}",
        f"threads={work.threads}",
        f"seed={work.seed}",
        f"run_dir={work.scratch}/run",
        "logger=[csv]",
        f"test={'true' if work.epochs else 'false'}",
    ]
    if not work.epochs:
        work.write(Path(work.scratch) / "clock.json")
        words += [
            "data.verify=false",
            "+callbacks.clock._target_=benchmarks.training.skinseg_command.Clock",
            f"+callbacks.clock.work={work.scratch}/clock.json",
        ]
    return [*words, *work.overrides]


def run(work: Work) -> Result:
    """Measures speed."""
    shutil.rmtree(Path(work.scratch) / "run", ignore_errors=True)
    config = compose(overrides(work))
    train(config)
    result = Clock.last.result
    images = work.files("val")[0]
    net, record = nets.load_net(f"{work.scratch}/run/checkpoints/best.ckpt")
    predictor = nets.predictor(net, record, device=work.device, num_workers=work.workers)
    result["predict_images_per_s"] = rate(
        work, len(images), lambda: [prediction.probability >= 0.5 for prediction in predictor(images)]
    )
    data = parts.datamodule(plain(config))
    data.prepare_data()
    data.setup("fit")
    result["load_images_per_s"] = timed_loading(work, data.train_dataloader())
    return result


def learn(work: Work) -> Result:
    """Trains for `epochs` passes; returns test Dice of the weights with the best validation Dice."""
    shutil.rmtree(Path(work.scratch) / "run", ignore_errors=True)
    best = train(compose(overrides(work)))
    summary = json.loads((Path(work.scratch) / "run" / "summary.json").read_text(encoding="utf-8"))
    return {"val_dice": best, "test_dice": summary["scores"]["test"]["dice"]}
