"""Time the scores of one image beside those of other libraries.

    python benchmarks/scoring.py [FOLDER] [--images N] [--repeats N]

FOLDER holds masks as PNG; each is scored against itself moved by a few pixels and with a rougher outline.
Without one, masks of 600×450 are drawn. Libraries that cannot be imported are left out:

    python -m pip install monai==1.6.1 surface-distance==0.1 MedPy==0.5.2
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skinseg.scoring.boundary import boundary_scores
from skinseg.scoring.calibration import calibration_counts, calibration_scores
from skinseg.scoring.overlap import confusion_counts, foreground

Mask = NDArray[np.bool_]
Image = tuple[bytes, Mask, Mask, NDArray[np.float32]]
"""The truth as a PNG, the truth, the prediction, the probability."""

SIZE = (450, 600)


def main() -> None:
    """Print a line per function: milliseconds per image, and how often that takes to decode its mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="masks as PNG; default: drawn ones")
    parser.add_argument("--images", type=int, default=40, help="how many masks at most (default: 40)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, the fastest of which counts")
    arguments = parser.parse_args()
    images = [_image(png) for png in _masks(arguments.folder, arguments.images)]
    # Of empty masks nothing is computed, and MedPy gives up.
    images = [image for image in images if image[1].any() and image[2].any()]
    if not images:
        parser.error(f"There is no PNG with a lesion in {arguments.folder}.")
    seconds = measure(images, arguments.repeats)
    unit = next(iter(seconds.values()))
    sizes = sorted({image[1].shape for image in images})
    shown = " to ".join(f"{width} x {height}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))
    print(f"{len(images)} images of {shown}")
    for name, value in seconds.items():
        print(f"{name:<58}{1000 * value:9.2f} ms{value / unit:9.1f} x")


def measure(images: list[Image], repeats: int) -> dict[str, float]:
    """Returns seconds per image for each function, the fastest of some rounds, on one thread."""
    cv2.setNumThreads(1)
    functions = _ours() | _peers()
    seconds = dict.fromkeys(functions, float("inf"))
    # Round by round, so that another program's load falls on all of them.
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            for image in images:
                function(*image)
            seconds[name] = min(seconds[name], (time.perf_counter() - start) / len(images))
    return seconds


def drawn_images(count: int) -> list[Image]:
    """Returns drawn masks with predictions of them."""
    return [_image(png) for png in _masks(None, count)]


def _masks(folder: Path | None, limit: int) -> list[bytes]:
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.glob("*.png"))[:limit]]
    return [_png(_lesion(seed)) for seed in range(limit)]


def _lesion(seed: int) -> Mask:
    """A blob with a ragged outline that fills 5 to 40 % of the frame."""
    chance = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(chance.standard_normal(SIZE), (0, 0), 25)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    centre = np.hypot((rows - SIZE[0] / 2) / SIZE[0], (columns - SIZE[1] / 2) / SIZE[1])
    height = noise / noise.std() - 12 * centre
    return np.asarray(height > np.quantile(height, 1 - chance.uniform(0.05, 0.4)))


def _png(mask: Mask) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


def _decode(png: bytes) -> Mask:
    return foreground(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE))


def _image(png: bytes) -> Image:
    truth = _decode(png)
    moved = cv2.warpAffine(truth.astype(np.float32), np.float32([[1, 0, 4], [0, 1, -3]]), truth.shape[::-1])
    noise = np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    rough = cv2.GaussianBlur(moved, (0, 0), 4) + 2 * cv2.GaussianBlur(noise, (0, 0), 4)
    probability = np.clip(rough, 0, 1).astype(np.float32)
    return png, truth, probability >= 0.5, probability


def _ours() -> dict[str, Callable[..., Any]]:
    return {
        "decode the mask's PNG (unit)": lambda png, *_: _decode(png),
        "skinseg: confusion_counts": lambda _, truth, prediction, __: confusion_counts(truth, prediction),
        "skinseg: boundary_scores, all nine": lambda _, truth, prediction, __: boundary_scores(
            truth, prediction
        ),
        "skinseg: calibration_counts": lambda _, truth, __, chance: calibration_counts(chance, truth),
        "skinseg: calibration_scores": lambda _, truth, __, chance: calibration_scores(chance, truth),
    }


def _peers() -> dict[str, Callable[..., Any]]:
    result: dict[str, Callable[..., Any]] = {}
    try:
        monai, torch = importlib.import_module("monai.metrics"), importlib.import_module("torch")
    except ImportError:
        print("MONAI is not installed.", file=sys.stderr)
    else:
        torch.set_num_threads(1)

        def ask_monai(_: bytes, truth: Mask, prediction: Mask, __: object) -> None:
            pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
            monai.compute_hausdorff_distance(*pair, include_background=True, percentile=95)
            monai.compute_average_surface_distance(*pair, include_background=True, symmetric=True)
            monai.compute_surface_dice(*pair, [2.0], include_background=True)

        result["MONAI: hd95, assd, surface Dice"] = ask_monai
    try:
        medpy = importlib.import_module("medpy.metric.binary")
    except ImportError:
        print("MedPy is not installed.", file=sys.stderr)
    else:

        def ask_medpy(_: bytes, truth: Mask, prediction: Mask, __: object) -> None:
            medpy.hd95(prediction, truth)
            medpy.assd(prediction, truth)

        result["MedPy: hd95, assd"] = ask_medpy
    try:
        deepmind = importlib.import_module("surface_distance.metrics")
    except ImportError:
        print("surface-distance is not installed.", file=sys.stderr)
    else:

        def ask_deepmind(_: bytes, truth: Mask, prediction: Mask, __: object) -> None:
            distances = deepmind.compute_surface_distances(truth, prediction, (1, 1))
            deepmind.compute_robust_hausdorff(distances, 95)
            deepmind.compute_average_surface_distance(distances)
            deepmind.compute_surface_dice_at_tolerance(distances, 2.0)

        result["surface-distance: hd95, two averages, surface Dice"] = ask_deepmind
    return result


if __name__ == "__main__":
    main()
