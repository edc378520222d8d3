"""A photograph and its mask as a network and its scores take them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skinseg.counting import counted
from skinseg.data.files import fit_mask
from skinseg.data.photographs import (
    DEFAULT_MAX_MEGAPIXELS,
    read_frame,
    read_image,
    read_mask,
)
from skinseg.data.transforms.changes import (
    Preprocessing,
    preprocessed,
)

log = logging.getLogger(__name__)

# OpenCV's own threads would compete with the loader's worker processes.
cv2.setNumThreads(0)


@dataclass(frozen=True)
class InputFiles:
    """An image with its mask on disk.

    Attributes:
        image_id: The catalog's id.
        image: The image file.
        mask: The mask file.
        native_size: Height and width of the image in pixels; 0 where the catalog does not know.
        max_megapixels: Most millions of pixels of either.
    """

    image_id: str
    image: str
    mask: str
    native_size: tuple[int, int]
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS

    def read(
        self, size: tuple[int, int], preprocess: Preprocessing | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Decodes, resizes and preprocesses.

        Args:
            size: Height and width of the network's input, in pixels.
            preprocess: As in `prepare`.

        Returns:
            The image (height, width, 3), RGB; its mask (height, width), 0 or 1; and the mask at the image's
            native size, 0 or 255.

        Raises:
            UnreadableFileError: A file cannot be decoded, or the mask is in a form that would be misread.
        """
        image = read_input(self.image, size, preprocess, self.max_megapixels)
        truth = self.read_truth()
        return image, resize_mask(truth, size), truth

    def read_truth(self) -> NDArray[np.uint8]:
        """Decodes the mask alone, at the image's native size: 0 or 255."""
        limit = self.max_megapixels
        native = self.native_size if self.native_size[0] else read_frame(self.image, limit).size
        return fit_mask(read_mask(self.mask, limit), native)

    def read_photograph(self) -> NDArray[np.uint8]:
        """Decodes the image at its native size, RGB, without any preprocessing."""
        return read_image(self.image, max_megapixels=self.max_megapixels)


def read_input(
    path: str,
    size: tuple[int, int],
    preprocess: Preprocessing | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Reads a photograph as every network sees it; see `read_photograph` and `prepare`.

    Raises:
        UnreadableFileError: It cannot be decoded.
    """
    return prepare(read_image(path, size, max_megapixels), size, preprocess)


def prepare(
    image: NDArray[np.uint8], size: tuple[int, int], preprocess: Preprocessing | None = None
) -> NDArray[np.uint8]:
    """Makes what every network sees of a photograph, in training and afterwards.

    Args:
        image: uint8 array of shape (H, W, 3), RGB, decoded for this size.
        size: Height and width of the network's input, in pixels.
        preprocess: What is done to the resized image. None: nothing.

    Returns:
        uint8 array of shape (height, width, 3), RGB.

    Raises:
        SkinsegError: What `preprocess` makes of it is no such array.
    """
    image = resize_image(image, size)
    return image if preprocess is None else preprocessed(preprocess, image)


def input_files(table: pd.DataFrame, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> list[InputFiles]:
    """Returns the files of a catalog's rows, each of which has a mask."""
    columns = (table[name].tolist() for name in ("image_id", "image", "mask", "height", "width"))
    return [
        InputFiles(image_id, image, mask, (height, width), max_megapixels)
        for image_id, image, mask, height, width in zip(*columns, strict=True)
    ]


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes (height, width, 3), by pixel areas where it shrinks, bilinearly where it grows."""
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes a mask of 0 and 255 and returns 0 and 1: lesion where it covers at least half of a pixel."""
    return (resize_image(mask, size) > 127).astype(np.uint8)


@cache
def warn_of_empty_masks(empty: int, masks: int, image_size: tuple[int, int]) -> None:
    """Warns, once in a process, of masks without a lesion at the network's input size.

    Args:
        empty: The number of empty masks.
        masks: The number of all masks.
        image_size: Height and width in pixels.
    """
    height, width = image_size
    of = f"of the {counted(masks, 'mask')}"
    log.warning(
        "%s no lesion at data.image_size=[%d,%d]: it is too small for that size, or there is none. "
        "skinseg.audit names them.",
        counted(empty, f"{of} holds", f"{of} hold"),
        height,
        width,
    )
