"""Photographs that are there twice: at another size, quality or colour, or under another id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

# Dermoscopic photographs are all a dark blob on bright skin, so the usual 64 bits collide: at the 4 bits that
# copies differ by they make 236 pairs of HAM10000 images of different lesions. And the thumbnails must agree
# too, for without hair or rulers most bits are noise about a smooth blob.
_SIDE = 16
_BITS = _SIDE * _SIDE
_THUMBNAIL = 32

# Measured on HAM10000 at 200x150 (8,488 images), the 9-class set at 200 and ISIC 2018 Task 1 at 256 pixels,
# 2026-11-23:
#   The same id in two sets, 1,684 ids: all found. Distance 6 in the median and 26 at most, correlation .951
#     at least.
#   HAM10000, 36 million pairs: 112 found, 3 of different lesion ids; 2 of these are among the 18 published
#     pairs (16 of which were there), 1 is of two lesions that are merely alike. By bits alone it were 8; with
#     48 bits also 8.
#   ISIC 2018 Task 1, 3.4 million pairs: 26 found, by eye each one picture under two ids, most with other
#     colours.
#   Another photograph of a lesion (crop, zoom, exposure) lies at 80 to 142 bits and is not found.
MAX_DISTANCE = 44
"""Bits of 256 that may differ between two copies of a picture."""
MIN_CORRELATION = 0.94
"""What the grey thumbnails of two copies must correlate by."""

# Rows of one block of the comparison: 2,000 x 10,000 distances are 80 MB.
_BLOCK = 2000


class Fingerprint(NamedTuple):
    """What is compared of a picture.

    Attributes:
        bits: Perceptual hash: bool array of shape (256,).
        thumbnail: Grey values, float32 array of shape (1024,) with mean 0 and norm 1; all 0 where the
            picture has one colour.
    """

    bits: NDArray[np.bool_]
    thumbnail: NDArray[np.float32]


def fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Condenses a picture to what its copies share (the hash is imagehash's pHash).

    Args:
        image: uint8 array of shape (H, W, 3), RGB. 128 pixels a side suffice.
    """
    grey = Image.fromarray(image).convert("L")
    bits: NDArray[np.bool_] = imagehash.phash(grey, hash_size=_SIDE).hash.ravel()
    small = grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    thumbnail = np.asarray(small, dtype=np.float32).ravel()
    thumbnail = thumbnail - thumbnail.mean()
    return Fingerprint(bits, thumbnail / max(np.float32(np.linalg.norm(thumbnail)), np.float32(1e-6)))


def near_duplicates(
    one: Mapping[str, Fingerprint], other: Mapping[str, Fingerprint] | None = None
) -> pd.DataFrame:
    """Compares all fingerprints with all others.

    Args:
        one: Fingerprints by image id.
        other: Those of another data set. None: pairs within `one`.

    Returns:
        A row per pair, nearest first: a, b (image ids), distance (bits that differ, 0 to 256), correlation
        (-1 to 1). An id that is in both sets is no pair of itself.
    """
    within = other is None
    signs_a, thumbnails_a = _stack(one)
    signs_b, thumbnails_b = (signs_a, thumbnails_a) if other is None else _stack(other)
    names_a, names_b = list(one), list(one if other is None else other)
    rows = []
    for start in range(0, len(names_a), _BLOCK):
        # Of vectors of +1 and -1 the product is the number of equal bits minus that of different ones.
        distance = (_BITS - signs_a[start : start + _BLOCK] @ signs_b.T) / 2
        for i, j in zip(*np.nonzero(distance <= MAX_DISTANCE), strict=True):
            a, b = names_a[start + i], names_b[j]
            correlation = float(thumbnails_a[start + i] @ thumbnails_b[j])
            if a != b and correlation >= MIN_CORRELATION and not (within and start + i > j):
                rows.append((a, b, int(distance[i, j]), round(correlation, 4)))
    table = pd.DataFrame(rows, columns=["a", "b", "distance", "correlation"])
    return table.sort_values("distance", kind="stable", ignore_index=True)


def _stack(prints: Mapping[str, Fingerprint]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the bits as +1 and -1, of shape (n, 256), and the thumbnails, of shape (n, 1024)."""
    bits = np.array([p.bits for p in prints.values()], dtype=np.float32).reshape(-1, _BITS)
    thumbnails = np.array([p.thumbnail for p in prints.values()], dtype=np.float32)
    return bits * 2 - 1, thumbnails.reshape(-1, _THUMBNAIL**2)
