"""Time what the trainer adds to a step, and the loss's share of a step.

    python benchmarks/trainer_overhead.py [--steps N] [--rounds N] [--share]

The same segmenter takes the same steps in a bare PyTorch loop and in the trainer with the callbacks and the
CSV log of a run. Its network is a single convolution of 16 pixels a side, so that what is left is the
trainer's own time. --share times the loss within a step of U-Net ResNet-34 on 8 images of 256 pixels.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from skinseg.build import parts, trainers
from skinseg.callbacks.quiet import quiet
from skinseg.config.check import check
from skinseg.config.compose import compose, plain
from skinseg.models.segmenter import LesionSegmenter

WARM_UP = 20


class _Batches:
    """A loader; Lightning would take a list for several."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._batches)


class Clock(Callback):
    """Notes when the warm-up and the last step have ended."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Notes the time."""
        self.last = time.perf_counter()
        if trainer.global_step == WARM_UP:
            self.first = self.last


def main() -> None:
    """Print milliseconds a step: the median of all rounds, and their range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="steps a round (default: 500)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--share", action="store_true", help="time the loss within a U-Net's step instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    logging.getLogger("skinseg").setLevel(logging.ERROR)
    if arguments.share:
        _share(arguments.rounds)
        return
    batches = [_batch(2, 16) for _ in range(arguments.steps + WARM_UP)]
    bare, trained = [], []
    for _ in range(arguments.rounds):
        # One after the other, so that another program's load falls on both.
        bare.append(_bare(batches))
        trained.append(_trained(batches))
    _show("bare loop", bare)
    _show("trainer", trained)
    _show("the trainer's own", [b - a for a, b in zip(bare, trained, strict=True)])


def _show(name: str, milliseconds: list[float]) -> None:
    middle = statistics.median(milliseconds)
    sys.stdout.write(f"{name:18} {middle:7.3f} ms ({min(milliseconds):.3f} to {max(milliseconds):.3f})\n")


def _batch(images: int, side: int) -> dict[str, Any]:
    return {
        "image": torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8),
        "mask": torch.randint(0, 2, (images, 1, side, side), dtype=torch.uint8),
        "image_id": [f"image_{row}" for row in range(images)],
    }


def _config(run_dir: str, *overrides: str) -> dict[str, Any]:
    config = plain(compose([f"run_dir={run_dir}", "data.root=.", "trainer=cpu", *overrides]))
    check(config)
    return config


_CONVOLUTION = (
    "model=tiny",
    "~model",
    "+model={_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 1, kernel_size: 1}",
    "data.image_size=[16,16]",
    "data.batch_size=2",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=0",
    "logger=csv",
    "callbacks.panels=null",
    "callbacks.worst_images=null",
    "callbacks.early_stopping=null",
    "callbacks.progress.style=none",
)


def _bare(batches: list[dict[str, Any]]) -> float:
    """Returns milliseconds a step of a plain loop."""
    segmenter = parts.segmenter(_config(".", *_CONVOLUTION))
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    start = 0.0
    for step, batch in enumerate(batches):
        if step == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        loss = segmenter.loss(segmenter(batch["image"]), batch["mask"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(segmenter.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return (time.perf_counter() - start) / (len(batches) - WARM_UP) * 1e3


def _trained(batches: list[dict[str, Any]]) -> float:
    """Returns milliseconds a step of the trainer."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(folder, *_CONVOLUTION)
        clock = Clock()
        trainer = trainers.trainer(config, [*parts.callbacks(config), clock], parts.loggers(config))
        trainer.fit(parts.segmenter(config), train_dataloaders=_Batches(batches))
    return (clock.last - clock.first) / (len(batches) - WARM_UP) * 1e3


def _share(rounds: int) -> None:
    """Prints the loss's forward and backward pass beside a whole step."""
    segmenter: LesionSegmenter = parts.segmenter(_config(".", "model=unet", "model.encoder_weights=null"))
    segmenter.setup("fit")
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=5e-4)
    batch = _batch(8, 256)
    whole, alone = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        optimizer.zero_grad()
        logits = segmenter(batch["image"])
        segmenter.loss(logits, batch["mask"]).backward()
        optimizer.step()
        whole.append((time.perf_counter() - start) * 1e3)
        logits = logits.detach().requires_grad_()
        start = time.perf_counter()
        segmenter.loss(logits, batch["mask"]).backward()
        alone.append((time.perf_counter() - start) * 1e3)
    _show("step", whole)
    _show("loss", alone)
    share = statistics.median(b / a for a, b in zip(whole, alone, strict=True))
    sys.stdout.write(f"the loss's share: {share:.1%}\n")


if __name__ == "__main__":
    main()
