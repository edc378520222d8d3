"""What pictures are drawn with: smooth noise, bent lines, layers of colour."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Chart = NDArray[np.float32]
Picture = NDArray[np.uint8]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 1) -> Chart:
    """Draws smooth noise of mean 0 and about unit variance.

    Args:
        rng: Random numbers; how many are drawn does not depend on the resolution.
        shape: Height and width in pixels.
        cells: Bumps over the height, in the coarsest octave.
        octaves: Layers; each has twice the bumps of the one before, half as high.
    """
    height, width = shape
    rows, columns = cells, max(1, round(cells * width / height))
    total = rng.standard_normal((rows + 1, columns + 1), dtype=np.float32)
    for octave in range(1, octaves):
        rows, columns = 2 * rows, 2 * columns
        total = _resize(total, (rows + 1, columns + 1))
        total += 0.5**octave * rng.standard_normal(total.shape, dtype=np.float32)
    return _resize(total, shape) / np.float32(0.75 * sum(0.25**octave for octave in range(octaves)) ** 0.5)


def _resize(chart: Chart, shape: tuple[int, int]) -> Chart:
    return np.asarray(cv2.resize(chart, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def ramp(values: Chart, low: float, high: float) -> Chart:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    t: Chart = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def curve(
    rng: np.random.Generator, start: NDArray[np.float64], angle: float, length: float, bend: float
) -> NDArray[np.float64]:
    """Returns 24 points along a bent line."""
    turns = np.linspace(0, rng.normal(0, bend), 24) + 0.06 * bend * np.cumsum(rng.normal(0, 1, 24))
    steps = np.stack([np.cos(angle + turns), np.sin(angle + turns)], axis=1) * length / 24
    return np.asarray(start + np.cumsum(steps, axis=0))


def stroke(layer: Picture, points: NDArray[np.float64], thickness: float, value: int = 255) -> None:
    """Draws an anti-aliased line; below a pixel, thinner means fainter."""
    fixed_point = np.round(points * 16).astype(np.int32)
    faint = round(value * min(1.0, thickness))
    cv2.polylines(layer, [fixed_point], False, faint, max(1, round(thickness)), cv2.LINE_AA, shift=4)


def blend(image: Chart, colour: Chart | tuple[int, int, int], share: Chart) -> None:
    """Lays a colour over an image (height, width, 3), in place, with a share of 0 to 1 for each pixel."""
    image += share[..., None] * (np.asarray(colour, np.float32) - image)


def opacity(layer: NDArray[np.generic]) -> Chart:
    """Turns the opacity of a layer from 0 to 255 into 0 to 1."""
    return layer.astype(np.float32) / np.float32(255)
