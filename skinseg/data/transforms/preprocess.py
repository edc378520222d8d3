"""What is done to every image before a network sees it: in training, validation, test and prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping

import albumentations as A
import numpy as np

from skinseg.data.transforms.changes import probe, transformed
from skinseg.data.transforms.drawing import Picture
from skinseg.errors import SkinsegError


class Preprocess:
    """A chain of changes of the image that gives the same pixels for the same image.

    Args:
        transforms: By name, in the order in which they are applied: albumentations' transforms of the image
            alone, with p=1, that draw nothing at random.

    Raises:
        SkinsegError: One of them is not of this kind.
    """

    def __init__(self, transforms: Mapping[str, A.ImageOnlyTransform]) -> None:
        self._transforms = dict(transforms)
        for name, transform in self._transforms.items():
            _check(name, transform)

    def __call__(self, image: Picture) -> Picture:
        """Returns a preprocessed copy of a uint8 RGB image of shape (height, width, 3).

        Raises:
            SkinsegError: A transform fails on an image of this size, or makes another kind of it.
        """
        for name, transform in self._transforms.items():
            image = transformed(_key(name), transform, image)
        return image

    @property
    def fingerprint(self) -> str:
        """Names the chain: transforms in order and their arguments, and albumentations' version."""
        chain = json.dumps([A.to_dict(transform) for transform in self._transforms.values()], sort_keys=True)
        # Folders of decoded images are named after it, and our transforms in it as configurations name them.
        return chain.replace(f"{__package__}.", "skinseg.data.")


def compose(transforms: Mapping[str, A.ImageOnlyTransform]) -> Preprocess | None:
    """Chains transforms in the order they are written.

    Args:
        transforms: By name, as in `Preprocess`.

    Returns:
        The chain. None of no transforms.

    Raises:
        SkinsegError: One of them would not do the same to all images, or would not leave the mask alone.
    """
    return Preprocess(transforms) if transforms else None


def _key(name: str) -> str:
    return f"preprocess.transforms.{name}"


def _check(name: str, transform: object) -> None:
    key = _key(name)
    if not isinstance(transform, A.ImageOnlyTransform):
        raise SkinsegError(
            f"{key}: {type(transform).__name__} is no transform of albumentations' kind that changes "
            "the image alone; what moves the lesion belongs into augment."
        )
    if transform.p != 1:
        raise SkinsegError(
            f"{key}.p={transform.p}: expected 1, for all images are preprocessed alike. What changes a "
            "part of the training images belongs into augment."
        )
    image, _ = probe((96, 128))
    results = []
    for seed in range(4):
        transform.set_random_seed(seed)
        results.append(transformed(key, transform, image))
    if any(not np.array_equal(results[0], other) for other in results[1:]):
        raise SkinsegError(
            f"{key}: {type(transform).__name__} draws at random with these arguments; give it fixed ones "
            "(such as clip_limit=[2,2]), or move it into augment."
        )
