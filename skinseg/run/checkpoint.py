"""Checkpoints are read with an error that a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from skinseg.errors import SkinsegError
from skinseg.models.stored import NotReadableError, read_stored
from skinseg.quoting import override, pasted


def read_checkpoint(path: str | Path, *, key: str) -> dict[str, Any]:
    """Reads a checkpoint that skinseg wrote.

    Args:
        path: The file.
        key: The config key that named it, for the message.

    Returns:
        Lightning's dictionary; "skinseg" holds the record of `LesionSegmenter`.

    Raises:
        SkinsegError: No such file, cut short, or not a checkpoint of skinseg.
    """
    if not str(path):
        raise SkinsegError(f"{key} is empty; expected a file of <run folder>/checkpoints/.")
    path = Path(path).expanduser()
    if path.is_dir():
        raise SkinsegError(f"{key}={path} is a folder; {_within(path, key)}")
    if not path.is_file():
        raise SkinsegError(
            f"{key}={path}: no such file. A run keeps its checkpoints in <run folder>/checkpoints/."
        )
    try:
        checkpoint = read_stored(path)
    except NotReadableError as error:
        raise SkinsegError(
            f"{key}={path} ({path.stat().st_size} bytes) is not a whole checkpoint: {error}. "
            "Take another one, e.g. last.ckpt or best.ckpt of a run."
        ) from error
    if not isinstance(checkpoint, dict) or not {"skinseg", "state_dict"} <= checkpoint.keys():
        raise SkinsegError(
            f"{key}={path} was not written by skinseg; expected a file of <run folder>/checkpoints/."
        )
    return checkpoint


def _within(folder: Path, key: str) -> str:
    """Says which checkpoint of a folder is likely to be meant, of those that are there."""
    names = ("last.ckpt", "best.ckpt") if key == "ckpt_path" else ("best.ckpt", "last.ckpt")
    for below in ("", "checkpoints/", "*/checkpoints/"):
        for name in names:
            if found := sorted(folder.glob(below + name)):
                return f"did you mean {pasted(override(key, found[0]))}?"
    return "expected a file of <run folder>/checkpoints/, and there is none in it."


def load_weights(network: torch.nn.Module, checkpoint: dict[str, Any], *, key: str) -> None:
    """Loads the network's weights of a checkpoint into a network of the same architecture.

    Args:
        network: The network to fill.
        checkpoint: What `read_checkpoint` returned.
        key: The config key that named it, for the message.

    Raises:
        SkinsegError: The architectures differ.
    """
    prefix = "network."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    own = network.state_dict()
    differing = sorted(state.keys() ^ own.keys()) + [
        name for name in state.keys() & own.keys() if state[name].shape != own[name].shape
    ]
    if differing:
        model = checkpoint["skinseg"].get("config", {}).get("model", {})
        raise SkinsegError(
            f"{key}: the checkpoint is of another architecture ({_name(model)}): {len(differing)} of "
            f"{len(own)} tensors differ, e.g. {', '.join(differing[:3])}. Use the model it was trained with."
        )
    network.load_state_dict(state)


def _name(model: dict[str, Any]) -> str:
    return f"{model.get('_target_', 'unknown')} {model.get('encoder_name', '')}".strip()
