"""Augmentation of a whole batch on the device that trains on it, by the distributions of albumentations.

`DeviceAugment` does in a few large operations what `conf/augment/light.yaml` and `strong.yaml` chain image by
image. Each transform follows albumentations 2.0.8: the same ranges and independent draws, the same borders
and kernels, and values cut to whole numbers where it cuts them; tests compare single transforms with fixed
parameters and the distributions of both. What differs: affine and elastic transform are one bilinear sampling
in place of two, and the mask is that sampling cut at half in place of the nearest pixel.

kornia 0.9 has transforms like these, and they are not used for two reasons. It draws a whole batch from one
generator, and the order of the colour changes once for all of it, so that an image's changes would depend on
its batch, on the number of ranks and on a resume. And it is slower: on one CPU thread it took about 4 times
as long for `light` and 8 times for `strong` (benchmarks/README.md).

The uniform numbers behind all parameters come from the CPU. The noise of `Elastic` and `GaussianNoise` comes
from the device's own generator, seeded by them, and so differs between a CPU and a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skinseg.counting import counted
from skinseg.data.transforms.batch_transforms import (
    Affine,
    Array,
    BatchTransform,
    BrightnessContrast,
    CoarseDropout,
    ColorJitter,
    Elastic,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    HorizontalFlip,
    VerticalFlip,
    within,
)
from skinseg.data.transforms.kernels import (
    add_noise,
    blurred_colours,
    gamma_corrected,
    mirrored_at_border,
    mix_colours,
    normal,
    pad,
    place_grid,
    smooth,
    turn_hue,
)
from skinseg.data.transforms.parcel import Item, Parcel, on_cpu, write
from skinseg.errors import SkinsegError

Rows = NDArray[np.int64]
T = TypeVar("T", bound="BatchTransform")

# Side of the kernel of albumentations' ElasticTransform(approximate=True), in pixels.
_ELASTIC_TAPS = 17
_CONTRAST, _SATURATION, _HUE = 1, 2, 3
# On a CPU so many images at a time stay in the cache; measured beside 1, 2, 8 and 16.
_CPU_IMAGES = 4


_KINDS: tuple[type[BatchTransform], ...] = (
    HorizontalFlip,
    VerticalFlip,
    Affine,
    Elastic,
    BrightnessContrast,
    ColorJitter,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    CoarseDropout,
)
"""In the order in which they are applied."""

_NAMES = ", ".join(kind.__name__ for kind in _KINDS)

_STARTS = dict(zip(_KINDS, np.cumsum([0, *(1 + kind.numbers for kind in _KINDS)]), strict=False))
"""Where each kind's uniform numbers start in an image's."""


class DeviceAugment:
    """Augments batches of images with their masks, wherever they are.

    What happens to an image is drawn from (seed, epoch, row) alone, by numbers of its own for each kind of
    transform: it does not depend on the batch's other images, on ranks or on a resume, and leaving one
    transform out does not change what the others draw.

    Args:
        transforms: By name, at most one of each kind, in the order in which they are applied: flips, affine,
            elastic, brightness and contrast, colour jitter, gamma, blur, noise, dropout. None: left out.

    Raises:
        SkinsegError: Two transforms of one kind, one of another kind, or another order.
    """

    def __init__(self, transforms: Mapping[str, BatchTransform | None]) -> None:
        self.transforms = {name: one for name, one in transforms.items() if one is not None}
        places: dict[int, str] = {}
        for name, one in self.transforms.items():
            if type(one) not in _KINDS:
                raise SkinsegError(
                    f"augment.transforms.{name}: {type(one).__module__}.{type(one).__name__} does not work "
                    f"on batches. Take one of skinseg.data.device_augment ({_NAMES}), or augment=light or "
                    "augment=strong, which chain any of albumentations'."
                )
            place = _KINDS.index(type(one))
            if place in places:
                raise SkinsegError(
                    f"augment.transforms.{name}: a second {type(one).__name__} beside {places[place]}; "
                    "leave one out."
                )
            if places and place < max(places):
                raise SkinsegError(
                    f"augment.transforms.{name}: comes after {places[max(places)]}, but is applied "
                    f"before it. Write them in this order: {_NAMES}."
                )
            places[place] = name
        self._of_kind = {kind: kind(p=0) for kind in _KINDS}
        self._of_kind |= {type(one): one for one in self.transforms.values()}

    def __call__(
        self, images: Tensor, masks: Tensor, *, rows: Sequence[int], epoch: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Augments a batch.

        Args:
            images: uint8, shape (images, 3, height, width), RGB.
            masks: uint8, shape (images, 1, height, width), 0 or 1, on the same device.
            rows: Each image's row of the data set. Not a tensor on a GPU: reading it would wait for all work
                that the GPU has still to do.
            epoch: 0 or above.
            seed: 0 or above.

        Returns:
            New images and masks, as they came in; what no transform was drawn for is equal bit by bit.

        Raises:
            SkinsegError: Shapes, types or numbers are not as said above.
        """
        _refuse(images, masks, rows, epoch, seed)
        images, masks = images.clone(), masks.clone()
        if images.numel() == 0 or not self.transforms:
            return images, masks
        count = sum(1 + kind.numbers for kind in _KINDS)
        numbers = np.stack(
            [np.random.default_rng(np.random.SeedSequence([seed, epoch, row])).random(count) for row in rows]
        )
        step = _CPU_IMAGES if on_cpu(images) else len(images)
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            self._change(images[part], masks[part], numbers[part])
        return images, masks

    def _change(self, images: Tensor, masks: Tensor, numbers: Array) -> None:
        """Changes images and masks in place."""
        draws = _Draws(self._of_kind, numbers)
        parcel = Parcel()
        generator = torch.Generator(images.device)
        height, width = images.shape[-2:]
        pose = _Pose(draws, parcel, height, width)
        rows, steps = _colour_steps(draws, parcel, generator)
        parcel.send(images.device)
        pose.apply(images, masks, generator)
        if rows.count:
            colours = images.index_select(0, rows()).float()
            for step in steps:
                colours = step.apply(colours)
            write(images, rows, colours)
        dropout, chosen, own = draws.of(CoarseDropout)
        for image, values in zip(chosen, own, strict=True):
            for ys, xs in dropout.holes(values, height, width):
                images[image, :, ys, xs] = dropout.fill


def _refuse(images: Tensor, masks: Tensor, rows: Sequence[int], epoch: int, seed: int) -> None:
    """Raises a SkinsegError for a batch that is not as it should be."""
    for name, tensor, channels in (("images", images, 3), ("masks", masks, 1)):
        shape = tuple(tensor.shape)
        if tensor.dtype != torch.uint8 or len(shape) != 4 or shape[1] != channels:
            raise SkinsegError(
                f"DeviceAugment: {name}: found {tensor.dtype} of shape {shape}, expected torch.uint8 of "
                f"shape (images, {channels}, height, width)."
            )
    if images.shape[0] != masks.shape[0] or images.shape[2:] != masks.shape[2:]:
        raise SkinsegError(
            f"DeviceAugment: images of shape {tuple(images.shape)} and masks of shape {tuple(masks.shape)} "
            "do not belong together; expected the same number, height and width."
        )
    if images.device != masks.device:
        raise SkinsegError(
            f"DeviceAugment: images are on {images.device}, masks on {masks.device}; move both to one device."
        )
    if isinstance(rows, Tensor):
        raise SkinsegError("DeviceAugment: rows is a tensor; hand over rows.tolist(), taken on the CPU.")
    if len(rows) != len(images):
        raise SkinsegError(
            f"DeviceAugment: {counted(len(rows), 'row')} for {counted(len(images), 'image')}; expected one "
            "for each."
        )
    for name, value in (("epoch", epoch), ("seed", seed), *(("rows", row) for row in rows)):
        if value < 0:
            raise SkinsegError(f"DeviceAugment: {name}: found {value}, expected 0 or more.")


def _seed(number: float) -> int:
    """Returns the whole number behind a uniform one: a multiple of 2 to the power of -53."""
    return int(number * 2**53)


class _Draws:
    """Which images each transform changes, and the uniform numbers it changes them by."""

    def __init__(self, of_kind: Mapping[type[BatchTransform], BatchTransform], numbers: Array) -> None:
        self._of_kind = of_kind
        self._numbers = numbers

    def of(self, kind: type[T]) -> tuple[T, Rows, Array]:
        """Returns the transform, the images that it changes, and their numbers."""
        one = self._of_kind[kind]
        assert isinstance(one, kind)
        start = _STARTS[kind]
        rows = np.flatnonzero(self._numbers[:, start] < one.p)
        return one, rows, self._numbers[rows, start + 1 : start + 1 + kind.numbers]


class _Pose:
    """Flips, which move bytes, and affine and elastic transform of a batch as one sampling."""

    def __init__(self, draws: _Draws, parcel: Parcel, height: int, width: int) -> None:
        self._flips = [
            (axis, parcel.add(draws.of(kind)[1])) for axis, kind in ((-1, HorizontalFlip), (-2, VerticalFlip))
        ]
        affine, moved, numbers = draws.of(Affine)
        self._elastic, bent, elastic_numbers = draws.of(Elastic)
        chosen = np.union1d(moved, bent)
        forward = np.tile(np.eye(3), (len(chosen), 1, 1))
        forward[np.searchsorted(chosen, moved)] = affine.matrices(numbers, height, width)
        # A grid counts from -1 to 1 between the centres of the outer pixels.
        half = np.array([max(width - 1, 1) / 2, max(height - 1, 1) / 2, 1])
        backward = np.linalg.inv(forward) / half[:, None] * half
        self._rows = parcel.add(chosen)
        self._theta = parcel.add(backward[:, :2])
        self._bent = parcel.add(np.searchsorted(chosen, bent))
        distance = np.arange(_ELASTIC_TAPS) - _ELASTIC_TAPS // 2
        taps = np.exp(-0.5 * (distance / self._elastic.sigma) ** 2)
        self._taps = parcel.add(taps[None] / taps.sum())
        self._seeds = [_seed(number) for number in elastic_numbers[:, 0]]

    def apply(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> None:
        """Changes images and masks in place."""
        for axis, flipped in self._flips:
            if flipped.count:
                for tensor in (images, masks):
                    write(tensor, flipped, tensor.index_select(0, flipped()).flip(axis))
        if not self._rows.count:
            return
        rows = self._rows()
        both = torch.cat([images.index_select(0, rows), masks.index_select(0, rows)], dim=1).float()
        grid = self._grid(both.shape[-2], both.shape[-1], generator)
        # Mirrored at the centres of the outer pixels, which is BORDER_REFLECT_101.
        both = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        # Becoming whole numbers cuts: this rounds the image, and sets the mask where at least half is lesion.
        both.add_(0.5)
        write(images, self._rows, both[:, :3])
        write(masks, self._rows, both[:, 3:])

    def _grid(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Returns where each pixel comes from, shape (images, height, width, 2)."""
        theta = self._theta()
        x, y = (
            torch.linspace(-1, 1, size, device=theta.device) if size > 1 else theta.new_zeros(1)
            for size in (width, height)
        )
        y = y[:, None]
        grid = torch.empty(len(theta), height, width, 2, device=theta.device)
        place_grid(grid, theta, x, y)
        if self._seeds:
            shape = (len(self._seeds), 2, height, width)
            field = normal(shape, self._seeds, generator)
            field /= field.abs().amax(dim=(1, 2, 3), keepdim=True)
            field = smooth(pad(field, _ELASTIC_TAPS // 2, "replicate"), self._taps().expand(len(field), -1))
            field *= 2 * self._elastic.alpha
            # What this transform would find beyond the border is mirrored, before the affine one.
            x = mirrored_at_border(field[:, 0] / max(width - 1, 1) + x)
            y = mirrored_at_border(field[:, 1] / max(height - 1, 1) + y)
            part = torch.empty(len(field), height, width, 2, device=theta.device)
            place_grid(part, theta.index_select(0, self._bent()), x, y)
            write(grid, self._bent, part)
        return grid


@dataclass(frozen=True)
class _Step:
    """One change of colours.

    Attributes:
        change: Takes float32 images with whole values of 0 to 255, shape (images, 3, height, width), and
            parameters, shape (images, ...); returns the same, and may write into what it got.
        rows: Which images of those whose colours change.
        parameters: Theirs.
    """

    change: Callable[[Tensor, Tensor], Tensor]
    rows: Item
    parameters: Item

    def apply(self, colours: Tensor) -> Tensor:
        if self.rows.count == len(colours):
            return self.change(colours, self.parameters())
        part = self.change(colours.index_select(0, self.rows()), self.parameters())
        write(colours, self.rows, part)
        return colours


def _colour_steps(draws: _Draws, parcel: Parcel, generator: torch.Generator) -> tuple[Item, list[_Step]]:
    """Returns the images whose colours change, and how."""
    light, lit, light_numbers = draws.of(BrightnessContrast)
    jitter, tinted, jitter_numbers = draws.of(ColorJitter)
    gamma, bowed, gamma_numbers = draws.of(Gamma)
    blur, blurred, blur_numbers = draws.of(GaussianBlur)
    noise, noisy, noise_numbers = draws.of(GaussianNoise)
    chosen = np.unique(np.concatenate([lit, tinted, bowed, blurred, noisy]))
    if not len(chosen):
        return Item(chosen), []
    steps: list[_Step] = []

    def add(change: Callable[[Tensor, Tensor], Tensor], rows: Rows, parameters: Array) -> None:
        if len(rows):
            at = parcel.add(np.searchsorted(chosen, rows))
            steps.append(_Step(change, at, parcel.add(parameters)))

    mix = np.zeros((len(lit), 4))
    mix[:, 0] = 1 + within(light_numbers[:, 0], light.contrast_limit)
    mix[:, 3] = 255 * within(light_numbers[:, 1], light.brightness_limit)
    add(partial(mix_colours, grey=False), lit, mix)
    # In turn the first, second, third and fourth change of each image; one step for all that are linear.
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    factors = np.stack([within(jitter_numbers[:, i], one) for i, one in enumerate(ranges)], axis=1)
    for kinds in np.argsort(jitter_numbers[:, 4:], axis=1).T:
        factor = factors[np.arange(len(tinted)), kinds]
        mix = np.zeros((len(tinted), 4))
        mix[:, 0] = factor
        mix[kinds == _CONTRAST, 2] = (1 - factor)[kinds == _CONTRAST]
        mix[kinds == _SATURATION, 1] = (1 - factor)[kinds == _SATURATION]
        mix[kinds == _SATURATION, 3] = 0.5
        linear = kinds != _HUE
        add(partial(mix_colours, grey=bool(mix[linear, 1:3].any())), tinted[linear], mix[linear])
        turned = ~linear & (factor != 0)
        add(turn_hue, tinted[turned], factor[turned])
    add(gamma_corrected, bowed, within(gamma_numbers[:, 0], gamma.gamma_limit) / 100)
    add(blurred_colours, blurred, blur.taps(blur_numbers))
    seeds = [_seed(number) for number in noise_numbers[:, 1]]
    add(
        partial(add_noise, seeds=seeds, generator=generator),
        noisy,
        255 * within(noise_numbers[:, 0], noise.std_range),
    )
    return parcel.add(chosen), steps
