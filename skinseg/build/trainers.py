"""The trainer, in processes that were started as it needs them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities import rank_zero_only

from skinseg.build.parts import of_lightning
from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.rules import HALF_PRECISIONS
from skinseg.config.schema import Node, Plain
from skinseg.errors import SkinsegError

# Where Lightning reads the variables of Slurm, torchrun and others, and what it raises about them.
_ENVIRONMENTS = "lightning.fabric.plugins.environments."
_LAUNCH_ERRORS = (RuntimeError, ValueError, KeyError)


def settle_rank(config: Plain | None = None) -> int:
    """Makes this process the rank that the trainer takes it for, and returns how many processes there are.

    Lightning's helpers and loggers go by RANK, LOCAL_RANK or SLURM_PROCID, which may be left over from
    another program; a process that they take for a second one writes no file and no metric.

    Args:
        config: The resolved configuration of a training. None: of a command without a trainer, the only
            process.
    """
    rank, processes = 0, 1
    if config is not None:
        asked = trainer(config, [], [])
        rank, processes = asked.global_rank, asked.world_size
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # where Lightning keeps it
    return processes


def trainer(config: Plain, callbacks: list[Callback], loggers: list[Logger]) -> L.Trainer:
    """Builds the trainer.

    Raises:
        SkinsegError: A GPU is asked for where there is none, the options contradict each other, or what has
            started the processes has started others than the options say.
    """
    node = config["trainer"]
    if node.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise SkinsegError(
            "trainer.accelerator=gpu: PyTorch finds no GPU here. Take trainer=cpu, or check that "
            f"`nvidia-smi` lists one and that PyTorch ({torch.__version__}) was built for CUDA "
            f"(here: {torch.version.cuda})."
        )
    with _launch_told(node):
        built = of_lightning(
            "trainer",
            node,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[WholeCheckpointIO()],
            # Lightning would add its own where the configuration names none.
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        )
    assert isinstance(built, L.Trainer)
    _check_processes(built, node)
    if isinstance(built.accelerator, CPUAccelerator) and str(node.get("precision")) in HALF_PRECISIONS:
        raise SkinsegError(  # Lightning would train with another one
            f"trainer.precision={node['precision']}: PyTorch finds no GPU here; take bf16-mixed or 32-true."
        )
    # With trainer.max_steps Lightning takes a checkpoint of an epoch's end for one of its middle, and counts
    # the finished epoch again without training in it.
    built.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    _resume_between_steps(built.fit_loop.epoch_loop)
    return built


@contextmanager
def _launch_told(node: Node) -> Iterator[None]:
    """Says what Lightning finds wrong with the variables by which a process learns which of several it is.

    Args:
        node: Node of the trainer.

    Raises:
        SkinsegError: The trainer refuses its arguments.
    """
    try:
        yield
    except (SkinsegError, *_LAUNCH_ERRORS) as error:
        cause = error.__cause__ or error
        names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(cause.__traceback__)]
        launcher = next((name for name in names if name.startswith(_ENVIRONMENTS)), None)
        if launcher is None:
            raise
        raise _wrongly_launched(launcher, cause, node) from error


def _check_processes(trainer: L.Trainer, node: Node) -> None:
    """Refuses processes that Slurm or torchrun has started otherwise than the trainer is told.

    Lightning asks only where it starts them itself. Those that are missing would be waited for without end,
    or their share of the images be left out.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:  # a single process
        return
    try:
        environment.validate_settings(trainer.num_devices, trainer.num_nodes)
        started, meant = environment.world_size(), trainer.num_devices * trainer.num_nodes
        if started != meant:
            raise ValueError(f"there are {started} and not {meant}")
    except _LAUNCH_ERRORS as error:
        raise _wrongly_launched(type(environment).__module__, error, node) from error


def _wrongly_launched(launcher: str, error: BaseException, node: Node) -> SkinsegError:
    """Returns the message for processes that were not started as the trainer needs them.

    Args:
        launcher: The module of Lightning that knows what has started them.
        error: What it has raised.
        node: Node of the trainer.
    """
    reason = f"{error} is not set" if isinstance(error, KeyError) else str(error).partition(" HINT: ")[0]
    asked = f"trainer.devices={node.get('devices', 'auto')} and trainer.num_nodes={node.get('num_nodes', 1)}"
    way_out = "Start with torchrun --nproc-per-node=<trainer.devices> --nnodes=<trainer.num_nodes>."
    if launcher.endswith(".slurm"):
        way_out = (
            "In a Slurm job with #SBATCH --ntasks-per-node=<trainer.devices> and --nodes=<trainer.num_nodes> "
            "(not --ntasks) start by srun, or take docs/slurm.sbatch. For a process of its own, or where the "
            "variables are left over: env -u SLURM_NTASKS <command>."
        )
    return SkinsegError(
        f"The processes of this training were not started for {asked} ({reason.rstrip('.')}). {way_out}"
    )


def _resume_between_steps(loop: _TrainingEpochLoop) -> None:
    """Lets a run go on from a checkpoint that was saved between two steps or two batches of validation.

    Lightning expects one that was saved within a step: it counts that step once more in what is logged, and
    takes a validation that had begun for finished. Here that validation begins anew.
    """
    validation, reset, update = loop.val_loop, loop.reset, loop.val_loop.update_restart_stage

    def update_restart_stage() -> None:
        update()
        progress = validation.batch_progress
        if validation.restarting and progress.current.completed < progress.current.ready:
            for count in ("ready", "started", "processed", "completed"):  # of batches that come again
                begun = getattr(progress.current, count)
                setattr(progress.total, count, getattr(progress.total, count) - begun)
            progress.reset_on_run()
            validation._restart_stage = RestartStage.RESTARTED_MID_EVALUATION

    def reset_to_steps() -> None:
        reset()
        # Of a batch that had come when the checkpoint was saved, and comes again.
        loop.batch_progress.total.ready = loop.batch_progress.total.completed
        # The step before a validation is counted after it, also where it was validated already.
        before = validation.restarted_mid_evaluation or loop.restarted_on_last
        loop._batches_that_stepped = loop.global_step - before

    # What is saved after a validation has counted it.
    validation.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    validation.update_restart_stage = update_restart_stage  # type: ignore[method-assign]
    loop.reset = reset_to_steps  # type: ignore[method-assign]
