"""Masks drawn on photographs, and sheets of pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from skinseg.data.inputs import resize_mask

# Told apart by people who cannot tell red from green, and on brown as well as on pink.
TRUTH_COLOUR = (0, 255, 255)
PREDICTION_COLOUR = (255, 215, 0)

Colour = tuple[int, int, int]

MARGIN = 12
"""Pixels around each picture of a sheet."""
_CAPTION, _LINE, _LETTER = 40, 22, 9


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


@dataclass(frozen=True)
class Strip:
    """A row of a sheet.

    Attributes:
        pictures: Pictures of one width.
        captions: One or two lines for each.
        title: Above them; empty: none.
    """

    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    title: str = ""


def contact_sheet(
    strips: Sequence[Strip],
    heading: str,
    *,
    columns: Sequence[str] = (),
    legend: Mapping[str, Colour] | None = None,
) -> Image.Image:
    """Draws rows of pictures with their captions on one sheet.

    Args:
        strips: The rows.
        heading: Above all of them.
        columns: What the pictures of a column have in common, written once above it.
        legend: Colours of lines by what they mean.

    Returns:
        An RGB picture.
    """
    font, bold = ImageFont.load_default(14), ImageFont.load_default(17)
    step = MARGIN + max(picture.width for strip in strips for picture in strip.pictures)
    width = MARGIN + step * max(len(strip.pictures) for strip in strips)
    reserved = sum(_LETTER * len(name) + 40 for name in legend or ())
    lines = textwrap.wrap(heading, max(1, (width - reserved) // _LETTER), break_long_words=False)
    top = 2 * MARGIN + _LINE * (len(lines) + bool(columns))
    heights = [
        _LINE * bool(strip.title) + max(picture.height for picture in strip.pictures) + _CAPTION + MARGIN
        for strip in strips
    ]
    sheet = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((MARGIN, MARGIN), "\n".join(lines), fill="black", font=bold, spacing=4)
    right = width - MARGIN
    for name, colour in (legend or {}).items():
        right -= int(draw.textlength(name, font=font))
        draw.text((right, MARGIN + 2), name, fill="black", font=font)
        draw.rectangle((right - 26, MARGIN + 5, right - 6, MARGIN + 15), fill=colour, outline="black")
        right -= 40
    for column, text in enumerate(columns):
        draw.text((MARGIN + column * step, top - _LINE), text, fill="black", font=bold)
    for strip, height in zip(strips, heights, strict=True):
        y = top
        if strip.title:
            draw.text((MARGIN, y), strip.title, fill="black", font=bold)
            y += _LINE
        for column, (picture, caption) in enumerate(zip(strip.pictures, strip.captions, strict=True)):
            x = MARGIN + column * step
            sheet.paste(picture, (x, y))
            draw.multiline_text((x, y + picture.height + 2), caption, fill="black", font=font, spacing=2)
        top += height
    return sheet
