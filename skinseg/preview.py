"""Draw what the network will see: images with outlines, before and after augmentation.

python -m skinseg.preview data=ham10000 augment=strong data.root=<folder>
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from skinseg.command import end_with_message, main_of
from skinseg.config import Node, check, config_dir, plain
from skinseg.errors import SkinsegError

if TYPE_CHECKING:
    from PIL.Image import Image

    from skinseg.data.dataset import Sample

_TILE = 240
_GAP = 10
_CAPTION = 40
_TITLE = 24


@dataclass
class PreviewConfig:
    """Every key at the root of the configuration.

    Attributes:
        name: Part of the folder's path.
        run_dir: The folder that the picture is written to.
        seed: Chooses the images, and is the seed that an experiment would augment with.
        images: How many training images are shown.
        draws: How many augmented versions of each: those of the first epochs of an experiment.
        data: The data set, as an experiment would read it.
        augment: Augmentation of training images.
    """

    name: str
    run_dir: str
    seed: int
    images: int
    draws: int
    data: Node
    augment: Node


def run(cfg: DictConfig) -> Path:
    """Draws the contact sheet.

    Args:
        cfg: The composed configuration; see `PreviewConfig`.

    Returns:
        The PNG: a row per image with the photograph, the network's input, and that augmented.

    Raises:
        SkinsegError: A mistake in the configuration or the data.
    """
    config = plain(cfg)
    check(config, PreviewConfig)
    for key in ("images", "draws"):
        if config[key] < 1:
            raise SkinsegError(f"{key}={config[key]}: expected 1 or more.")

    import numpy as np

    from skinseg import build
    from skinseg.data.dataset import LesionDataset
    from skinseg.record import replacing

    data = build.datamodule(config)
    augmented = data.dataset("train")
    table = data.catalog.table.set_index("image_id").fillna({"diagnosis": "unknown"})
    count = min(config["images"], len(augmented))
    chosen = np.sort(np.random.default_rng(config["seed"]).choice(len(augmented), count, replace=False))
    shown = table.loc[[augmented.image_ids[row] for row in chosen]].reset_index()
    plain_set = LesionDataset(shown, data.image_size, with_truth=True)
    rows: list[list[Image]] = []
    captions = []
    for number, row in enumerate(chosen):
        before = plain_set[number]
        drawn = [augmented[epoch, int(row)] for epoch in range(config["draws"])]
        rows.append([_photograph(plain_set.images[number], before), *map(_input, [before, *drawn])])
        captions.append(_captions(shown.loc[number].to_dict(), before, drawn))
    height, width = data.image_size
    titles = ["photograph", f"input, {width}x{height}", *(f"epoch {n + 1}" for n in range(config["draws"]))]
    path = Path(config["run_dir"]) / "preview.png"
    with replacing(path) as temporary:
        _sheet(rows, captions, titles, _heading(config, shown)).save(temporary, format="PNG")
    print(f"Written to {path}")
    return path


def _photograph(path: str, sample: Sample) -> Image:
    from skinseg.data.files import read_image
    from skinseg.pictures import TRUTH_COLOUR, outlined

    return outlined(read_image(path), {TRUTH_COLOUR: sample["truth"].numpy()}, _TILE)


def _input(sample: Sample) -> Image:
    from skinseg.pictures import TRUTH_COLOUR, outlined

    image = sample["image"].numpy().transpose(1, 2, 0)
    return outlined(image, {TRUTH_COLOUR: sample["mask"].numpy()[0] > 0}, _TILE)


def _captions(row: Mapping[Any, Any], before: Sample, drawn: Sequence[Sample]) -> list[str]:
    first = f"{row['image_id']}\n{row['diagnosis']}, {row['width']}x{row['height']}"
    shares = [100 * float(sample["mask"].float().mean()) for sample in (before, *drawn)]
    return [first, *(f"lesion {share:.1f} %" for share in shares)]


def _heading(config: Mapping[str, Any], shown: Any) -> str:
    transforms = (config["augment"].get("transforms") or {}).values()
    names = [node["_target_"].rsplit(".", 1)[-1] for node in transforms if node is not None]
    datasets = ", ".join(sorted(shown["dataset"].unique()))
    return f"{datasets}; augmentation: {', '.join(names) or 'none'}; seed {config['seed']}"


def _sheet(rows: list[list[Image]], captions: list[list[str]], titles: list[str], heading: str) -> Image:
    import textwrap

    from PIL import Image, ImageDraw, ImageFont

    font, bold = ImageFont.load_default(14), ImageFont.load_default(16)
    width = _GAP + len(titles) * (_TILE + _GAP)
    lines = textwrap.wrap(heading, width // 9)
    top = _GAP + 20 * len(lines) + _TITLE
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (width, top + sum(heights) + len(rows) * (_CAPTION + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((_GAP, _GAP), "\n".join(lines), fill="black", font=bold, spacing=4)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (_TILE + _GAP), top - _TITLE + 4), title, fill="black", font=bold)
    y = top
    for row, texts, height in zip(rows, captions, heights, strict=True):
        for column, (tile, text) in enumerate(zip(row, texts, strict=True)):
            x = _GAP + column * (_TILE + _GAP)
            sheet.paste(tile, (x, y))
            draw.multiline_text((x, y + tile.height + 2), text, fill="black", font=font, spacing=2)
        y += height + _CAPTION + _GAP
    return sheet


@hydra.main(config_path=str(config_dir()), config_name="preview", version_base="1.3")
def task(cfg: DictConfig) -> None:
    """Draws."""
    try:
        run(cfg)
    except SkinsegError as error:
        end_with_message(error)


main = main_of(task, "preview", PreviewConfig)

if __name__ == "__main__":
    sys.exit(main())
