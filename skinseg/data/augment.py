"""Augmentation as a named set of albumentations transforms."""

from __future__ import annotations

from collections.abc import Mapping

import albumentations as A

from skinseg.errors import SkinsegError


def compose(transforms: Mapping[str, A.BasicTransform | A.BaseCompose]) -> A.Compose | None:
    """Chains transforms in the order they are written.

    Args:
        transforms: By name, so that `augment.transforms.flip.p=0` on the command line reaches one of them.
            Each takes a uint8 image of shape (height, width, 3) and its mask and keeps their shape.

    Returns:
        The chain; `set_random_state` makes its next call repeatable. None of no transforms.

    Raises:
        SkinsegError: One is not a transform of albumentations' kind.
    """
    for name, transform in transforms.items():
        if not isinstance(transform, A.BasicTransform | A.BaseCompose):
            raise SkinsegError(
                f"augment.transforms.{name}: found {type(transform).__name__}, expected a transform of "
                "albumentations' kind. The options augment/part go with augment=light, strong or none, whose "
                "transforms change one image at a time."
            )
    if not transforms:
        return None
    return A.Compose(list(transforms.values()))
