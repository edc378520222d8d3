"""Several processes, here two on the processor: the same scores, and sweeps whose ranks agree."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY, WriteHam
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from skinseg.build import parts, trainers
from skinseg.callbacks.scores import score_table
from skinseg.config import command
from skinseg.config.compose import compose, plain
from skinseg.errors import SkinsegError
from skinseg.scoring.overlap import OVERLAP_METRICS

CPUS = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")
TWO = ("trainer=ddp", *CPUS)
SHARDED = ("trainer=fsdp", *CPUS)


def call(*arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-m", "skinseg.train", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_score_each_image_once_and_the_same(write_ham: WriteHam, tmp_path: Path) -> None:
    root, folder = write_ham(23), tmp_path / "run"
    call(*TINY, *TWO, f"data.root={root}", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert_scored_as_alone(root, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["lines", "bar"])
def test_an_epoch_without_validation_holds_no_process_up(
    write_ham: WriteHam, tmp_path: Path, style: str
) -> None:
    # Nothing but the progress asks for the metrics of such an epoch, and it is shown by one process.
    call(
        *TINY, *TWO, f"data.root={write_ham(20)}", f"hydra.run.dir={tmp_path / 'run'}", "logger=none",
        "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2", "test=false",
        f"callbacks.progress.style={style}", cwd=tmp_path,
    )  # fmt: skip
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


def assert_scored_as_alone(root: Path, folder: Path, tmp_path: Path) -> None:
    """Scores a run's checkpoint in one process and compares with what the run wrote."""
    together = pd.read_csv(folder / "scores.csv")
    assert together["image_id"].is_unique

    config = plain(compose([*TINY, f"data.root={root}", f"run_dir={tmp_path / 'alone'}"]))
    data = parts.datamodule(config)
    segmenter = parts.segmenter({**config, "init_from": str(folder / "checkpoints/best.ckpt")})
    L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False).test(
        segmenter, datamodule=data, verbose=False
    )
    alone = score_table(segmenter, data, "test")
    assert together["image_id"].tolist() == alone["image_id"].tolist()
    for metric in OVERLAP_METRICS:
        assert together[metric].to_numpy() == pytest.approx(alone[metric].to_numpy(), abs=1e-12)


class RecordShards(Callback):
    """Writes what each rank holds of the weights and of the batch-norm statistics at the end of the fit."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        weights = dict(pl_module.network.named_parameters())
        content = {
            "whole": {name: weight.numel() for name, weight in weights.items()},
            "local": {name: weight.to_local().numel() for name, weight in weights.items()},
            "moments": sum(
                state["exp_avg"].to_local().numel() for state in trainer.optimizers[0].state.values()
            ),
            "buffers": {name: buffer.clone() for name, buffer in pl_module.network.named_buffers()},
        }
        torch.save(content, self.folder / f"shards{trainer.global_rank}.pt")


@pytest.mark.slow
def test_sharded_processes_hold_a_part_each_and_score_the_same(write_ham: WriteHam, tmp_path: Path) -> None:
    root, folder = write_ham(23), tmp_path / "run"
    call(
        *TINY, *SHARDED, f"data.root={root}", f"hydra.run.dir={folder}",
        f"+callbacks.shards={{_target_: test_ranks.RecordShards, folder: '{tmp_path}'}}", cwd=tmp_path,
    )  # fmt: skip
    assert_scored_as_alone(root, folder, tmp_path)
    assert (folder / "predictions.png").is_file()
    first, second = (torch.load(tmp_path / f"shards{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, size in first["whole"].items():
        assert first["local"][name] + second["local"][name] == size, name
    for shard in (first, second):
        assert sum(shard["local"].values()) < 0.6 * sum(shard["whole"].values())
        assert shard["moments"] == sum(shard["local"].values())
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    for name, buffer in first["buffers"].items():
        assert torch.equal(buffer, second["buffers"][name]), name
        assert torch.equal(buffer, checkpoint["state_dict"][f"network.{name}"]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        # The step of SGD is as large as the gradient, so that a sum in the place of a mean shows.
        ("optimizer=sgd", "optimizer.lr=0.01", "trainer.gradient_clip_val=null"),
        ("optimizer=sgd", "optimizer.lr=0.01", "trainer.gradient_clip_val=0.1"),
        ("trainer.accumulate_grad_batches=2", "lr_scaling=sqrt", "gradient_checkpointing=true"),
    ],
)
def test_sharded_processes_learn_as_ddp_does(
    write_ham: WriteHam, tmp_path: Path, options: tuple[str, ...]
) -> None:
    root = write_ham(20)
    states = []
    for name, devices in (("ddp", TWO), ("fsdp", SHARDED)):
        call(
            *TINY, *devices, *options, f"data.root={root}", f"hydra.run.dir={tmp_path / name}",
            "channels_last=false", "callbacks=minimal", "logger=none", "test=false", cwd=tmp_path,
        )  # fmt: skip
        states.append(torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True))
    ddp, sharded = states
    assert ddp["global_step"] == sharded["global_step"]
    assert_close(ddp["state_dict"], sharded["state_dict"], 2e-5)
    for number, state in ddp["optimizer_states"][0]["state"].items():
        assert_close(state, sharded["optimizer_states"][0]["state"][number], 1e-5)


def assert_close(there: dict[str, Any], here: dict[str, Any], tolerance: float) -> None:
    assert there.keys() == here.keys()
    for name, value in there.items():
        torch.testing.assert_close(
            value, here[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
def test_sharded_checkpoints_resume_anywhere(write_ham: WriteHam, tmp_path: Path) -> None:
    run = [
        *TINY, f"data.root={write_ham(20)}", "callbacks=minimal", "logger=none", "test=false",
        "scheduler=none",
    ]  # fmt: skip
    alone = ("data.batch_size=8",)  # as many images a step as two processes take
    sharded_alone = (
        *alone, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true",
    )  # fmt: skip

    def train(name: str, devices: tuple[str, ...], epochs: int, after: str | None = None) -> dict[str, Any]:
        resumed = [] if after is None else [f"ckpt_path={tmp_path / after}/checkpoints/last.ckpt"]
        call(
            *run, *devices, *resumed, f"trainer.max_epochs={epochs}", f"hydra.run.dir={tmp_path / name}",
            cwd=tmp_path,
        )  # fmt: skip
        state: dict[str, Any] = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        assert state["epoch"] == epochs - 1
        return state

    whole = train("whole", SHARDED, 2)
    train("first", SHARDED, 1)
    assert_close(whole["state_dict"], train("resumed", SHARDED, 2, "first")["state_dict"], 0)
    # The moments too: with those of nothing, or in another order, the weights would be others.
    assert_close(whole["state_dict"], train("ddp", TWO, 2, "first")["state_dict"], 1e-3)
    one = train("alone", alone, 2, "first")
    assert_close(one["state_dict"], train("sharded_alone", sharded_alone, 2, "first")["state_dict"], 1e-3)
    after_ddp = train("after_ddp", TWO, 3, "ddp")
    assert_close(after_ddp["state_dict"], train("fsdp_after_ddp", SHARDED, 3, "ddp")["state_dict"], 1e-3)


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
@pytest.mark.parametrize(("devices", "victim"), [(TWO, 0), (TWO, 1), (SHARDED, 1)])
def test_a_killed_rank_ends_all(
    write_ham: WriteHam, tmp_path: Path, devices: tuple[str, ...], victim: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    run = subprocess.Popen(
        [
            sys.executable, "-m", "skinseg.train", *TINY, *devices, f"data.root={write_ham(20)}",
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
@pytest.mark.parametrize("devices", [TWO, SHARDED])
def test_sigterm_to_one_rank_stops_all_after_the_same_step(
    write_ham: WriteHam, tmp_path: Path, devices: tuple[str, ...]
) -> None:
    run = [*TINY, *devices, f"data.root={write_ham(20)}", "callbacks=minimal", "logger=none", "test=false"]
    run += ["trainer.max_epochs=2"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "skinseg.train", *run, f"hydra.run.dir={tmp_path / 'stopped'}",
            "+callbacks.slow={_target_: test_train.Slow, folder: '${run_dir}'}",
        ],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "stopped/slow.txt").is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    assert f"ckpt_path={last}" in output
    assert "Traceback" not in output
    stopped = torch.load(last, weights_only=True)["global_step"]
    assert stopped == int((tmp_path / "stopped/slow.txt").read_text())

    call(*run, f"ckpt_path={last}", f"hydra.run.dir={tmp_path / 'resumed'}", cwd=tmp_path)
    call(*run, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path)
    resumed, whole = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("resumed", "whole")
    )
    assert resumed["global_step"] == whole["global_step"] > stopped
    assert_close(whole["state_dict"], resumed["state_dict"], 0)


@pytest.mark.slow
def test_checkpoints_move_between_two_processes_and_one(write_ham: WriteHam, tmp_path: Path) -> None:
    run = [*TINY, f"data.root={write_ham(20)}", "callbacks=minimal", "logger=none"]
    call(*run, *TWO, f"hydra.run.dir={tmp_path / 'two'}", cwd=tmp_path)
    one = ("data.batch_size=8",)  # as many images a step as two processes take
    for number, (name, devices) in enumerate((("one", one), ("again", TWO)), start=2):
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


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "whole_group"), [(1, True), (2, False)])
def test_sigterm_to_torchrun_saves(
    write_ham: WriteHam, tmp_path: Path, processes: int, whole_group: bool
) -> None:
    """Loader processes, too, get the signal: of a scheduler to the group, or by torchrun to its processes."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    launcher = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
            "-m", "skinseg.train", *TINY, "trainer=ddp", "trainer.accelerator=cpu",
            "trainer.precision=32-true", f"trainer.devices={processes}", "trainer.max_epochs=300",
            "data.num_workers=2", "data.cache=none", "callbacks=minimal", "logger=none",
            f"data.root={write_ham(20)}", f"hydra.run.dir={tmp_path / 'run'}",
            "+callbacks.slow={_target_: test_train.Slow, folder: '${run_dir}'}",
        ],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/slow.txt").is_file():
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if whole_group:
        os.killpg(launcher.pid, signal.SIGTERM)
    else:
        launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=120)
    assert "killed by signal" not in output
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert f"ckpt_path={last}" in output
    stopped = torch.load(last, weights_only=True)["global_step"]
    assert stopped == int((tmp_path / "run/slow.txt").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_two_machines(write_ham: WriteHam, tmp_path: Path, trainer: str) -> None:
    """Two launchers, as of two machines, of one process each."""
    root, folder = write_ham(23), tmp_path / "run"
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    machines = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}",
                "-m", "skinseg.train", *TINY, f"trainer={trainer}", "trainer.accelerator=cpu",
                "trainer.precision=32-true", "trainer.num_nodes=2", "trainer.devices=1",
                f"data.root={root}", f"hydra.run.dir={folder}",
                f"+callbacks.rank={{_target_: conftest.RecordRank, folder: '{folder}'}}",
                f"+callbacks.seen={{_target_: test_ranks.ImagesOf, folder: '{folder}'}}",
            ],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [machine.communicate(timeout=240)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(outputs)
    assert sorted(path.name for path in folder.glob("rank*.txt")) == ["rank0.txt", "rank1.txt"]
    seen = [set((folder / f"images{rank}.txt").read_text().split()) for rank in (0, 1)]
    split = pd.read_csv(folder / "split.csv")
    training = set(split.loc[split["split"] == "train", "image_id"])
    assert all(seen)
    assert seen[0] | seen[1] <= training
    assert len(seen[0] & seen[1]) <= 1, "each its own half of them, but for one to fill up"
    assert_scored_as_alone(root, folder, tmp_path)


class ImagesOf(Callback):
    """Writes which images each rank trains on."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with (self.folder / f"images{trainer.global_rank}.txt").open("a") as file:
            file.writelines(f"{image_id}\n" for image_id in batch["image_id"])


RANK = "RANK=0 LOCAL_RANK=0 GROUP_RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2"
TORCHRUN = f"{RANK} TORCHELASTIC_RUN_ID=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=1"
STEP = "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0"
SBATCH = "env -u SLURM_NTASKS"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., L.Trainer]:
    """Builds a trainer as a process with these variables does."""
    for name in {*command.RANK_VARIABLES, *(name for name in os.environ if name.startswith("SLURM_"))}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # put back at the end

    def start(variables: str, *overrides: str) -> L.Trainer:
        for word in variables.split():
            monkeypatch.setenv(*word.split("="))
        return trainers.trainer(plain(compose([*TINY, *overrides, "run_dir=."])), [], [])

    return start


@pytest.mark.parametrize(
    ("variables", "overrides", "said", "way_out"),
    [
        ("SLURM_NTASKS=2", ["trainer=cpu"], "`--ntasks=2`", SBATCH),
        ("SLURM_NTASKS=two", ["trainer=cpu"], "'two'", SBATCH),
        ("SLURM_NTASKS=2", TWO, "`--ntasks=2`", SBATCH),
        ("SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2", TWO, "SLURM_NODEID' is not set", SBATCH),
        (f"SLURM_NTASKS=1 {STEP}", TWO, "there are 1 and not 2", SBATCH),
        (f"SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=4 {STEP}", TWO, "`--ntasks-per-node=4`", SBATCH),
        (
            f"SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=2 SLURM_NNODES=2 {STEP}", TWO, "`--nodes=2`", SBATCH,
        ),
        (TORCHRUN, [*TWO, "trainer.devices=1"], r"world size \(2\)", "--nproc-per-node"),
    ],
)  # fmt: skip
def test_processes_that_were_started_otherwise_than_the_trainer_is_told(
    started: Callable[..., L.Trainer], variables: str, overrides: Sequence[str], said: str, way_out: str
) -> None:
    with pytest.raises(SkinsegError, match=said) as refused:
        started(variables, *overrides)
    assert way_out in str(refused.value)
    assert "HINT" not in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "overrides", "processes"),
    [
        ("SLURM_NTASKS=1", ["trainer=cpu"], 1),
        ("SLURM_NTASKS=2 SLURM_JOB_NAME=bash", ["trainer=cpu"], 1),
        (f"SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 {STEP}", TWO, 2),
        (TORCHRUN, TWO, 2),
        (f"{TORCHRUN} SLURM_NTASKS=1 {STEP}", TWO, 2),  # as docs/slurm.sbatch starts them
    ],
)
def test_processes_that_the_trainer_is_told_of(
    started: Callable[..., L.Trainer], variables: str, overrides: Sequence[str], processes: int
) -> None:
    assert started(variables, *overrides).world_size == processes
