"""Draw what the network will see: images with outlines, before and after augmentation.

python -m skinseg.preview data=ham10000 augment=strong data.root=<folder>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from skinseg.config.check import check
from skinseg.config.command import Command
from skinseg.config.schema import Node, Plain
from skinseg.errors import SkinsegError


@dataclass
class PreviewConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the picture is written to.
        seed: Chooses the images, and is the seed that an experiment would augment with.
        images: Number of training images that are shown.
        draws: How many augmented versions of each: those of as many epochs of an experiment.
        epoch: The first of these epochs, counted from 1 as in the progress of a run (metrics.csv counts from
            0).
        data: The data set, as an experiment would read it.
        preprocess: What is done to every image before; the input is shown with it.
        augment: Augmentation of training images. Without any transforms nothing is drawn beside the input.
    """

    name: str
    run_dir: str
    seed: int
    images: int
    draws: int
    epoch: int
    data: Node
    preprocess: Node
    augment: Node


def _checked(config: Plain) -> Plain:
    config = check(config, PreviewConfig)
    for key, least in (("images", 1), ("draws", 1), ("epoch", 1)):
        if config[key] < least:
            raise SkinsegError(f"{key}={config[key]}: expected {least} or more.")
    return config


_COMMAND = Command("preview", PreviewConfig, "skinseg.recipes.preview", checked=_checked)
run, main = _COMMAND.run, _COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
