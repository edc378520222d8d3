"""What a configuration does to images on their way to the network, checked on its way out.

Networks take uint8 images at the input size and masks of 0 and 1. Anything else, such as an image that was
normalised already or a mask of 255, trains without an error and to a worse network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinseg.errors import SkinsegError

Pixels = NDArray[np.uint8]
Aspect = Literal["kind", "type", "shape", "values"]

_WHAT_TO_DO: Mapping[Aspect, str] = {
    "kind": "A transform returns arrays, the image and where it is given one the mask.",
    "type": "Normalisation and the conversion to tensors are part of the network: leave out Normalize, "
    "ToFloat, ToTensorV2 and the like.",
    "shape": "Images come at data.image_size and stay at it: give this transform that size, let it keep it "
    "(as CropAndPad does with keep_size=true), or add one that brings it back. A turn by 90 degrees "
    "keeps the size of square images alone.",
    "values": "Values that fill a mask (fill_mask) are 0 or 1 too.",
}


class Transform(Protocol):
    """A seeded augmentation of an image with its mask, such as `albumentations.Compose`."""

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        """Makes the next call repeatable."""

    def __call__(self, *, image: Pixels, mask: Pixels) -> Mapping[str, Any]:
        """Returns "image" and "mask" of the same shapes."""


@runtime_checkable
class Chain(Protocol):
    """A `Transform` that knows its parts.

    Attributes:
        parts: In the order in which they are applied, by the config key of each.
        results: What the parts that ended returned in the latest call.
    """

    parts: Mapping[str, object]
    results: Sequence[Mapping[str, Any]]


class Preprocessing(Protocol):
    """A change of every image that gives the same pixels for the same image, such as `Preprocess`."""

    @property
    def fingerprint(self) -> str:
        """Names the change and its arguments."""

    def __call__(self, image: Pixels) -> Pixels:
        """Returns a changed RGB image of the same shape (height, width, 3)."""


class BatchAugment(Protocol):
    """An augmentation of a batch, such as `DeviceAugment`."""

    def __call__(
        self, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Returns images and masks of the same shapes."""


class BatchMix(Protocol):
    """A mixing of the images of a batch, such as `Mix`."""

    def __call__(
        self, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int
    ) -> tuple[Tensor, Tensor, float | None]:
        """Returns images, masks and share, as `Mix` does."""


def probe(size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Draws what a change can be tried on: something dark on something light, not quite smooth.

    Args:
        size: Height and width in pixels.

    Returns:
        Image and mask, as `augmented` takes them.
    """
    image = np.random.default_rng(0).integers(150, 180, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    within = tuple(slice(side // 3, max(side // 3 + 1, 2 * side // 3)) for side in size)
    image[within] //= 2
    mask[within] = 1
    return image, mask


def preprocessed(preprocess: Preprocessing, image: Pixels) -> Pixels:
    """Preprocesses an image.

    Args:
        preprocess: What does it.
        image: uint8 array of shape (height, width, 3).

    Returns:
        Another one of the same shape.

    Raises:
        SkinsegError: It raised, or what it returned is not of this kind.
    """
    return _changed_image("preprocess", preprocess, lambda: preprocess(image), image)


def transformed(key: str, transform: Callable[..., Mapping[str, Any]], image: Pixels) -> Pixels:
    """Changes an image by a transform of albumentations' kind that leaves the mask alone.

    Args:
        key: The config key that named it.
        transform: Returns a mapping with "image".
        image: As in `preprocessed`.

    Returns:
        As `preprocessed`.

    Raises:
        SkinsegError: As in `preprocessed`.
    """
    return _changed_image(key, transform, lambda: transform(image=image)["image"], image)


def _changed_image(key: str, change: object, call: Callable[[], Pixels], image: Pixels) -> Pixels:
    try:
        changed = call()
    except (SkinsegError, MemoryError):
        raise
    except Exception as error:
        raise _failure(key, change, error, image) from error
    if _misfit(changed, image) is not None:
        raise _refusal(key, change, "image", changed, image)
    return changed


def augmented(transform: Transform, image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels]:
    """Augments an image with its mask.

    Args:
        transform: What does it. Of a `Chain` the part that is at fault is named.
        image: uint8 array of shape (height, width, 3).
        mask: uint8 array of shape (height, width), 0 or 1.

    Returns:
        Others of the same kind and shape.

    Raises:
        SkinsegError: It raised, or what it returned is not of this kind.
    """
    before = {"image": image, "mask": mask}
    try:
        changed = transform(image=image, mask=mask)
    except (SkinsegError, MemoryError):
        raise
    except Exception as error:
        parts = list(transform.parts.items()) if isinstance(transform, Chain) else []
        results = transform.results if isinstance(transform, Chain) else ()
        key, part = parts[len(results)] if len(results) < len(parts) else ("augment", transform)
        given = results[-1] if results else before
        raise _failure(key, part, error, given.get("image")) from error
    for what, like in before.items():
        found = _part(changed, what)
        aspect = _misfit(found, like, mask=what == "mask")
        if aspect is not None:
            key, part, made = _at_fault(transform, what, like, aspect, found)
            raise _refusal(key, part, what, made, like)
    return changed["image"], changed["mask"]


def augmented_batch(
    augment: BatchAugment, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Augments a batch; see `DeviceAugment`.

    Raises:
        SkinsegError: The result has another type or shape, or on the CPU a mask of other values than 0 and 1.
            On a GPU to look at values would make it wait.
    """
    found = augment(images, masks, rows=rows, epoch=epoch, seed=seed)
    _check_batch("augment", augment, found, images, masks)
    return found


def mixed_batch(
    mix: BatchMix, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int
) -> tuple[Tensor, Tensor, float | None]:
    """Mixes a batch; see `Mix`.

    Raises:
        SkinsegError: As of `augmented_batch`; or the share is not in 0 to 1.
    """
    found = mix(images, masks, rows=rows, epoch=epoch, seed=seed)
    share = found[2]
    if share is not None and not 0 <= share <= 1:
        raise SkinsegError(f"mix: {type(mix).__name__} returns the share {share}, expected 0 to 1.")
    # Of a blend the masks of both images.
    expected = masks if share is None else masks.expand(-1, 2, -1, -1)
    _check_batch("mix", mix, found[:2], images, expected)
    return found


def _check_batch(
    key: str, change: object, found: tuple[Tensor, Tensor], images: Tensor, masks: Tensor
) -> None:
    for what, changed, like in (("image", found[0], images), ("mask", found[1], masks)):
        if _misfit(changed, like, mask=what == "mask") is not None:
            raise _refusal(key, change, what, changed, like)


def _misfit(found: object, like: Pixels | Tensor, *, mask: bool = False) -> Aspect | None:
    """Says in what a result is not like what it was made of: an array or tensor of uint8 and its shape.

    Args:
        found: The result.
        like: What it was made of.
        mask: Whether it holds nothing but 0 and 1.
    """
    kind = Tensor if isinstance(like, Tensor) else np.ndarray
    if not isinstance(found, np.ndarray | Tensor):
        return "kind"
    if not isinstance(found, kind) or found.dtype != like.dtype:
        return "type"
    if found.shape != like.shape:
        return "shape"
    # Reading a GPU's numbers would make the CPU wait for all work that was given to it.
    is_near = not isinstance(found, Tensor) or found.device.type == "cpu"
    return "values" if mask and is_near and found.max() > 1 else None


def _part(result: object, what: str) -> object:
    return result.get(what) if isinstance(result, Mapping) else None


def _at_fault(
    transform: object, what: str, like: Pixels, aspect: Aspect, found: object
) -> tuple[str, object, object]:
    """Returns key and part of a chain from which on a result was not as it has to be, and what it made."""
    fault: tuple[str, object, object] = ("augment", transform, found)
    if isinstance(transform, Chain):
        steps = zip(transform.parts.items(), transform.results, strict=False)
        for (key, part), result in reversed(list(steps)):
            made = _part(result, what)
            if _misfit(made, like, mask=what == "mask") != aspect:
                break
            fault = (key, part, made)
    return fault


def _refusal(key: str, change: object, what: str, found: object, like: Pixels | Tensor) -> SkinsegError:
    aspect = _misfit(found, like, mask=what == "mask")
    assert aspect is not None
    values = "0 (skin) and 1 (lesion)" if what == "mask" else "0 to 255"
    kind = "torch.uint8" if isinstance(like, Tensor) else "uint8"
    return SkinsegError(
        f"{key}: {type(change).__name__} makes of the {what} {_described(found)}; expected {kind} of shape "
        f"{tuple(like.shape)}, values {values}. {_WHAT_TO_DO[aspect]}"
    )


def _failure(key: str, change: object, error: Exception, image: object) -> SkinsegError:
    last = extract_tb(error.__traceback__)[-1]
    return SkinsegError(
        f"{key}: {type(change).__name__} failed on an image, {_described(image)}: {type(error).__name__}: "
        f"{error} ({Path(last.filename).name}, line {last.lineno}). A transform gets an image, uint8 of 0 to "
        "255, perhaps its mask, and nothing else: leave out what needs boxes, key points, metadata, a volume "
        "or an image of another kind or size, or change its arguments."
    )


def _described(found: object) -> str:
    if found is None:
        return "nothing"
    if not isinstance(found, np.ndarray | Tensor):
        return f"a {type(found).__name__}"
    tensor = found if isinstance(found, Tensor) else torch.from_numpy(np.ascontiguousarray(found))
    text = f"{found.dtype} of shape {tuple(found.shape)}"
    if not tensor.numel():
        return text
    low, high = tensor.min().item(), tensor.max().item()
    return f"{text}, values {low:.4g} to {high:.4g}" if low == low else f"{text}, with NaN"
