"""Pictures with masks that a viewer can switch on and off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray

from skinseg.pictures import Panel
from skinseg.tracking.logger import runs

CLASSES = {0: "skin", 1: "lesion"}


def log_mask_images(loggers: Iterable[Logger], key: str, panels: Sequence[Panel], step: int) -> None:
    """Logs photographs whose masks can be switched on and off.

    Args:
        loggers: Those of Weights & Biases among them are used.
        key: Metric key.
        panels: The photographs with their masks.
        step: The trainer's global step.
    """
    for run in runs(loggers):
        import wandb

        shapes = [panel.truth.shape for panel in panels]
        # Side by side they have to be of one size; photographs of several sources are not.
        frame = (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes))
        images = [
            wandb.Image(
                _padded(panel.image, frame),
                caption=panel.caption,
                masks={
                    name: {"mask_data": _padded(mask.astype(np.uint8), frame), "class_labels": CLASSES}
                    for name, mask in (("truth", panel.truth), ("prediction", panel.predicted))
                },
            )
            for panel in panels
        ]
        run.log({key: images, "trainer/global_step": step})


def _padded(picture: NDArray[np.uint8], frame: tuple[int, int]) -> NDArray[np.uint8]:
    """Adds black on the right and below up to a height and width."""
    around = [(0, frame[0] - picture.shape[0]), (0, frame[1] - picture.shape[1]), (0, 0)][: picture.ndim]
    return np.pad(picture, around)
