"""The light of dermoscopy: its round frame, gleams, falloff and colour; and colour constancy.

Transforms as those of `skinseg.data.transforms.dermoscopy`, and under the same rules.
"""

from __future__ import annotations

import math
from typing import Annotated

import cv2
import numpy as np
from albumentations.core.pydantic import check_range_bounds
from numpy.typing import NDArray
from pydantic import AfterValidator

from skinseg.data.transforms.appearance import Appearance, Pair, Shares
from skinseg.data.transforms.dermoscopy import blurred, grid, whole
from skinseg.data.transforms.drawing import Picture, blend, noise, ramp

_VALUES = np.arange(256, dtype=np.float64)


class DarkCorners(Appearance):
    """The dark beyond the round frame of the dermatoscope.

    Args:
        radius_range: Of the frame, as a share of half the image's diagonal; 1 just meets the corners.
        softness_range: Width of the frame's edge, likewise.
        offset_range: Distance of its centre from the image's, likewise.
        p: Probability that an image is changed.
    """

    radius_range: Annotated[Pair, AfterValidator(check_range_bounds(0.1, 2))] = (0.72, 0.92)
    softness_range: Shares = (0.01, 0.12)
    offset_range: Shares = (0.0, 0.06)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image within a round frame."""
        height, width = image.shape[:2]
        half = math.hypot(height, width) / max(height, width)
        away, angle = half * rng.uniform(*self.offset_range), rng.uniform(0, 2 * np.pi)
        x, y = grid((height, width), (away * math.cos(angle), away * math.sin(angle)))
        radius, soft = half * rng.uniform(*self.radius_range), half * rng.uniform(*self.softness_range)
        light = ramp(np.hypot(x, y), radius + soft, radius - soft - 1e-3)
        lit = image.astype(np.float32)
        blend(lit, rng.uniform(0, 10, 3).astype(np.float32), 1 - light)
        return whole(lit)


class Highlights(Appearance):
    """Gleams of the lamp on the relief of the skin or the gel, where light is not polarised.

    Args:
        cover_range: Which share of the image gleams.
        cells_range: How fine they are: bumps of the relief over the image's height.
        opacity_range: 0 to 1.
        p: Probability that an image is changed.
    """

    cover_range: Shares = (0.002, 0.02)
    cells_range: Annotated[Pair, AfterValidator(check_range_bounds(1, 1000))] = (25, 70)
    opacity_range: Shares = (0.5, 1.0)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image with gleams."""
        shape = (image.shape[0], image.shape[1])
        # Where the skin is turned to the lamp, the tops of its relief gleam.
        height = noise(rng, shape, int(rng.uniform(*self.cells_range))) + 1.4 * noise(rng, shape, 3)
        least, most = np.quantile(height[::2, ::2], (1 - rng.uniform(*self.cover_range), 1))
        gleam = ramp(height, float(least), float(least + 0.4 * (most - least) + 1e-3))
        glow = blurred(gleam, 0.008 * max(shape) + 0.1)
        share = np.float32(rng.uniform(*self.opacity_range)) * np.maximum(gleam, 0.6 * glow)
        lit = image.astype(np.float32)
        blend(lit, (255, 252, 250), share)
        return whole(lit)


class Falloff(Appearance):
    """Light that is strongest near one spot and falls off from it, as that of a flash or a ring of lamps.

    Args:
        strength_range: How much darker the farthest corner is than the spot, 0 to 1.
        offset_range: Distance of the spot from the image's middle, in halves of the longer side.
        p: Probability that an image is changed.
    """

    strength_range: Shares = (0.2, 0.55)
    offset_range: Annotated[Pair, AfterValidator(check_range_bounds(0, 4))] = (0.0, 0.7)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image in uneven light."""
        away, angle = rng.uniform(*self.offset_range), rng.uniform(0, 2 * np.pi)
        shape = (image.shape[0], image.shape[1])
        x, y = grid(shape, (away * math.cos(angle), away * math.sin(angle)))
        distance = np.square(x) + np.square(y)
        light = 1 - np.float32(rng.uniform(*self.strength_range)) * distance / distance.max()
        return whole(image * light[..., None])


class Gains(Appearance):
    """Light of another colour: each channel times a gain of its own (von Kries).

    Args:
        gain_range: Range of each channel's gain, drawn evenly by its logarithm.
        p: Probability that an image is changed.
    """

    gain_range: Annotated[Pair, AfterValidator(check_range_bounds(0.01, 100))] = (0.85, 1.18)

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image in light of another colour."""
        low, high = map(math.log, self.gain_range)
        return _times(image, np.exp(rng.uniform(low, high, 3)))


def _power(value: float) -> float:
    if not 1 <= value <= 100:
        raise ValueError(f"found {value}, expected 1 to 100")
    return value


class ShadesOfGrey(Appearance):
    """Colour constancy by shades of grey (Finlayson, Trezzi, Color and Imaging Conference 2004).

    The colour of the light is taken to be that of the Minkowski mean of each channel,
    e = (mean of value ** power) ** (1 / power), scaled to length 1; values are divided by e times the square
    root of 3, by which grey light changes nothing. Values are used as they are stored, without undoing the
    gamma. Nothing is drawn: as preprocessing, with p=1, it is the same for the same image.

    Args:
        power: 6 as in the paper; 1 is the grey world, and the larger, the nearer to the brightest patch.
        p: Probability that an image is changed.
    """

    power: Annotated[float, AfterValidator(_power)] = 6

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image as in white light."""
        return _times(image, gains_to_white(image, self.power))


def gains_to_white(image: Picture, power: float) -> NDArray[np.float64]:
    """Returns what `ShadesOfGrey` multiplies channels by, shape (3,); 1 for those that are 0 everywhere.

    Args:
        image: uint8 array of shape (height, width, 3).
        power: As in `ShadesOfGrey`.
    """
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    # Relative to the largest value, for 255 to a high power is more than a float holds.
    means = (counts @ (_VALUES / 255) ** power / counts[0].sum()) ** (1 / power)
    grey = float(np.linalg.norm(means)) / math.sqrt(3)
    return np.asarray([grey / mean if mean > 0 else 1.0 for mean in means.tolist()])


def _times(image: Picture, gains: NDArray[np.float64]) -> Picture:
    table = np.clip(np.round(_VALUES[:, None] * gains), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)
