"""What can be done to a batch of images, each with its own numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from skinseg.errors import SkinsegError

Array = NDArray[np.float64]


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
            height: Height of the images, in pixels.
            width: Width of the images, in pixels.

        Returns:
            Shape (images, 3, 3), in pixels, x before y.
        """
        angle = np.deg2rad(within(numbers[:, 0], self.rotate))
        scale = within(numbers[:, 1:3], self.scale)
        shift = np.trunc(within(numbers[:, 3:5], self.translate_percent) * (width, height))
        shear = -np.tan(np.deg2rad(within(numbers[:, 5:7], self.shear)))
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
        sigma = within(numbers[:, :1], self.sigma_limit)
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
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.

        Yields:
            Their rows and columns.
        """
        least, most = self.num_holes_range
        for high, wide, top, left in numbers[1:].reshape(-1, 4)[
            : least + int(numbers[0] * (most - least + 1))
        ]:
            rows = int(height * within(high, self.hole_height_range))
            columns = int(width * within(wide, self.hole_width_range))
            y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
            yield slice(y, y + rows), slice(x, x + columns)


def within(numbers: Array, bounds: tuple[float, float]) -> Array:
    """Returns uniform numbers of [0, 1) as numbers between bounds."""
    return bounds[0] + numbers * (bounds[1] - bounds[0])
