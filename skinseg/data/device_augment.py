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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skinseg.counting import counted
from skinseg.errors import SkinsegError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
T = TypeVar("T", bound="BatchTransform")

# Weights of red, green and blue in OpenCV's COLOR_RGB2GRAY (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)
# Side of the kernel of albumentations' ElasticTransform(approximate=True), in pixels.
_ELASTIC_TAPS = 17
_CONTRAST, _SATURATION, _HUE = 1, 2, 3
# On a CPU so many images at a time stay in the cache; measured beside 1, 2, 8 and 16.
_CPU_IMAGES = 4


@dataclass(frozen=True)
class BatchTransform:
    """What all transforms share.

    Args:
        p: Probability that an image is changed.

    Raises:
        SkinsegError: A value is out of its range, or a range is not two increasing numbers.
    """

    p: float = 0.5

    numbers: ClassVar[int] = 0
    """How many uniform numbers a draw takes, beside the one that decides whether it is applied."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Least and greatest value of each field that is a range."""

    def __post_init__(self) -> None:
        self._check("p", (self.p,), (0, 1))
        for field in fields(self):
            if field.name in self.bounds:
                pair = getattr(self, field.name)
                if not isinstance(pair, Sequence) or len(pair) != 2 or pair[0] > pair[1]:
                    raise SkinsegError(
                        f"augment: {type(self).__name__}.{field.name}={pair}: expected two increasing "
                        "numbers, such as [-30, 30]."
                    )
                self._check(field.name, pair, self.bounds[field.name])
                object.__setattr__(self, field.name, tuple(pair))

    def _check(self, name: str, values: Sequence[float], bounds: tuple[float, float]) -> None:
        for value in values:
            if not bounds[0] <= value <= bounds[1]:
                raise SkinsegError(
                    f"augment: {type(self).__name__}.{name}: found {value}, expected {bounds[0]:g} to "
                    f"{bounds[1]:g}."
                )


@dataclass(frozen=True)
class HorizontalFlip(BatchTransform):
    """Swaps left and right."""


@dataclass(frozen=True)
class VerticalFlip(BatchTransform):
    """Swaps top and bottom."""


@dataclass(frozen=True)
class Affine(BatchTransform):
    """Scale, then rotation, shear and shift about the centre; beyond the border the image is mirrored.

    Args:
        rotate: Range of the angle, in degrees.
        scale: Range of the factor, drawn for the width and the height apart.
        translate_percent: Range of the shift as a share of the width and of the height, drawn apart, cut to
            whole pixels.
        shear: Range of the angle, in degrees, drawn for x and y apart.
        p: Probability that an image is changed.
    """

    rotate: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    translate_percent: tuple[float, float] = (0.0, 0.0)
    shear: tuple[float, float] = (0.0, 0.0)

    numbers: ClassVar[int] = 7
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "rotate": (-360, 360),
        "scale": (0.01, 100),
        "translate_percent": (-1, 1),
        "shear": (-40, 40),  # at 45 both ways nothing would be left of an area
    }

    def matrices(self, numbers: Array, height: int, width: int) -> Array:
        """Returns where the pixels go, about the image's centre.

        Args:
            numbers: Shape (images, 7), uniform in 0 to 1.
            height: Of the images, in pixels.
            width: Of the images, in pixels.

        Returns:
            Shape (images, 3, 3), in pixels, x before y.
        """
        angle = np.deg2rad(_within(numbers[:, 0], self.rotate))
        scale = _within(numbers[:, 1:3], self.scale)
        shift = np.trunc(_within(numbers[:, 3:5], self.translate_percent) * (width, height))
        shear = -np.tan(np.deg2rad(_within(numbers[:, 5:7], self.shear)))
        result = np.tile(np.eye(3), (len(numbers), 1, 1))
        rotation, shearing = result[:, :2, :2].copy(), result[:, :2, :2].copy()
        rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(angle)
        rotation[:, 0, 1], rotation[:, 1, 0] = np.sin(angle), -np.sin(angle)
        shearing[:, 0, 1], shearing[:, 1, 0] = shear[:, 0], shear[:, 1]
        result[:, :2, :2] = shearing @ rotation * scale[:, None, :]
        result[:, :2, 2] = shift
        return result


@dataclass(frozen=True)
class Elastic(BatchTransform):
    """Shifts each pixel by Gaussian noise that was divided by its largest value and smoothed.

    Args:
        alpha: Factor of the smoothed noise, in pixels.
        sigma: Standard deviation of the smoothing, in pixels, by a kernel of 17 pixels.
        p: Probability that an image is changed.
    """

    alpha: float = 1.0
    sigma: float = 6.0

    numbers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("alpha", (self.alpha,), (0, 1e4))
        self._check("sigma", (self.sigma,), (1, 1e4))


@dataclass(frozen=True)
class BrightnessContrast(BatchTransform):
    """Multiplies by 1 plus the contrast's draw and adds the brightness's draw.

    Args:
        brightness_limit: Range of what is added, as a share of 255.
        contrast_limit: Range of what the factor is above 1.
        p: Probability that an image is changed.
    """

    brightness_limit: tuple[float, float] = (-0.2, 0.2)
    contrast_limit: tuple[float, float] = (-0.2, 0.2)

    numbers: ClassVar[int] = 2
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "brightness_limit": (-1, 1),
        "contrast_limit": (-1, 10),
    }


@dataclass(frozen=True)
class ColorJitter(BatchTransform):
    """Changes brightness, contrast, saturation and hue, in an order drawn for each image.

    Args:
        brightness: Range of the factor of all values.
        contrast: Range of the factor of the distance to the image's mean grey.
        saturation: Range of the factor of the distance to the pixel's grey.
        hue: Range of the shift of the hue, in turns.
        p: Probability that an image is changed.
    """

    brightness: tuple[float, float] = (0.8, 1.2)
    contrast: tuple[float, float] = (0.8, 1.2)
    saturation: tuple[float, float] = (0.8, 1.2)
    hue: tuple[float, float] = (-0.5, 0.5)

    numbers: ClassVar[int] = 8
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "brightness": (0, 10),
        "contrast": (0, 10),
        "saturation": (0, 10),
        "hue": (-0.5, 0.5),
    }


@dataclass(frozen=True)
class Gamma(BatchTransform):
    """Raises values, as shares of 255, to a power.

    Args:
        gamma_limit: Range of the power, in percent.
        p: Probability that an image is changed.
    """

    gamma_limit: tuple[float, float] = (80.0, 120.0)

    numbers: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma_limit": (1, 10_000)}


@dataclass(frozen=True)
class GaussianBlur(BatchTransform):
    """Blurs; beyond the border the image is mirrored.

    Args:
        sigma_limit: Range of the standard deviation, in pixels; the kernel reaches 3.5 of them.
        p: Probability that an image is changed.
    """

    sigma_limit: tuple[float, float] = (0.5, 3.0)

    numbers: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"sigma_limit": (0.01, 100)}

    def taps(self, numbers: Array) -> Array:
        """Returns the kernels of images, shape (images, taps), each of sum 1."""
        sigma = _within(numbers[:, :1], self.sigma_limit)
        reach = int(sigma.max(initial=0) * 3.5)
        distance = np.abs(np.arange(-reach, reach + 1))
        taps = np.where(distance <= np.floor(sigma * 3.5), np.exp(-0.5 * (distance / sigma) ** 2), 0)
        return np.asarray(taps / taps.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class GaussianNoise(BatchTransform):
    """Adds Gaussian noise, drawn for each pixel and channel.

    Args:
        std_range: Range of the noise's standard deviation, as a share of 255.
        p: Probability that an image is changed.
    """

    std_range: tuple[float, float] = (0.01, 0.05)

    numbers: ClassVar[int] = 2
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"std_range": (0, 1)}


@dataclass(frozen=True)
class CoarseDropout(BatchTransform):
    """Paints rectangles over the image, and not over the mask: the lesion is still there below.

    Args:
        num_holes_range: Range of the number of rectangles, at most 32.
        hole_height_range: Range of their heights, as a share of the image's.
        hole_width_range: Range of their widths, as a share of the image's.
        fill: Their value, 0 to 255.
        p: Probability that an image is changed.
    """

    num_holes_range: tuple[int, int] = (1, 2)
    hole_height_range: tuple[float, float] = (0.1, 0.2)
    hole_width_range: tuple[float, float] = (0.1, 0.2)
    fill: int = 0

    numbers: ClassVar[int] = 1 + 4 * 32
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "num_holes_range": (1, 32),
        "hole_height_range": (0, 1),
        "hole_width_range": (0, 1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("fill", (self.fill,), (0, 255))
        object.__setattr__(self, "num_holes_range", tuple(map(int, self.num_holes_range)))

    def holes(self, numbers: Array, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Draws one image's rectangles.

        Args:
            numbers: Shape (129,), uniform in 0 to 1.
            height: Of the image, in pixels.
            width: Of the image, in pixels.

        Yields:
            Their rows and columns.
        """
        least, most = self.num_holes_range
        for high, wide, top, left in numbers[1:].reshape(-1, 4)[
            : least + int(numbers[0] * (most - least + 1))
        ]:
            rows = int(height * _within(high, self.hole_height_range))
            columns = int(width * _within(wide, self.hole_width_range))
            y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
            yield slice(y, y + rows), slice(x, x + columns)


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
        step = _CPU_IMAGES if _on_cpu(images) else len(images)
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            self._change(images[part], masks[part], numbers[part])
        return images, masks

    def _change(self, images: Tensor, masks: Tensor, numbers: Array) -> None:
        """Changes images and masks in place."""
        draws = _Draws(self._of_kind, numbers)
        parcel = _Parcel()
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
            _write(images, rows, colours)
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


def _within(numbers: Array, bounds: tuple[float, float]) -> Array:
    return bounds[0] + numbers * (bounds[1] - bounds[0])


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


class _Item:
    """An array that travels to the device in a parcel; called, it is there as a tensor."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.tensor: Tensor | None = None

    def __call__(self) -> Tensor:
        assert self.tensor is not None
        return self.tensor

    @property
    def count(self) -> int:
        return len(self.values)


class _Parcel:
    """All parameters of a batch, sent to the device in one copy."""

    def __init__(self) -> None:
        self._items: list[_Item] = []

    def add(self, values: NDArray[Any]) -> _Item:
        self._items.append(_Item(values))
        return self._items[-1]

    def send(self, device: torch.device) -> None:
        if not self._items:
            return
        flat = np.concatenate([item.values.ravel() for item in self._items]).astype(np.float32)
        sent = torch.from_numpy(flat)
        if device.type == "cuda":  # from memory that is not pinned the copy would wait
            sent = sent.pin_memory()
        sent = sent.to(device, non_blocking=device.type == "cuda")
        sizes = [item.values.size for item in self._items]
        for item, part in zip(self._items, torch.split(sent, sizes), strict=True):
            # Whole numbers up to 2 to the power of 24 are exact in float32.
            whole = np.issubdtype(item.values.dtype, np.integer)
            item.tensor = (part.long() if whole else part).view(item.values.shape)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _write(target: Tensor, rows: _Item, values: Tensor) -> None:
    """Puts values into rows of the target, cut to its type."""
    if _on_cpu(target):  # index_copy_ took three times as long there
        for row, value in zip(rows.values, values, strict=True):
            target[row].copy_(value)
    else:
        target.index_copy_(0, rows(), values.to(target.dtype))


class _Pose:
    """Flips, which move bytes, and affine and elastic transform of a batch as one sampling."""

    def __init__(self, draws: _Draws, parcel: _Parcel, height: int, width: int) -> None:
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
                    _write(tensor, flipped, tensor.index_select(0, flipped()).flip(axis))
        if not self._rows.count:
            return
        rows = self._rows()
        both = torch.cat([images.index_select(0, rows), masks.index_select(0, rows)], dim=1).float()
        grid = self._grid(both.shape[-2], both.shape[-1], generator)
        # Mirrored at the centres of the outer pixels, which is BORDER_REFLECT_101.
        both = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        # Becoming whole numbers cuts: this rounds the image, and sets the mask where at least half is lesion.
        both.add_(0.5)
        _write(images, self._rows, both[:, :3])
        _write(masks, self._rows, both[:, 3:])

    def _grid(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Returns where each pixel comes from, shape (images, height, width, 2)."""
        theta = self._theta()
        x, y = (
            torch.linspace(-1, 1, size, device=theta.device) if size > 1 else theta.new_zeros(1)
            for size in (width, height)
        )
        y = y[:, None]
        grid = torch.empty(len(theta), height, width, 2, device=theta.device)
        _place(grid, theta, x, y)
        if self._seeds:
            shape = (len(self._seeds), 2, height, width)
            field = _normal(shape, self._seeds, generator)
            field /= field.abs().amax(dim=(1, 2, 3), keepdim=True)
            field = _smooth(_pad(field, _ELASTIC_TAPS // 2, "replicate"), self._taps().expand(len(field), -1))
            field *= 2 * self._elastic.alpha
            # What this transform would find beyond the border is mirrored, before the affine one.
            x = _mirrored(field[:, 0] / max(width - 1, 1) + x)
            y = _mirrored(field[:, 1] / max(height - 1, 1) + y)
            part = torch.empty(len(field), height, width, 2, device=theta.device)
            _place(part, theta.index_select(0, self._bent()), x, y)
            _write(grid, self._bent, part)
        return grid


def _place(grid: Tensor, theta: Tensor, x: Tensor, y: Tensor) -> None:
    """Writes into the grid where theta, shape (images, 2, 3), takes x and y."""
    for axis in (0, 1):
        of_x, of_y, shift = theta[:, axis, :, None, None].unbind(1)
        torch.add(x * of_x, y * of_y + shift, out=grid[..., axis])


def _mirrored(place: Tensor) -> Tensor:
    """Mirrors places at -1 and 1, those between -3 and 3 exactly."""
    return place.add_(1).abs_().sub_(2).abs_().neg_().add_(1)


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
    rows: _Item
    parameters: _Item

    def apply(self, colours: Tensor) -> Tensor:
        if self.rows.count == len(colours):
            return self.change(colours, self.parameters())
        part = self.change(colours.index_select(0, self.rows()), self.parameters())
        _write(colours, self.rows, part)
        return colours


def _colour_steps(draws: _Draws, parcel: _Parcel, generator: torch.Generator) -> tuple[_Item, list[_Step]]:
    """Returns the images whose colours change, and how."""
    light, lit, light_numbers = draws.of(BrightnessContrast)
    jitter, tinted, jitter_numbers = draws.of(ColorJitter)
    gamma, bowed, gamma_numbers = draws.of(Gamma)
    blur, blurred, blur_numbers = draws.of(GaussianBlur)
    noise, noisy, noise_numbers = draws.of(GaussianNoise)
    chosen = np.unique(np.concatenate([lit, tinted, bowed, blurred, noisy]))
    if not len(chosen):
        return _Item(chosen), []
    steps: list[_Step] = []

    def add(change: Callable[[Tensor, Tensor], Tensor], rows: Rows, parameters: Array) -> None:
        if len(rows):
            at = parcel.add(np.searchsorted(chosen, rows))
            steps.append(_Step(change, at, parcel.add(parameters)))

    mix = np.zeros((len(lit), 4))
    mix[:, 0] = 1 + _within(light_numbers[:, 0], light.contrast_limit)
    mix[:, 3] = 255 * _within(light_numbers[:, 1], light.brightness_limit)
    add(partial(_mix, grey=False), lit, mix)
    # In turn the first, second, third and fourth change of each image; one step for all that are linear.
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    factors = np.stack([_within(jitter_numbers[:, i], one) for i, one in enumerate(ranges)], axis=1)
    for kinds in np.argsort(jitter_numbers[:, 4:], axis=1).T:
        factor = factors[np.arange(len(tinted)), kinds]
        mix = np.zeros((len(tinted), 4))
        mix[:, 0] = factor
        mix[kinds == _CONTRAST, 2] = (1 - factor)[kinds == _CONTRAST]
        mix[kinds == _SATURATION, 1] = (1 - factor)[kinds == _SATURATION]
        mix[kinds == _SATURATION, 3] = 0.5
        linear = kinds != _HUE
        add(partial(_mix, grey=bool(mix[linear, 1:3].any())), tinted[linear], mix[linear])
        turned = ~linear & (factor != 0)
        add(_turn_hue, tinted[turned], factor[turned])
    add(_bow, bowed, _within(gamma_numbers[:, 0], gamma.gamma_limit) / 100)
    add(_blur, blurred, blur.taps(blur_numbers))
    seeds = [_seed(number) for number in noise_numbers[:, 1]]
    add(
        partial(_add_noise, seeds=seeds, generator=generator),
        noisy,
        255 * _within(noise_numbers[:, 0], noise.std_range),
    )
    return parcel.add(chosen), steps


def _mix(colours: Tensor, parameters: Tensor, *, grey: bool) -> Tensor:
    """Returns a·colour + b·grey + c·mean grey + d, cut as albumentations' lookup tables are.

    Args:
        colours: See `_Step`.
        parameters: a, b, c and d of each image.
        grey: b or c is not 0.
    """
    scale, of_grey, of_mean, shift = parameters[:, :, None, None].unbind(1)
    if grey:
        red, green, blue = colours.unbind(1)
        greys = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).round_()
        # A sum of whole numbers, which is the same in any order.
        mean = greys.sum(dim=-1).long().sum(dim=-1).float() / greys[0].numel()
        more = greys.mul_(of_grey).add_(mean[:, None, None] * of_mean + shift)
    else:
        more = shift
    return colours.mul_(scale[:, None]).add_(more[:, None]).clamp_(0, 255).floor_()


def _turn_hue(colours: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue, which is counted in steps of 2 degrees as OpenCV's 8-bit HSV does.

    Args:
        colours: See `_Step`.
        turns: Shape (images,), in turns.
    """
    red, green, blue = colours.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - low
    # In sixths of a turn, times the chroma: 0 at red, 2 at green, 4 at blue. Colours are whole numbers, so
    # these weights are 0 or 1; torch.where would take longer on a CPU.
    is_red, is_green = ((one - value).add_(1).clamp_(min=0) for one in (red, green))
    hue = (red - green).add_(chroma, alpha=4)
    hue.lerp_((blue - red).add_(chroma, alpha=2), is_green).lerp_(green - blue, is_red)
    hue.div_(chroma.clamp(min=1)).mul_(30).round_().add_(180 * turns[:, None, None]).floor_()
    hue.sub_((hue / 180).floor_(), alpha=180).div_(30)
    # How much of the chroma each channel has: a trapezium over the hue.
    share = torch.stack([hue - 3, hue - 2, hue - 4], dim=1).abs_()
    share[:, 0].sub_(1)
    share[:, 1:].neg_().add_(2)
    return share.clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None]).round_()


def _bow(colours: Tensor, power: Tensor) -> Tensor:
    """Raises colours, as shares of 255, to a power."""
    return colours.div_(255).pow_(power[:, None, None, None]).mul_(255).floor_()


def _blur(colours: Tensor, taps: Tensor) -> Tensor:
    """Convolves rows and columns with kernels of shape (images, taps)."""
    return _smooth(_pad(colours, taps.shape[1] // 2, "reflect"), taps).round_()


def _add_noise(colours: Tensor, std: Tensor, *, seeds: list[int], generator: torch.Generator) -> Tensor:
    """Adds noise of a standard deviation, in values of 0 to 255."""
    noise = _normal(colours.shape, seeds, generator)
    # albumentations cuts the noise to whole numbers, towards 0.
    return colours.add_(noise.mul_(std[:, None, None, None]).trunc_()).clamp_(0, 255)


def _normal(shape: Sequence[int], seeds: list[int], generator: torch.Generator) -> Tensor:
    """Returns standard normal noise, of which each image's depends on its own seed alone."""
    result = torch.empty(tuple(shape), device=generator.device)
    for image, seed in zip(result, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(seed))
    return result


def _pad(images: Tensor, width: int, how: str) -> Tensor:
    """Continues images by `width` pixels on all sides; "reflect" is BORDER_REFLECT_101, at any size."""
    for axis in (-2, -1):
        size = images.shape[axis]
        index = torch.arange(-width, size + width, device=images.device)
        if how == "reflect":
            period = max(2 * (size - 1), 1)
            index = index.remainder(period)
            index = torch.minimum(index, period - index) if size > 1 else index.zero_()
        images = images.index_select(axis, index.clamp_(0, size - 1))
    return images


def _smooth(padded: Tensor, taps: Tensor) -> Tensor:
    """Convolves rows and columns with a symmetric kernel, in an order that no batch size changes.

    Args:
        padded: Shape (images, channels, height + taps - 1, width + taps - 1).
        taps: Shape (images, taps).

    Returns:
        Shape (images, channels, height, width).
    """
    reach = taps.shape[1] // 2
    for axis in (-2, -1):
        size = padded.shape[axis] - 2 * reach
        result = padded.narrow(axis, reach, size) * taps[:, reach, None, None, None]
        for step in range(1, reach + 1):
            pair = padded.narrow(axis, reach - step, size) + padded.narrow(axis, reach + step, size)
            result.addcmul_(pair, taps[:, reach + step, None, None, None])
        padded = result
    return padded
