"""What every competitor is asked to do, and the network, loss and clock that they share."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Result = dict[str, Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Work:
    """The same work for all competitors.

    Attributes:
        data: Folder in HAM10000's layout with a `split.csv` (image_id, group, split).
        scratch: Folder for what a competitor writes; it is kept from round to round.
        size: Height and width of the network's input, in pixels.
        batch: Images per step.
        steps: Steps that are measured.
        warmup: Steps before them that are not.
        workers: Loader processes; 0: none.
        threads: Threads of the network's process.
        device: "cpu" or "cuda".
        encoder: Encoder of the U-Net, by its name in segmentation_models_pytorch.
        precision: Of the hand-tuned script and of skinseg: "bf16" or "fp32".
        seed: Seed of weights and augmentation.
        lr: Learning rate of AdamW.
        epochs: For `--learn`, passes over the training images. 0: measure speed.
        overrides: Further overrides of skinseg's command.
        started: `time.time()` when the process was asked for.
    """

    data: str
    scratch: str
    size: int = 256
    batch: int = 8
    steps: int = 12
    warmup: int = 3
    workers: int = 0
    threads: int = 1
    device: str = "cpu"
    encoder: str = "resnet34"
    precision: str = "bf16"
    seed: int = 0
    lr: float = 5e-4
    epochs: int = 0
    overrides: list[str] = field(default_factory=list)
    started: float = 0.0

    def files(self, side: str) -> tuple[list[str], list[str]]:
        """Returns images and masks of "train", "val" or "test"."""
        table = pd.read_csv(Path(self.data) / "split.csv")
        ids = table["image_id"][table["split"] == side]
        return [f"{self.data}/images/{i}.jpg" for i in ids], [
            f"{self.data}/masks/{i}_segmentation.png" for i in ids
        ]

    def write(self, path: Path) -> None:
        """Writes the work as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Work:
        """Reads what `write` wrote."""
        return Work(**json.loads(path.read_text(encoding="utf-8")))


def unet(work: Work) -> nn.Module:
    """Returns the network of all but nnU-Net, on the device, with random weights."""
    torch.manual_seed(work.seed)
    return smp.Unet(work.encoder, encoder_weights=None, classes=1).to(work.device)


def bce_dice() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Returns cross-entropy plus Dice as segmentation_models_pytorch has them."""
    bce, dice = smp.losses.SoftBCEWithLogitsLoss(), smp.losses.DiceLoss("binary")
    return lambda logits, masks: bce(logits, masks) + dice(logits, masks)


class StepClock:
    """Measures steps without the first ones; the device is waited for at both ends only.

    Args:
        work: Says how many steps there are.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._step = 0
        self._begin = (0.0, 0.0)
        self._wait = 0.0
        self._waits: list[float] = []
        self._ends: list[float] = []
        self.losses: list[torch.Tensor | float] = []
        self.result: Result = {}

    def waited(self, seconds: float) -> None:
        """Takes the time that the step has waited for its batch."""
        self._wait += seconds

    def stepped(self, loss: torch.Tensor | float) -> None:
        """Takes the loss of a step that is over."""
        self.losses.append(loss)
        self._step += 1
        self._waits.append(self._wait)
        self._ends.append(time.perf_counter())
        if self._step == self._work.warmup:
            self.result["first_steps_s"] = time.time() - self._work.started
            self._wait = 0.0
            self._begin = self._now()
        elif self._step == self._work.warmup + self._work.steps:
            wall, cpu = (end - begin for end, begin in zip(self._now(), self._begin, strict=True))
            steps = self._work.steps
            busy = (wall - self._wait) / steps
            if self._work.device == "cpu":
                # The median step is hardly touched by other programs. A GPU only queues its steps.
                ends, waits = np.array(self._ends[-steps - 1 :]), np.array(self._waits[-steps - 1 :])
                waits[0] = 0.0
                busy = float(np.median(np.diff(ends) - np.diff(waits)))
            self.result |= {
                "train_images_per_s": steps * self._work.batch / wall,
                "train_cpu_s_per_step": cpu / steps,
                "train_wait_share": self._wait / wall,
                "train_step_ms": 1000 * wall / steps,
                "train_busy_ms": 1000 * busy,
                "losses": [float(loss) for loss in self.losses],
            }

    def _now(self) -> tuple[float, float]:
        synchronise(self._work)
        return time.perf_counter(), cpu_seconds()


def timed_steps(work: Work, batches: Iterable[Any], step: Callable[[Any], torch.Tensor | float]) -> Result:
    """Trains on as many batches as the work has steps."""
    clock = StepClock(work)
    iterator = iter(batches)
    for _ in range(work.warmup + work.steps):
        begin = time.perf_counter()
        batch = next(iterator)
        clock.waited(time.perf_counter() - begin)
        clock.stepped(step(batch))
    return clock.result


def timed_loading(work: Work, batches: Iterable[Any]) -> float:
    """Returns images per second of a loader alone; the first batches are left out."""
    iterator = iter(batches)
    for _ in range(work.warmup):
        next(iterator)
    begin = time.perf_counter()
    for _ in range(work.steps):
        next(iterator)
    return work.steps * work.batch / (time.perf_counter() - begin)


def rate(work: Work, images: int, run: Callable[[], Any]) -> float:
    """Returns images per second of a function that goes through `images` images."""
    synchronise(work)
    begin = time.perf_counter()
    run()
    synchronise(work)
    return images / (time.perf_counter() - begin)


def synchronise(work: Work) -> None:
    """Waits until the device has done all that it was given."""
    if work.device == "cuda":
        torch.cuda.synchronize()


def cost(network: nn.Module, work: Work, loss: Callable[[Any], torch.Tensor]) -> Result:
    """Counts parameters and the operations of one image's forward and backward pass.

    A multiplication with its addition counts as two (PyTorch's FlopCounterMode).
    """
    images = torch.rand(2, 3, work.size, work.size, device=work.device)  # two, for batch normalisation
    with FlopCounterMode(display=False) as counter:
        loss(network(images)).backward()
    network.zero_grad()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "train_gflop_per_image": counter.get_total_flops() / 2e9}


def cpu_seconds() -> float:
    """Returns processor time of this process and, on Linux, of its living worker processes."""
    times = os.times()
    ticks = 0
    for worker in multiprocessing.active_children():
        try:
            stat = Path(f"/proc/{worker.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            continue
        # User and system time are the 14th and 15th field; the second, the name, may have blanks in it.
        ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return times.user + times.system + ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(work: Work) -> Result:
    """Returns the largest resident size of this process, and of tensors on a GPU, in MB."""
    kilobyte = 1 if sys.platform == "darwin" else 1024
    result = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6}
    if work.device == "cuda":
        result["peak_cuda_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return result
