"""What is said of a training that fails or is stopped."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities.memory import is_oom_error

from skinseg.config.schema import Plain
from skinseg.errors import SkinsegError
from skinseg.machine import told
from skinseg.quoting import override, pasted
from skinseg.run.layout import last_of


def message_for(config: Plain, error: Exception) -> SkinsegError | None:
    """Returns a message for an error that is no bug; None for others."""
    if isinstance(error, SkinsegError):
        return error
    if isinstance(error, torch.OutOfMemoryError) or is_oom_error(error):
        return _out_of_memory(config, error)
    if _lost_a_process(error):
        return SkinsegError(
            "Another process of this run has ended, and this one with it; what it said is above, and if "
            "it said nothing it was killed, often for want of memory. "
            + how_to_resume(Path(config["run_dir"]))
        )
    return told(error, Path(config["run_dir"]))


def _out_of_memory(config: Plain, error: Exception) -> SkinsegError:
    size = pasted(override("data.image_size", config["data"]["image_size"]))
    reason = (str(error).strip() or type(error).__name__).split(". ")[0].splitlines()[0]
    return SkinsegError(
        f"The device's memory does not hold this run ({reason}). Lower one of: "
        f"data.batch_size={config['data']['batch_size']} (with trainer.accumulate_grad_batches="
        f"{config['trainer'].get('accumulate_grad_batches', 1)} raised as much, the steps stay as they are; "
        f"find=batch_size looks for the largest), {size}, "
        f"trainer.precision={config['trainer'].get('precision', '32-true')} (bf16-mixed takes less), or "
        "set gradient_checkpointing=true."
    )


def _lost_a_process(error: Exception) -> bool:
    """Returns whether a collective operation of PyTorch failed because its other end is gone."""
    gone = ("Connection reset by peer", "Connection closed by peer", "remote process exited")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in gone)


def how_to_resume(run_dir: Path) -> str:
    """Says how a run that was stopped goes on."""
    last = last_of(run_dir)
    if last.is_file():
        word = pasted(override("ckpt_path", last))
        return f"Interrupted; nothing was scored. To go on, add to the same command: {word}"
    return "Interrupted before the first checkpoint; nothing was scored."
