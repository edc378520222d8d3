"""Time the augmentation of an image by albumentations and in batches.

    python benchmarks/augment.py [FOLDER] [--size N] [--batch N] [--rounds N] [--threads N ...] [--device D]
    python benchmarks/augment.py [FOLDER] --dermoscopy [--size N] [--batch N] [--rounds N]

FOLDER holds photographs as JPEG, which are resized first; without one, images are drawn. albumentations gets
one thread, as in a loader process; on a CPU batches get each number of --threads. Where kornia is installed
(python -m pip install kornia==0.9.0), its nearest equivalent of the same transforms is timed too.
--dermoscopy times each transform of conf/augment/part and conf/preprocess, augment=dermoscopy and each of
conf/mix, in one thread, by processor time, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# As skinseg sets it: a waiting thread leaves its core to others. Before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skinseg.build import nodes
from skinseg.config.compose import compose, config_dir, plain
from skinseg.data.photographs import read_image
from skinseg.data.transforms.mix import Mix
from skinseg.data.transforms.preprocess import Preprocess

Change = Callable[[int], object]
"""Augments the whole batch as of an epoch."""


def main() -> None:
    """Print a table: milliseconds per image, and how often that takes albumentations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photographs as JPEG; default: drawn images")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch (default: 16)")
    parser.add_argument(
        "--rounds", type=int, default=20, help="rounds, each an epoch of its own (default: 20)"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of batches on a CPU (default: 1 2)"
    )
    parser.add_argument("--device", default="cpu", help="where batches are augmented (default: cpu)")
    parser.add_argument("--dermoscopy", action="store_true", help="each transform of dermoscopy instead")
    arguments = parser.parse_args()
    images = _images(arguments.folder, arguments.batch, arguments.size)
    masks = [_disc(arguments.size, number) for number in range(len(images))]
    if arguments.dermoscopy:
        _dermoscopy(images, masks, arguments.rounds)
        return
    threads = arguments.threads if arguments.device == "cpu" else [1]
    shown = f"{len(images)} images of {arguments.size}x{arguments.size}, {arguments.rounds} rounds"
    print(f"{shown}, torch {torch.__version__}, OpenCV {cv2.__version__}")
    print(f"{'':<52}{'median':>9}{'fastest':>9}{'of albumentations':>19}")
    for option in ("light", "strong"):
        ways: list[tuple[str, int, Change]] = [
            (f"{option}: albumentations, one thread", 1, _albumentations(option, images, masks))
        ]
        for count in threads:
            where = f"{arguments.device}, {count} thread{'s' * (count > 1)}"
            ways.append(
                (f"{option}_device: {where}", count, _batches(option, images, masks, arguments.device))
            )
            if importlib.util.find_spec("kornia"):
                ways.append(
                    (f"kornia's nearest: {where}", count, _kornia(option, images, masks, arguments.device))
                )
        _report(ways, arguments.rounds, len(images))


def _dermoscopy(images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], rounds: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    height, width = images[0].shape[:2]
    print(
        f"{rounds} rounds of {len(images)} images of {width}x{height}, each with p=1 and draws of its own; ",
        end="",
    )
    print(f"OpenCV {cv2.__version__}, torch {torch.__version__}")
    print(f"{'ms of one processor an image':<45}{'median':>9}{'95 %':>9}")
    pictures, outlines = _tensors(images, masks, "cpu")
    for name, change in _changes().items():
        seconds = []
        for epoch in range(-1, rounds):  # the first is to get warm
            if isinstance(change, Mix):
                calls = [
                    partial(change, pictures, outlines, rows=range(len(images)), epoch=epoch + 1, seed=0)
                ]
            elif isinstance(change, Preprocess):
                calls = [partial(change, image) for image in images]
            else:
                change.set_random_state(np.random.default_rng(epoch + 1), random.Random(epoch + 1))
                calls = [
                    partial(change, image=image, mask=mask) for image, mask in zip(images, masks, strict=True)
                ]
            for call in calls:
                start = time.process_time()
                call()
                if epoch >= 0:
                    seconds.append((time.process_time() - start) * len(calls) / len(images))
        print(f"{name:<45}{1000 * np.median(seconds):9.2f}{1000 * np.quantile(seconds, 0.95):9.2f}")


def _changes() -> dict[str, Any]:
    parts = [f"part/{path.stem}" for path in sorted((config_dir() / "augment/part").glob("*.yaml"))]
    changes = {f"augment={part}": _configured(part, p=1) for part in parts}
    changes["augment=dermoscopy, its own p"] = _configured("dermoscopy")
    for group in ("preprocess", "mix"):
        for path in sorted((config_dir() / group).glob("*.yaml")):
            if path.stem != "none":
                node = plain(compose([f"{group}={path.stem}", "run_dir=."]))[group]
                p = {"p": 1} if group == "mix" else {}
                changes[f"{group}={path.stem}"] = nodes.instance(group, {**node, **p})
    return changes


def _report(ways: list[tuple[str, int, Change]], rounds: int, images: int) -> None:
    seconds = np.zeros((rounds, len(ways)))
    # Round by round, so that another program's load falls on all of them; the first two are to get warm.
    for epoch in range(-2, rounds):
        for column, (_, threads, change) in enumerate(ways):
            torch.set_num_threads(threads)
            start = time.perf_counter()
            change(epoch + 2)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if epoch >= 0:
                seconds[epoch, column] = (time.perf_counter() - start) / images
    for column, (name, _, _) in enumerate(ways):
        mine = seconds[:, column]
        low, middle, high = np.quantile(mine / seconds[:, 0], (0.25, 0.5, 0.75))
        times = f"{1000 * np.median(mine):6.2f} ms{1000 * mine.min():6.2f} ms"
        print(f"{name:<52}{times}{middle:8.2f} ({low:.2f} to {high:.2f})")


def _albumentations(option: str, images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]]) -> Change:
    chain = _configured(option)

    def change(epoch: int) -> None:
        for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
            # As the data set seeds it.
            seeds = np.random.SeedSequence([0, epoch, row])
            generator = random.Random(int(seeds.generate_state(1)[0]))
            chain.set_random_state(np.random.default_rng(seeds), generator)
            chain(image=image, mask=mask)

    return change


def _batches(
    option: str, images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], device: str
) -> Change:
    augment = _configured(f"{option}_device")
    pictures, outlines = _tensors(images, masks, device)
    return lambda epoch: augment(pictures, outlines, rows=range(len(images)), epoch=epoch, seed=0)


def _kornia(
    option: str, images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], device: str
) -> Change:
    kornia: Any = importlib.import_module("kornia.augmentation")
    mirrored = {"padding_mode": "reflection", "align_corners": True}
    flips = [kornia.RandomHorizontalFlip(p=0.5), kornia.RandomVerticalFlip(p=0.5)]
    if option == "light":
        parts = [
            kornia.RandomAffine(30.0, (0.06, 0.06), (0.85, 1.15, 0.85, 1.15), p=0.7, **mirrored),
            kornia.RandomBrightness((0.85, 1.15), p=0.5),
            kornia.RandomContrast((0.85, 1.15), p=0.5),
        ]
    else:
        parts = [
            kornia.RandomAffine(
                180.0, (0.12, 0.12), (0.7, 1.4, 0.7, 1.4), (-8.0, 8.0, -8.0, 8.0), p=0.9, **mirrored
            ),
            kornia.RandomElasticTransform((17, 17), (6.0, 6.0), (0.2, 0.2), p=0.2, **mirrored),
            kornia.ColorJiggle((0.75, 1.25), (0.75, 1.25), (0.75, 1.25), (-0.03, 0.03), p=0.8),
            kornia.RandomGamma((0.8, 1.25), p=0.3),
            kornia.RandomGaussianBlur((9, 9), (0.3, 1.2), p=0.2),
            kornia.RandomGaussianNoise(0.0, 0.025, p=0.2),
            kornia.RandomErasing((0.0016, 0.0144), p=0.2),
        ]
    chain = kornia.AugmentationSequential(*flips, *parts, data_keys=["input", "mask"])
    pictures, outlines = _tensors(images, masks, device)

    def change(epoch: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(epoch)
        changed, moved = chain(pictures.float() / 255, outlines.float())
        return (changed * 255).round().to(torch.uint8), (moved >= 0.5).to(torch.uint8)

    return change


def _configured(option: str, **arguments: float) -> Any:
    node = plain(compose([f"augment={option}", "run_dir=."]))["augment"]
    transforms = {name: {**one, **arguments} for name, one in node["transforms"].items()}
    return nodes.instance("augment", {**node, "transforms": transforms})


def _tensors(
    images: list[NDArray[np.uint8]], masks: list[NDArray[np.uint8]], device: str
) -> tuple[Tensor, Tensor]:
    pictures = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).to(device)
    return pictures, torch.from_numpy(np.stack(masks)[:, None]).to(device)


def _images(folder: Path | None, count: int, size: int) -> list[NDArray[np.uint8]]:
    if folder is None:
        chance = np.random.default_rng(0)
        noise = [cv2.GaussianBlur(chance.normal(0, 500, (size, size, 3)), (0, 0), 6) for _ in range(count)]
        return [(one + np.array([200, 150, 140])).clip(0, 255).astype(np.uint8) for one in noise]
    paths = sorted(folder.glob("*.jpg"))[:count]
    if not paths:
        raise SystemExit(f"There is no *.jpg in {folder}.")
    return [cv2.resize(read_image(str(path)), (size, size), interpolation=cv2.INTER_AREA) for path in paths]


def _disc(size: int, seed: int) -> NDArray[np.uint8]:
    x, y, radius = np.random.default_rng(seed).uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.4)) * size
    rows, columns = np.mgrid[:size, :size]
    return (np.hypot(rows - y, columns - x) < radius).astype(np.uint8)


if __name__ == "__main__":
    main()
