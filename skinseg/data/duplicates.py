"""Photographs that are the same picture: reduced, recompressed, or barely moved."""

from __future__ import annotations

from collections.abc import Mapping

import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

Fingerprint = NDArray[np.bool_]

BITS = 256
NEAR = 32
"""Two pictures whose fingerprints differ in at most so many of the 256 bits count as near duplicates.

Measured on reduced copies of the data sets (2026-11-23). The same picture at another size and compression
differs by 6 bits in the median and by 26 at most: all 453 ids that the 9-class set shares with ISIC 2018
Task 1 are found, and all 1,231 that it shares with HAM10000. Of the 36 million pairs within 8,488 images of
HAM10000, 97 of one lesion are found and 2 of different lesion ids: one of the published cross-lesion pairs,
and one of two lesions that are merely alike. At 48 bits these would be 19, at 64 bits 346. Another photograph
of a lesion is seldom found: of the 16 published pairs whose images were there, that one.
"""

# Rows of one block of the comparison: 2,000 x 10,000 distances are 80 MB.
_BLOCK = 2000


def fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Hashes what a picture looks like (perceptual hash of the lowest 16 x 16 frequencies, by imagehash).

    Args:
        image: uint8 array of shape (H, W, 3), RGB.

    Returns:
        bool array of shape (256,).
    """
    bits: Fingerprint = imagehash.phash(Image.fromarray(image).convert("L"), hash_size=16).hash.ravel()
    return bits


def near_duplicates(
    one: Mapping[str, Fingerprint], other: Mapping[str, Fingerprint] | None = None, *, near: int = NEAR
) -> pd.DataFrame:
    """Compares all fingerprints with all others.

    Args:
        one: Fingerprints by image id.
        other: Those of another data set. None: pairs within `one`.
        near: Most bits in which a pair may differ.

    Returns:
        A row per pair, nearest first: a, b (image ids), distance (bits that differ, 0 to 256). An id that is
        in both sets is no pair of itself.
    """
    within = other is None
    names_a, names_b = list(one), list(one if other is None else other)
    if not names_a or not names_b:
        return pd.DataFrame({"a": [], "b": [], "distance": []}).astype({"distance": int})
    # Of vectors of +1 and -1 the product is the number of equal bits minus that of different ones.
    signs_a = np.stack(list(one.values())).astype(np.float32) * 2 - 1
    signs_b = signs_a if other is None else np.stack(list(other.values())).astype(np.float32) * 2 - 1
    rows = []
    for start in range(0, len(names_a), _BLOCK):
        distance = (BITS - signs_a[start : start + _BLOCK] @ signs_b.T) / 2
        for i, j in zip(*np.nonzero(distance <= near), strict=True):
            a, b = names_a[start + i], names_b[j]
            if a != b and not (within and start + i > j):
                rows.append((a, b, int(distance[i, j])))
    table = pd.DataFrame(rows, columns=["a", "b", "distance"])
    return table.sort_values("distance", kind="stable", ignore_index=True)
