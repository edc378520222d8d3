"""Checkpoints are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from skinseg.run.writing import replacing


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the previous checkpoint and takes its place only when all of it was written.

    What it reads is data: tensors and plain values, whatever the caller or the kind of path.
    """

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Loads a checkpoint, with PyTorch's `weights_only`."""
        return super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Saves a checkpoint.

        Raises:
            SkinsegError: It cannot be written; a previous checkpoint of that name is untouched.
        """
        # By Python's file, whose error says what PyTorch's own writer does not: that the disk is full.
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of its archive, which it cannot end then
                if isinstance(cause := error.__context__, OSError):
                    raise cause from None
                raise OSError(str(error).splitlines()[0]) from error
