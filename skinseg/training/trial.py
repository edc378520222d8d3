"""A trainer for a few steps."""

from __future__ import annotations

from typing import Any

import lightning as L

from skinseg.callbacks.writing import WholeCheckpointIO
from skinseg.config.schema import Plain
from skinseg.errors import SkinsegError


def trial_trainer(config: Plain, why: str = "", **options: Any) -> L.Trainer:
    """Builds a trainer that leaves nothing behind.

    Args:
        config: Resolved.
        why: The setting that asks for it, for the message. Empty: `find`.
        **options: Of the trainer.

    Raises:
        SkinsegError: The run is one of several devices.
    """
    node = config["trainer"]
    if node.get("devices", 1) != 1 or node.get("num_nodes", 1) != 1:
        raise SkinsegError(
            f"{why or 'find=' + str(config['find'])}: searches on one device; run it with trainer.devices=1 "
            "first, and take what it finds."
        )
    return L.Trainer(
        accelerator=node.get("accelerator", "auto"),
        devices=1,
        precision=node.get("precision", "32-true"),
        gradient_clip_val=node.get("gradient_clip_val"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=config["run_dir"],
        plugins=[WholeCheckpointIO()],
        **{"max_epochs": 1000, **options},  # most searches end by steps
    )
