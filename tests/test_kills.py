"""Kills at random moments: nothing is lost, and what goes on ends as if it had not been interrupted.

Each chain of processes is killed and started again until it has finished, and is then compared bit by bit
with the same training without a kill. `SKINSEG_KILLS=40 pytest -n 0 -s tests/test_kills.py` prints
what was met; without the variable there are a few kills of each kind.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, TINY, WriteHam
from lightning.pytorch.callbacks import Callback

KILLS = int(os.environ.get("SKINSEG_KILLS", "2"))
SIGNALS = [signal.SIGKILL, signal.SIGTERM]
STEPS = "+callbacks.steps={_target_: test_kills.Steps, path: '${run_dir}/steps.txt'}"
EVERY = 3
"""Optimizer steps between two checkpoints within an epoch."""

pytestmark = pytest.mark.slow


class Steps(Callback):
    """Writes where a fit begins and each optimizer step that it has done."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write(self, word: str, trainer: L.Trainer) -> None:
        with self.path.open("a") as file:
            file.write(f"{word} {trainer.global_step}\n")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write("start", trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.write("step", trainer)


@dataclass
class Figures:
    """What the kills of one kind have met.

    Attributes:
        kills: How many hit a process that had not ended.
        phases: Of these, by what the process was doing: before a step, training, after the last step.
        repeated: For each kill in training, the steps that the next process did again.
        chains: How many trainings were brought to their end and compared.
    """

    kills: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    chains: int = 0

    def note(self, phase: str) -> None:
        self.kills += 1
        self.phases[phase] = self.phases.get(phase, 0) + 1

    def show(self, name: str) -> None:
        most = max(self.repeated, default=0)
        print(f"\n{name}: {self.kills} kills {self.phases}, {self.chains} compared, {most} steps repeated")


def train(words: Sequence[str], output: str) -> None:
    """Runs the command in a process group of its own, with what it says in a file."""
    os.setsid()
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.argv = ["train", *words]
    from skinseg.train import main

    sys.exit(main())


@pytest.fixture(scope="module")
def start() -> Callable[[Sequence[str], Path], multiprocessing.process.BaseProcess]:
    """Starts a training in a process that has imported PyTorch already, which else were most of its time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["test_kills", "skinseg.build.parts", "skinseg.training.find", "skinseg.training.summary"]
    )

    def started(words: Sequence[str], output: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=train, args=(list(words), str(output)))
        process.start()
        return process

    return started


def tensors(value: Any, where: str = "") -> dict[str, Any]:
    """Tensors and numbers of a checkpoint by place, without paths, clocks and the counters of loops."""
    if isinstance(value, torch.Tensor | int | float) or value is None:
        return {where: value}
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    found: dict[str, Any] = {}
    for key, child in items:
        if not re.search(r"Timer|Throughput|skinseg$|best_k_models", str(key)):
            found |= tensors(child, f"{where}/{key}")
    return found


def assert_same_checkpoint(one: Path, other: Path) -> None:
    a, b = (tensors(torch.load(path, weights_only=True)) for path in (one, other))
    assert a.keys() == b.keys()
    different = [
        key
        for key, value in a.items()
        if not (torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key])
    ]
    assert different == [], one


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, averages, optimizer's state, validation scores and results."""
    for name in ("best.ckpt", "last.ckpt"):
        assert_same_checkpoint(one / "checkpoints" / name, other / "checkpoints" / name)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    for key in ("scores", "objective"):
        assert summaries[0].get(key) == summaries[1].get(key)
    if (one / "scores.csv").exists():
        assert (one / "scores.csv").read_bytes() == (other / "scores.csv").read_bytes()
    if (one / "metrics.csv").exists():
        scores = [
            pd.read_csv(run / "metrics.csv").dropna(subset="val/dice").groupby("step")["val/dice"].last()
            for run in (one, other)
        ]
        pd.testing.assert_series_equal(*scores)


def assert_whole(folder: Path) -> None:
    """Whatever is there after a kill can be read."""
    for path in (folder / "checkpoints").glob("*.ckpt"):
        torch.load(path, weights_only=True)
    for path in folder.glob("*.json"):
        json.loads(path.read_text())


def to_go_on(folder: Path) -> list[str]:
    """The override that a user would add to the same command."""
    kept = [folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    return [f"ckpt_path={path}" for path in kept if path.is_file()][:1]


def phase_of(steps: Sequence[str], last: int) -> tuple[str, int | None]:
    """Returns what a process was doing, and its last step, by what it has written since it began."""
    done = [int(line.split()[1]) for line in steps if line.startswith("step")]
    if not done:
        return ("before its first step" if steps == [] else "at its first step"), None
    return ("training" if done[-1] < last else "after its last step"), done[-1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["data.num_workers=2", "callbacks=ema", "callbacks.weight_average.decay=0.9",
             "trainer.accumulate_grad_batches=2"],
            id="workers-ema-accumulation",
        ),
        pytest.param(["+trainer.val_check_interval=0.5", "callbacks=minimal"], id="validation-within-epochs"),
    ],
)  # fmt: skip
def test_a_training(
    number: signal.Signals,
    options: list[str],
    start: Callable[[Sequence[str], Path], multiprocessing.process.BaseProcess],
    write_ham: WriteHam,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    words = [
        *TINY, f"data.root={write_ham(20)}", "trainer.max_epochs=6", "augment=light", STEPS,
        f"callbacks.checkpoint.every_n_steps={EVERY}", *options,
    ]  # fmt: skip
    whole = tmp_path / "whole"
    began = time.monotonic()
    process = start([*words, f"hydra.run.dir={whole}"], tmp_path / "whole.log")
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0, (tmp_path / "whole.log").read_text()
    last = int((whole / "steps.txt").read_text().split()[-1])
    moments = random.Random(str(options))
    figures = Figures()
    while figures.kills < KILLS:
        folder = tmp_path / f"chain_{figures.chains}"
        output, steps = tmp_path / f"chain_{figures.chains}.log", folder / "steps.txt"
        before: int | None = None  # the last step of the process that was killed
        seen = 0
        while True:
            process = start([*words, f"hydra.run.dir={folder}", *to_go_on(folder)], output)
            if figures.kills < KILLS:
                process.join(moments.uniform(0, 1.1 * seconds))
            else:
                process.join()
            ended = process.exitcode is not None
            if not ended:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:  # it has no group of its own yet
                    os.kill(process.pid, number)
                process.join(60)
            written = steps.read_text().splitlines()[seen:] if steps.exists() else []
            seen += len(written)
            if before is not None and written:
                begins = int(written[0].split()[1])
                figures.repeated.append(before - begins)
                assert 0 <= before - begins <= (EVERY if number == signal.SIGKILL else 0), written
            if ended:
                assert process.exitcode == 0, output.read_text()
                break
            assert process.exitcode in (-number, 130, 0), output.read_text()
            phase, step = phase_of(written, last)
            before = step if step is not None else before if not written else None
            figures.note(phase)
            assert_whole(folder)
            if process.exitcode == 0:
                break
        assert_same_run(folder, whole)
        figures.chains += 1
    figures.show(request.node.name)


def killed(words: Sequence[str], number: signal.Signals, after: float | None, cwd: Path) -> int | None:
    """Runs the command; returns its exit code, None where it and all that it started were killed before."""
    mark = f"SKINSEG_TEST_MARK={cwd}"
    name, value = mark.split("=", 1)
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    with (cwd / "out.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "skinseg.train", *words],
            cwd=cwd, env={**os.environ, "PYTHONPATH": path, name: value}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(after)
        except subprocess.TimeoutExpired:
            pass
        for pid in marked(mark):
            os.kill(pid, number)
        process.wait(120)
    deadline = time.monotonic() + 60
    while left := marked(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    return None


def marked(mark: str) -> list[int]:
    """The processes that have inherited a variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def brought_to_an_end(
    words: Sequence[str], number: signal.Signals, seconds: float, figures: Figures, cwd: Path
) -> None:
    """Kills a command at random moments and starts it again, until it has finished."""
    moments = random.Random(figures.chains)
    while True:
        left = max(KILLS // 5, 1) - figures.kills
        code = killed(words, number, moments.uniform(0, 1.1 * seconds) if left > 0 else None, cwd)
        if code is not None:
            assert code == 0, (cwd / "out.txt").read_text()
            figures.chains += 1
            return
        figures.note("somewhere")


def chains(
    words: Sequence[str], number: signal.Signals, root: Path, name: str
) -> Iterator[tuple[Path, Path]]:
    """Yields the folder of each command that was brought to its end, and that of one without a kill."""
    reference = root / "reference"
    reference.mkdir()
    began = time.monotonic()
    assert killed(words, number, None, reference) == 0, (reference / "out.txt").read_text()
    seconds = time.monotonic() - began
    figures = Figures()
    while figures.kills < max(KILLS // 5, 1):
        folder = root / f"chain_{figures.chains}"
        folder.mkdir()
        brought_to_an_end(words, number, seconds, figures, folder)
        yield folder, reference
    figures.show(name)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_sweep(
    number: signal.Signals, write_ham: WriteHam, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = [
        "-m", *TINY, f"data.root={write_ham(20)}", "trainer.max_epochs=4", "callbacks=minimal", "seed=1,2",
        "sweep.resume=true", "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    for folder, reference in chains(words, number, tmp_path, request.node.name):
        for job in (0, 1):
            assert_same_run(folder / f"sweep/{job}", reference / f"sweep/{job}")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_search(
    number: signal.Signals, write_ham: WriteHam, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = [
        *TINY, f"data.root={write_ham(20)}", "trainer.max_epochs=4", "callbacks=minimal", "+sweep=hpo",
        "~search.space", "+search.space={optimizer.lr:{choices:[0.002]}}", "search.trials=2",
        "hydra.run.dir=search", "pruner@search.pruner=none",
    ]  # fmt: skip
    for folder, reference in chains(words, number, tmp_path, request.node.name):
        trials = [pd.read_csv(run / "search/trials.csv") for run in (folder, reference)]
        assert trials[0]["state"].tolist() == ["complete"] * 2
        assert trials[0]["score"].tolist() == trials[1]["score"].tolist()
        for ours, theirs in zip(trials[0]["trial"], trials[1]["trial"], strict=True):
            assert_same_run(folder / f"search/trials/{ours}", reference / f"search/trials/{theirs}")
