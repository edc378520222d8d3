"""Small pairs of masks for the scores of outlines, drawn alike for the tests and for the peers' environment.

Only NumPy is imported, and all arithmetic is on integers; see cases.py.
"""

from __future__ import annotations

import numpy as np
from cases import build_mask
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def draw(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Mask:
    """Boxes of (top, left, height, width), each of which inverts what lies under it."""
    mask = np.zeros((height, width), bool)
    for top, left, tall, wide in boxes:
        mask[top : top + tall, left : left + wide] ^= True
    return mask


def blobs(seed: int, shift: tuple[int, int] = (0, 0), height: int = 60, width: int = 80) -> Mask:
    """A union of three ellipses, which may reach over the frame, moved by (down, right)."""
    recipe = {"kind": "blobs", "seed": seed, "count": 3, "shift": list(shift)}
    return build_mask(recipe, height, width) > 0


def describe_outlines() -> dict[str, tuple[Mask, Mask]]:
    """Pairs of (truth, prediction) by name, none of them empty."""
    square = draw(40, 50, (2, 2, 20, 20))
    return {
        "the same blobs": (blobs(1), blobs(1)),
        "moved blobs": (blobs(1), blobs(1, (2, -3))),
        "other blobs": (blobs(2), blobs(5)),
        "blobs of a larger frame": (blobs(3, (0, 0), 150, 200), blobs(3, (5, 4), 150, 200)),
        "a square moved by 3": (draw(40, 50, (10, 10, 20, 20)), draw(40, 50, (10, 13, 20, 20))),
        "a square and one with a satellite": (square, square | draw(40, 50, (36, 43, 1, 6))),
        "boxes at the frame's edge": (draw(40, 50, (0, 12, 10, 20)), draw(40, 50, (0, 15, 14, 20))),
        "boxes in two corners": (draw(40, 50, (0, 0, 9, 7)), draw(40, 50, (33, 38, 7, 12))),
        "the full frame and most of it": (draw(30, 40, (0, 0, 30, 40)), draw(30, 40, (0, 10, 30, 30))),
        "single pixels": (draw(20, 30, (5, 5, 1, 1)), draw(20, 30, (8, 9, 1, 1))),
        "a pixel and a box": (draw(20, 30, (5, 5, 1, 1)), draw(20, 30, (3, 4, 9, 11))),
        "a hole": (
            draw(60, 80, (10, 10, 40, 50)),
            draw(60, 80, (10, 10, 40, 50), (22, 24, 11, 13)),
        ),
        "one region of two": (draw(50, 60, (5, 5, 12, 15), (30, 35, 14, 16)), draw(50, 60, (6, 4, 12, 15))),
        "a line": (draw(40, 50, (20, 3, 1, 40)), draw(40, 50, (18, 5, 4, 40))),
    }
