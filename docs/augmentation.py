"""Draw the pictures of docs/augmentation.md into docs/augmentation/, from drawn images alone.

make pictures
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from skinseg.build import nodes
from skinseg.config.compose import compose, config_dir, plain
from skinseg.data.readers.invented import describe_lesion
from skinseg.data.readers.invented_pictures import draw_lesion_images
from skinseg.data.transforms.dermoscopy import Hair
from skinseg.data.transforms.lighting import Gains
from skinseg.pictures import PREDICTION_COLOUR, TRUTH_COLOUR, outlined

Picture = NDArray[np.uint8]

WIDTH, HEIGHT, GAP = 240, 180, 6
FOLDER = Path(__file__).with_suffix("")
# Drawn without hair, bubbles and the like.
LESIONS = (33, 5, 23, 37, 25, 32)
DRAWS = 3
SEEDS = 20
EPOCHS = {"copy_paste": 3, "cutmix": 3, "mixup": 8}  # draws that show it


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    pairs = [_drawn(number) for number in LESIONS]
    parts = {path.stem for path in (config_dir() / "augment/part").glob("*.yaml")}
    for number, part in enumerate(sorted(parts - {"shades_of_grey", "grey_world"})):  # which draw nothing
        (node,) = _node("augment", f"part/{part}")["transforms"].values()
        transform = nodes.instance("augment", {**node, "p": 1})
        before = pairs[number % len(pairs)][0]
        _save(part, [[before, *(_seeded(transform, SEEDS + draw, before) for draw in range(DRAWS))]])
    chain = nodes.instance("augment", _node("augment", "dermoscopy"))
    before = pairs[0][0]
    rows = [[_seeded(chain, 4 * row + column, before) for column in range(4)] for row in range(2)]
    _save("dermoscopy", [[before, *rows[0][1:]], rows[1]])
    for option in ("shades_of_grey", "grey_world", "hair_removal"):
        preprocess = nodes.instance("preprocess", _node("preprocess", option))
        artefact = Hair(p=1, colours=("black", "brown"), stubble=0) if "hair" in option else Gains(p=1)
        befores = [_seeded(artefact, 3 + row, pairs[row][0]) for row in range(2)]
        _save(f"preprocess_{option}", [[tile for image in befores for tile in (image, preprocess(image))]])
    images = torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image, _ in pairs]))
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))[:, None]
    before = [_outlined(image, mask) for image, mask in zip(images, masks, strict=True)]
    for option, epoch in EPOCHS.items():
        mix = nodes.instance("mix", {**_node("mix", option), "p": 1})
        mixed, outlines, _ = mix(images, masks, rows=range(len(images)), epoch=epoch, seed=0)
        after = [_outlined(image, mask) for image, mask in zip(mixed, outlines, strict=True)]
        _save(option, [before[:4], after[:4]])


def _node(group: str, option: str) -> dict[str, Any]:
    return dict(plain(compose([f"{group}={option}", "run_dir=."]))[group])


def _drawn(number: int) -> tuple[Picture, Picture]:
    """Returns a drawn image and its mask of 0 and 1."""
    ((image, mask), *_) = draw_lesion_images(describe_lesion(0, number), width=WIDTH, height=HEIGHT)
    return image, (mask > 0).astype(np.uint8)


def _seeded(transform: A.BasicTransform | A.Compose, seed: int, image: Picture) -> Picture:
    # As the data set does: set_random_seed would start each transform of a chain at the same number.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return np.asarray(transform(image=image)["image"], np.uint8)


def _outlined(image: torch.Tensor, masks: torch.Tensor) -> Picture:
    picture = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
    colours = (TRUTH_COLOUR, PREDICTION_COLOUR)
    shown = {colour: mask.numpy() > 0 for colour, mask in zip(colours, masks, strict=False)}
    return np.asarray(outlined(picture, shown, WIDTH))


def _save(name: str, rows: list[list[Picture]]) -> None:
    size = (len(rows[0]) * (WIDTH + GAP) - GAP, len(rows) * (HEIGHT + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet.paste(Image.fromarray(tile), (x * (WIDTH + GAP), y * (HEIGHT + GAP)))
    sheet.save(FOLDER / f"{name}.jpg", quality=82, optimize=True)
    print(FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main()
