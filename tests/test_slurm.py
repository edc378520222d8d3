"""docs/slurm.sbatch: run as it is, with stand-ins for Slurm's own commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, TINY, WriteHam

from skinseg.config.check import check
from skinseg.config.compose import compose, plain

SCRIPT = REPOSITORY / "docs/slurm.sbatch"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")

# Notes its arguments; starts the command once for each machine, with Slurm's variables of a step. As the real
# one, it kills what it has started when it gets SIGTERM itself.
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$STANDINS/srun.txt"
while [[ $1 == -* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_NNODES=$SLURM_JOB_NUM_NODES SLURM_NTASKS=$SLURM_JOB_NUM_NODES SLURM_LOCALID=0
tasks=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
  SLURM_NODEID=$node SLURM_PROCID=$node "$@" &
  tasks+=($!)
done
echo "${tasks[@]}" > "$STANDINS/tasks.txt"
trap 'kill -KILL "${tasks[@]}"' TERM
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit "$code"
"""

SCANCEL = """#!/bin/bash
[[ $1 == --signal=TERM && $2 == "$SLURM_JOB_ID" ]] && kill -TERM $(< "$STANDINS/tasks.txt")
"""

SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then printf 'localhost\\nother\\n'; else echo "$@" >> "$STANDINS/scontrol.txt"; fi
"""


def submit(place: Path, *overrides: str, nodes: int = 1, gpus: int = 1) -> subprocess.Popen[str]:
    """Starts the script as a job of so many machines, all of them this one."""
    standins = place / "bin"
    standins.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (standins / name).write_text(text)
        (standins / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(standins), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
        "STANDINS": str(place),
        "RUNS": str(place / "runs"),
        "SLURM_JOB_ID": str(free_port() - 20000),
        "SLURM_JOB_NAME": "skinseg",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_GPUS_ON_NODE": str(gpus),
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_SUBMIT_DIR": str(place),
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), *overrides],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def free_port() -> int:
    """One of those that the script takes."""
    for port in range(20000 + os.getpid() % 9000, 30000):
        with socket.socket() as place:
            try:
                place.bind(("", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port")


def arguments(place: Path) -> list[str]:
    """What srun was told."""
    return (place / "srun.txt").read_text().splitlines()


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_its_overrides_compose(tmp_path: Path) -> None:
    # A run, one that ended before its first checkpoint, and what comes after them.
    (tmp_path / "runs/1").mkdir(parents=True)
    last = tmp_path / "runs/0/checkpoints/last.ckpt"
    for number, resumed in ((0, False), (2, True)):
        if resumed:
            last.parent.mkdir(parents=True)
            last.touch()
        # On no machine srun ends as soon as it has noted its arguments.
        job = submit(tmp_path, "+experiment=unet_resnet34", nodes=0, gpus=4)
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 0, output
        told = arguments(tmp_path)
        overrides = told[told.index("skinseg.train") + 1 :]
        assert f"hydra.run.dir={tmp_path}/runs/{number}" in overrides
        ours = [override for override in overrides if not override.startswith("hydra.")]
        config = plain(compose([*ours, f"run_dir={tmp_path}"]))
        check(config)
        assert (config["trainer"]["devices"], config["trainer"]["strategy"]) == (4, "ddp")
        assert config["name"] == "unet_resnet34"
        assert config["ckpt_path"] == (str(last) if resumed else None)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_whose_time_is_up_goes_on_in_the_next(write_ham: WriteHam, tmp_path: Path, nodes: int) -> None:
    run = [
        *TINY, f"data.root={write_ham(20)}", "trainer.accelerator=cpu", "trainer.precision=32-true",
        "trainer.max_epochs=5000", "callbacks=minimal",
    ]  # fmt: skip
    last = tmp_path / "runs/0/checkpoints/last.ckpt"
    job = submit(tmp_path, *run, nodes=nodes)
    deadline = time.monotonic() + 240
    while not last.is_file():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any(word.startswith("ckpt_path=") for word in arguments(tmp_path))
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    assert f"To go on, add to the same command: ckpt_path={last}" in output, "it was killed"
    assert (tmp_path / "scontrol.txt").read_text().split()[0] == "requeue"
    stopped = torch.load(last, weights_only=True)["global_step"]
    assert not (tmp_path / "runs/0/scores.csv").exists()

    again = submit(tmp_path, *run, f"trainer.max_steps={stopped + 4}", nodes=nodes)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert f"ckpt_path={last}" in arguments(tmp_path)
    summary = json.loads((tmp_path / "runs/1/summary.json").read_text())
    assert summary["training"]["steps"] == stopped + 4
    scores = pd.read_csv(tmp_path / "runs/1/scores.csv")
    assert scores["image_id"].is_unique
    assert len((tmp_path / "scontrol.txt").read_text().splitlines()) == 1, "it has ended and is not requeued"


@pytest.mark.slow
def test_a_job_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    job = submit(tmp_path, *TINY, f"data.root={tmp_path / 'absent'}", "trainer.accelerator=cpu")
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "absent" in output
    assert not (tmp_path / "scontrol.txt").exists()
