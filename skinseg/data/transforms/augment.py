"""Augmentation as a named set of albumentations transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import albumentations as A

from skinseg.errors import SkinsegError


class Augment(A.Compose):  # type: ignore[misc]  # albumentations has no types
    """A chain that remembers what each part made, so that a message can name the one at fault.

    Args:
        transforms: By name, as in `compose`.
    """

    def __init__(self, transforms: Mapping[str, A.BasicTransform | A.BaseCompose]) -> None:
        super().__init__(list(transforms.values()))
        self.parts = {f"augment.transforms.{name}": transform for name, transform in transforms.items()}
        self.results: list[Mapping[str, Any]] = []

    def __call__(self, *args: Any, **data: Any) -> Mapping[str, Any]:
        """Returns "image", and "mask" where there is one, after all parts."""
        self.results.clear()
        changed: Mapping[str, Any] = super().__call__(*args, **data)
        return changed

    def check_data_post_transform(self, data: dict[str, Any]) -> dict[str, Any]:
        """Takes note of what a part made; called by albumentations after each."""
        self.results.append(data)
        noted: dict[str, Any] = super().check_data_post_transform(data)
        return noted


def compose(transforms: Mapping[str, A.BasicTransform | A.BaseCompose]) -> Augment | None:
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
    return Augment(transforms)
