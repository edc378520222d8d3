"""Several processes, here two on the processor: the same scores, and sweeps whose ranks agree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from lightning.pytorch.callbacks import Callback

from skinseg import build
from skinseg.callbacks.scores import score_table
from skinseg.config import compose, plain
from skinseg.scoring.overlap import OVERLAP_METRICS

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")


def call(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-m", "skinseg.train", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_score_each_image_once_and_the_same(write_ham: WriteHam, tmp_path: Path) -> None:
    root, folder = write_ham(23), tmp_path / "run"
    call(*TINY, *TWO, f"data.root={root}", f"hydra.run.dir={folder}", cwd=tmp_path)
    together = pd.read_csv(folder / "scores.csv")
    assert together["image_id"].is_unique

    config = plain(compose([*TINY, f"data.root={root}", f"run_dir={tmp_path / 'alone'}"]))
    data = build.datamodule(config)
    segmenter = build.load_segmenter(str(folder / "checkpoints/best.ckpt"))
    L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False).test(
        segmenter, datamodule=data, verbose=False
    )
    alone = score_table(segmenter, data, "test")
    assert together["image_id"].tolist() == alone["image_id"].tolist()
    for metric in OVERLAP_METRICS:
        assert together[metric].to_numpy() == pytest.approx(alone[metric].to_numpy(), abs=1e-12)


@pytest.mark.slow
def test_ranks_of_a_sweep_see_the_same_overrides(write_ham: WriteHam, tmp_path: Path) -> None:
    call(
        "-m", *TINY, *TWO, f"data.root={write_ham(20)}", "hydra.sweep.dir=sweep", "optimizer.lr=0.001,0.002",
        "test=false", "+callbacks.rank={_target_: conftest.RecordRank, folder: '${run_dir}'}", cwd=tmp_path,
    )  # fmt: skip
    for job, rate in ((0, 0.001), (1, 0.002)):
        folder = tmp_path / "sweep" / str(job)
        assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"] == rate
        ranks = {path.name: float(path.read_text()) for path in folder.glob("rank*.txt")}
        assert ranks == {"rank0.txt": rate, "rank1.txt": rate}


class PidOf(Callback):
    """Writes each rank's process number at its first step, and slows the run down."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 12:  # after the first checkpoint
            (self.folder / f"pid{trainer.global_rank}.txt").write_text(str(os.getpid()))
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all(write_ham: WriteHam, tmp_path: Path, victim: int) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    run = subprocess.Popen(
        [
            sys.executable, "-m", "skinseg.train", *TINY, *TWO, f"data.root={write_ham(20)}",
            f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_epochs=5000", "callbacks=minimal",
            "logger=none",
            f"+callbacks.pid={{_target_: test_ranks.PidOf, folder: '{tmp_path}'}}",
        ],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    files = [tmp_path / f"pid{rank}.txt" for rank in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(path.is_file() and path.read_text() for path in files):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pids = [int(path.read_text()) for path in files]
    os.kill(pids[victim], signal.SIGKILL)
    out, _ = run.communicate(timeout=90)
    assert run.returncode != 0
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in pids if alive(pid)] == [], f"orphans; output:\n{out}"
    if victim == 1:  # otherwise nobody is left to collect what the other one says
        assert "Another process of this run has ended" in out
        assert "Traceback" not in out
        assert f"ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}" in out


@pytest.mark.slow
def test_checkpoints_move_between_two_processes_and_one(write_ham: WriteHam, tmp_path: Path) -> None:
    run = [*TINY, f"data.root={write_ham(20)}", "callbacks=minimal", "logger=none"]
    call(*run, *TWO, f"hydra.run.dir={tmp_path / 'two'}", cwd=tmp_path)
    for number, (name, devices) in enumerate((("one", ()), ("again", TWO)), start=2):
        last = tmp_path / ("two" if name == "one" else "one") / "checkpoints/last.ckpt"
        call(
            *run, *devices, f"hydra.run.dir={tmp_path / name}", f"ckpt_path={last}",
            f"trainer.max_epochs={number}", cwd=tmp_path,
        )  # fmt: skip
        resumed = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        assert resumed["epoch"] == number - 1
        before = torch.load(last, weights_only=True)
        assert resumed["global_step"] > before["global_step"]
        assert resumed["state_dict"].keys() == before["state_dict"].keys()


class SizesOf(Callback):
    """Writes the size of each rank's batches."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.folder / f"sizes{trainer.global_rank}.txt").open("a") as file:
            file.write("{}x{}\n".format(*batch["image"].shape[-2:]))


@pytest.mark.slow
def test_ranks_train_at_the_same_size(write_ham: WriteHam, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    call(
        *TINY, *TWO, f"data.root={write_ham(20)}", f"hydra.run.dir={folder}", "trainer.max_epochs=2",
        "test=false", "logger=none", "callbacks.progressive_resizing.start=0.5",
        f"+callbacks.sizes={{_target_: test_ranks.SizesOf, folder: '{folder}'}}", cwd=tmp_path,
    )  # fmt: skip
    one, other = ((folder / f"sizes{rank}.txt").read_text().split() for rank in (0, 1))
    assert one == other
    assert sorted(set(one)) == ["16x16", "32x32"]
