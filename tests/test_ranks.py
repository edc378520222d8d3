"""Several processes, here two on the processor: the same scores, and sweeps whose ranks agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, TINY, WriteHam

from skinseg import build
from skinseg.callbacks.scores import score_table
from skinseg.config import compose, plain
from skinseg.scoring.overlap import OVERLAP_METRICS

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")


def call(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
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


def test_a_sweep_keeps_its_jobs_apart(write_ham: WriteHam, tmp_path: Path) -> None:
    """A job that fails is named, and the other one is not lost."""
    root = write_ham(20)
    done = subprocess.run(
        [
            sys.executable, "-m", "skinseg.train", "-m", *TINY, f"data.root={root}", "hydra.sweep.dir=sweep",
            "data.image_size=[33,33],[32,32]", "model=fpn", "model.encoder_weights=null", "test=false",
            "model.encoder_name=tu-test_resnet",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "multiples of 32" in done.stderr
    assert "Job 0 " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sweep/0/summary.json").exists()
    assert (tmp_path / "sweep/1/summary.json").exists()
