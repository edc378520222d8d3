"""Augmentation as a named set of albumentations transforms."""

from __future__ import annotations

from collections.abc import Mapping

import albumentations as A


def compose(transforms: Mapping[str, A.BasicTransform | A.BaseCompose]) -> A.Compose | None:
    """Chains transforms in the order they are written.

    Args:
        transforms: By name, so that `augment.transforms.flip.p=0` on the command line reaches one of them.
            Each takes a uint8 image of shape (height, width, 3) and its mask and keeps their shape.

    Returns:
        The chain; `set_random_state` makes its next call repeatable. None of no transforms.
    """
    if not transforms:
        return None
    return A.Compose(list(transforms.values()))
