"""Pairs of masks, described by a few numbers, for the tests and for the public scorer alike.

Only NumPy is imported, since the scorer's environment has no skinseg. A mask must come out the same under
every NumPy and on every machine, so all arithmetic is on integers, and chance comes from
`PCG64.random_raw`, whose stream NumPy keeps, unlike that of the methods of `Generator`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Recipe = dict[str, Any]

EMPTY: Recipe = {"kind": "run", "start": 0, "length": 0}
FULL: Recipe = {"kind": "full"}


def build_mask(recipe: Recipe, height: int, width: int) -> NDArray[np.uint8]:
    """Return the uint8 mask of shape (height, width) that a recipe describes."""
    match recipe:
        case {"kind": "full"}:
            return np.full((height, width), 255, dtype=np.uint8)
        case {"kind": "run", "start": start, "length": length}:
            flat = np.zeros(height * width, dtype=np.uint8)
            flat[start : start + length] = 255
            return flat.reshape(height, width)
        case {"kind": "tile", "greys": greys}:
            return np.resize(np.array(greys, dtype=np.uint8), (height, width))
        case {"kind": "noise", "seed": seed}:
            raw = np.random.PCG64(seed).random_raw(height * width)
            return (raw % 256).astype(np.uint8).reshape(height, width)
        case {"kind": "blobs", "seed": seed, "count": count, "shift": [down, right]}:
            return _blobs(seed, count, down, right, height, width)
    raise ValueError(f"Unknown recipe {recipe}.")


def _blobs(seed: int, count: int, down: int, right: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a union of ellipses that may reach over the frame, moved by (down, right)."""
    rows, columns = np.ogrid[:height, :width]
    inside = np.zeros((height, width), dtype=bool)
    for raw in np.random.PCG64(seed).random_raw(4 * count).reshape(count, 4):
        y, x, a, b = (int(value >> np.uint64(16)) for value in raw)
        y, x = y % height + down, x % width + right
        a, b = 1 + a % max(1, height // 3), 1 + b % max(1, width // 3)
        inside |= (rows - y) ** 2 * b**2 + (columns - x) ** 2 * a**2 <= a**2 * b**2
    return np.where(inside, np.uint8(255), np.uint8(0))


def run(start: int, length: int) -> Recipe:
    """Describe `length` white pixels in reading order from pixel `start` on."""
    return {"kind": "run", "start": start, "length": length}


def tile(*greys: int) -> Recipe:
    """Describe greys that repeat in reading order."""
    return {"kind": "tile", "greys": list(greys)}


def blobs(seed: int, count: int = 3, down: int = 0, right: int = 0) -> Recipe:
    """Describe `count` random ellipses, moved by (down, right)."""
    return {"kind": "blobs", "seed": seed, "count": count, "shift": [down, right]}


def describe_cases() -> list[dict[str, Any]]:
    """Return all cases: dicts of name, height, width, truth and prediction (recipes), fit for JSON."""
    return [
        {"name": name, "height": height, "width": width, "truth": truth, "prediction": prediction}
        for name, height, width, truth, prediction in _cases()
    ]


def _cases() -> Iterator[tuple[str, int, int, Recipe, Recipe]]:
    sizes = [(1, 7), (7, 1), (2, 3), (16, 16), (37, 53), (101, 67), (150, 200), (225, 300), (450, 600)]
    for seed, (height, width) in enumerate(sizes, start=1):
        size = f"{height}x{width}"
        yield f"blobs moved {size}", height, width, blobs(seed), blobs(seed, 3, height // 20, width // 15)
        yield f"blobs and others {size}", height, width, blobs(seed), blobs(seed + 100, 4)
        yield f"blobs and one more {size}", height, width, blobs(seed, 4), blobs(seed, 5)
        yield f"blobs, one missing {size}", height, width, blobs(seed, 5), blobs(seed, 4)
        yield f"blobs, equal {size}", height, width, blobs(seed, 2), blobs(seed, 2)

    for height, width in [(1, 1), (37, 53), (101, 67)]:
        size = f"{height}x{width}"
        yield f"both empty {size}", height, width, EMPTY, EMPTY
        yield f"empty truth, full prediction {size}", height, width, EMPTY, FULL
        yield f"full truth, empty prediction {size}", height, width, FULL, EMPTY
        yield f"both full {size}", height, width, FULL, FULL

    pixel, corner = run(1000, 1), run(37 * 53 - 1, 1)
    half, other_half = run(0, 980), run(980, 981)
    for name, truth, prediction in [
        ("empty truth, blobs", EMPTY, blobs(20)),
        ("empty truth, one pixel", EMPTY, pixel),
        ("blobs, empty prediction", blobs(20), EMPTY),
        ("one pixel, empty prediction", pixel, EMPTY),
        ("full truth, blobs", FULL, blobs(21)),
        ("full truth, one pixel", FULL, pixel),
        ("full truth, one pixel missing", FULL, run(0, 37 * 53 - 1)),
        ("blobs, full prediction", blobs(21), FULL),
        ("one pixel, full prediction", pixel, FULL),
        ("one pixel, hit", pixel, pixel),
        ("one pixel, missed", pixel, corner),
        ("one pixel in the corner, hit", corner, corner),
        ("two halves that do not meet", half, other_half),
        ("two halves that do not meet, swapped", other_half, half),
    ]:
        yield f"{name} 37x53", 37, 53, truth, prediction

    # Jaccard at the threshold: equal quotients by several routes, then the nearest that a size allows.
    for name, truth, prediction in [
        ("13/20, pixels missed", run(0, 20), run(0, 13)),
        ("13/20, pixels too many", run(0, 13), run(0, 20)),
        ("13/20, both kinds of error", run(0, 17), run(4, 16)),
        ("26/40", run(0, 40), run(0, 26)),
        ("39/60", run(0, 60), run(21, 39)),
        ("12/20", run(0, 20), run(0, 12)),
        ("14/20", run(0, 20), run(0, 14)),
    ]:
        yield f"Jaccard {name}", 10, 11, truth, prediction
    for hit in (64_999, 65_000, 65_001):
        yield f"Jaccard {hit}/100000", 400, 300, run(0, 100_000), run(0, hit)

    for name, truth, prediction in [
        ("127 and white", tile(127), FULL),
        ("128 and white", tile(128), FULL),
        ("129 and white", tile(129), FULL),
        ("white and 127", FULL, tile(127)),
        ("white and 128", FULL, tile(128)),
        ("white and 129", FULL, tile(129)),
        ("128 and 129", tile(128), tile(129)),
        ("greys around the threshold", tile(127, 128, 129, 255), tile(129, 128, 255, 127, 0)),
        ("greys and blobs", tile(0, 127, 128, 129, 130, 254, 255), blobs(30)),
        ("blobs and greys", blobs(31), tile(0, 1, 127, 128, 129, 255)),
        ("0 and 1", tile(0, 1), tile(1, 0)),
        ("noise and noise", {"kind": "noise", "seed": 40}, {"kind": "noise", "seed": 41}),
    ]:
        yield f"grey: {name}", 37, 53, truth, prediction
