"""Hair removal before anything else sees the image."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from skinseg.data.transforms.appearance import Appearance
from skinseg.data.transforms.drawing import Picture

_CLOSINGS, _OPENINGS = 4, 16
_LEAST_WEIGHT = 0.02


class HairRemoval(Appearance):
    """Replaces dark hair by what is around it, after DullRazor (Lee et al., Comput Biol Med 1997).

    As there, grey-value closings by lines fill what is dark and narrow, each channel for itself; what they
    change by more than a threshold may be hair, and is taken for hair where it is long and straight enough.
    What differs: the closings have four directions instead of three; long means that a line of the least
    length fits into it, from where it may go on for as far as the widest hair is wide, round a bend or to the
    tip; a gap is filled by the mean of the skin around it, the nearer the heavier, instead of a line from one
    side to the other.
    Light hair stays. Nothing is drawn: as preprocessing, with p=1, it is the same for the same image.

    Args:
        widest: Width of the widest hair, as a share of the image's longer side.
        shortest: Length of the shortest piece of hair, likewise.
        contrast: How much darker than the skin hair is, in values of 0 to 255.
        p: Probability that an image is changed.
    """

    widest: Annotated[float, Field(gt=0, le=0.2)] = 0.02
    shortest: Annotated[float, Field(gt=0, le=1)] = 0.08
    contrast: Annotated[int, Field(ge=1, le=255)] = 14

    def draw(self, image: Picture, rng: np.random.Generator) -> Picture:
        """Returns the image without dark hair."""
        hair = find_hair(image, widest=self.widest, shortest=self.shortest, contrast=self.contrast)
        return _filled(image, hair, 2 * (_reach(image, self.widest) // 2) + 1)


def find_hair(image: Picture, *, widest: float, shortest: float, contrast: int) -> Picture:
    """Finds dark hair.

    Args:
        image: uint8 array of shape (height, width, 3).
        widest: As in `HairRemoval`.
        shortest: As in `HairRemoval`.
        contrast: As in `HairRemoval`.

    Returns:
        uint8 array of shape (height, width): 1 on hair and a pixel around it, else 0.
    """
    side = max(image.shape[:2])
    reach = _reach(image, widest)
    closed = image
    for angle in np.arange(_CLOSINGS) * np.pi / _CLOSINGS:
        filled = cv2.morphologyEx(image, cv2.MORPH_CLOSE, _line(reach, angle))
        closed = np.asarray(cv2.max(closed, filled), np.uint8)
    red, green, blue = cv2.split(cv2.subtract(closed, image))
    narrow = (cv2.max(cv2.max(red, green), blue) >= contrast).astype(np.uint8)
    hair = np.zeros_like(narrow)
    if narrow.any():
        length = max(3, round(shortest * side))
        for angle in np.arange(_OPENINGS) * np.pi / _OPENINGS:
            hair |= np.asarray(cv2.morphologyEx(narrow, cv2.MORPH_OPEN, _line(length, angle)), np.uint8)
        # No line fits into a bend or a tip.
        for _ in range(reach):
            hair = np.asarray(cv2.dilate(hair, np.ones((3, 3), np.uint8)), np.uint8) & narrow
    return np.asarray(cv2.dilate(hair, np.ones((3, 3), np.uint8)), np.uint8)


def _filled(image: Picture, gaps: Picture, width: int) -> Picture:
    """Fills gaps with the mean of what is within a box around, wider and wider until each gap is reached."""
    result = image.copy()
    missing = gaps > 0
    known = np.dstack([image, np.full(gaps.shape, 255, np.uint8)]).astype(np.float32)
    known[missing] = 0
    while missing.any() and known.any():
        # A box as wide as the image reaches all there is, however little that is.
        least = 255 * _LEAST_WEIGHT if width < max(gaps.shape) else 0
        # Two boxes make a tent, under which what is near weighs more.
        near = np.asarray(cv2.blur(cv2.blur(known, (width, width)), (width, width)))
        reached = np.flatnonzero(missing & (near[..., 3] > least))
        found = near.reshape(-1, 4)[reached]
        result.reshape(-1, 3)[reached] = np.round(255 * found[:, :3] / found[:, 3:])
        missing.ravel()[reached] = False
        width = 2 * width + 1
    return result


def _reach(image: Picture, widest: float) -> int:
    """Returns the length of the closings in pixels; a line fills what is narrower than it is long."""
    side: int = max(image.shape[:2])
    return max(3, round(widest * side) + 1)


def _line(length: int, angle: float) -> Picture:
    """Returns a line as a structuring element."""
    half = (length - 1) / 2
    step = np.array([np.cos(angle), np.sin(angle)])
    # Of so many pixels along its longer axis; a slanted line is as long as an upright one.
    places = np.round(np.linspace(-half, half, 2 * length)[:, None] * step).astype(int)
    reach = int(np.abs(places).max())
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    kernel[places[:, 1] + reach, places[:, 0] + reach] = 1
    return kernel
