"""Time the start of the commands: to the help, to a message about a mistake, to the first training step.

    python benchmarks/startup.py [--repeats N]

Each is a process of its own, from start to end; a training ends itself after its first step. The drawn
images of the training are made before it is timed. Beside them stands `import torch`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

COMMANDS = ("train", "evaluate", "predict", "compare", "audit", "split", "preview", "download")
REPOSITORY = Path(__file__).resolve().parents[1]


class EndAtFirstStep(Callback):
    """Ends the process when the first batch has been trained on."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Ends it without the clean-up that a training would not do here either."""
        os._exit(0)


def main() -> None:
    """Print a line per command: median seconds of processor time and of the clock, and the clock's range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes of each (default: 5)")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        times: dict[str, list[tuple[float, float]]] = {}
        # Round by round, so that another program's load falls on all of them; the first only fills caches.
        for number in range(repeats + 1):
            for name, arguments in _cases(Path(folder)).items():
                taken = _time(arguments, Path(folder))
                if number:
                    times.setdefault(name, []).append(taken)
    print("| | processor, s | clock, s | range of the clock |\n|---|---|---|---|")
    for name, taken_all in times.items():
        processor, clock = (statistics.median(column) for column in zip(*taken_all, strict=True))
        clocks = sorted(clock for _, clock in taken_all)
        print(f"| {name} | {processor:.2f} | {clock:.2f} | {clocks[0]:.2f} to {clocks[-1]:.2f} |")


def _cases(folder: Path) -> dict[str, list[str]]:
    train = ["-m", "skinseg.train"]
    demo = [*train, "+experiment=demo", f"data.root={folder / 'data'}", f"hydra.run.dir={folder / 'run'}"]
    clock = "+callbacks.clock._target_=startup.EndAtFirstStep"
    return {
        "`import torch`": ["-c", "import torch"],
        "`import torch, lightning`": ["-c", "import torch, lightning"],
        **{f"`{command} --help`": ["-m", f"skinseg.{command}", "--help"] for command in COMMANDS},
        "`train --cfg job`": [*train, "--cfg", "job"],
        "`train +sead=1 optimizer.lrr=1`: unknown keys": [*train, "+sead=1", "optimizer.lrr=1"],
        "`train seed=many`: wrong type": [*train, "seed=many"],
        "`train model=unett`: no such option": [*train, "model=unett"],
        "`train +experiment=demo` to the first step": [*demo, clock],
        "the same with `logger=[csv]`": [*demo, clock, "logger=[csv]"],
    }


def _time(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Runs Python; returns seconds of processor time (with its children) and of the clock."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")]),
        "WANDB_MODE": "offline",
    }
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        clock = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 2):  # 2: a message about a mistake
            output.seek(0)
            sys.exit(f"{arguments} failed:\n{output.read().decode()}")
    return used.ru_utime + used.ru_stime, clock


if __name__ == "__main__":
    main()
