"""Drawing masks on photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skinseg.data.inputs import resize_mask

# Told apart by people who cannot tell red from green, and on brown as well as on pink.
TRUTH_COLOUR = (0, 255, 255)
PREDICTION_COLOUR = (255, 215, 0)

Colour = tuple[int, int, int]


def outlined(image: NDArray[np.uint8], masks: Mapping[Colour, NDArray[np.bool_]], width: int) -> Image.Image:
    """Draws the outlines of masks on a photograph.

    Args:
        image: uint8 array of shape (H, W, 3), RGB.
        masks: bool arrays of shape (H, W), by the colour of their line.
        width: Width of the picture in pixels; its height follows from the proportions.

    Returns:
        An RGB picture.
    """
    height, native = image.shape[:2]
    size = (width, max(1, round(width * height / native)))
    how = cv2.INTER_AREA if native > width else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
    for colour, mask in masks.items():
        resized = resize_mask(mask.astype(np.uint8) * 255, (size[1], size[0]))
        outlines, _ = cv2.findContours(resized, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        # A dark rim keeps the line visible on bright skin.
        cv2.drawContours(picture, outlines, -1, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.drawContours(picture, outlines, -1, colour, 2, cv2.LINE_AA)
    return Image.fromarray(picture)


@dataclass(frozen=True)
class Panel:
    """A photograph with its two masks, all at native size.

    Attributes:
        image_id: The catalog's id.
        image: uint8 array of shape (H, W, 3), RGB.
        truth: bool array of shape (H, W).
        predicted: bool array of shape (H, W).
        caption: One or two lines.
    """

    image_id: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    caption: str
