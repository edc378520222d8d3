"""What `python -m skinseg.preview` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from skinseg.build import parts
from skinseg.config.schema import Plain
from skinseg.counting import counted
from skinseg.data.dataset import LesionDataset, Sample
from skinseg.data.inputs import InputFiles
from skinseg.data.transforms.changes import augmented_batch
from skinseg.data.transforms.device_augment import DeviceAugment
from skinseg.errors import SkinsegError
from skinseg.pictures import TRUTH_COLOUR, Strip, contact_sheet, outlined
from skinseg.run.writing import replacing

_WIDTH = 240


def run(config: Plain) -> Path:
    """Draws the contact sheet.

    Args:
        config: Checked; see `skinseg.preview.PreviewConfig`.

    Returns:
        The PNG: a row per image with the photograph, the network's input, and that augmented.

    Raises:
        SkinsegError: A mistake in the configuration or the data.
    """
    data = parts.datamodule(config)
    augmented = data.dataset("train")
    if not len(augmented):
        raise SkinsegError("The split has no train images; there is nothing to show.")
    # An augmentation of one's own need not consist of transforms.
    changes = config["augment"].get("transforms") != {}
    epochs = range(config["epoch"], config["epoch"] + config["draws"]) if changes else range(0)
    table = data.catalog.table.set_index("image_id").fillna({"diagnosis": "unknown"})
    count = min(config["images"], len(augmented))
    chosen = np.sort(np.random.default_rng(config["seed"]).choice(len(augmented), count, replace=False))
    shown = table.loc[[augmented.image_ids[row] for row in chosen]].reset_index()
    inputs = LesionDataset(
        shown,
        data.image_size,
        with_truth=True,
        preprocess=data.preprocess,
        max_megapixels=data.max_megapixels,
    )
    samples = [
        [inputs[number], *(_drawn(augmented, data.augment, epoch - 1, int(row)) for epoch in epochs)]
        for number, row in enumerate(chosen)
    ]
    height, width = data.image_size
    titles = ["photograph", f"input, {width}x{height}", *(f"epoch {epoch}" for epoch in epochs)]
    strips = [
        Strip([_photograph(file, row[0]), *map(_input, row)], _captions(diagnosis, row))
        for file, diagnosis, row in zip(inputs.files, shown["diagnosis"], samples, strict=True)
    ]
    heading = _heading(config, sorted(shown["dataset"].unique()))
    path = Path(config["run_dir"]) / "preview.png"
    with replacing(path) as temporary:
        contact_sheet(strips, heading, columns=titles).save(temporary, format="PNG")
    _show(_facts(samples, len(augmented)))
    print(f"Written to {path}")
    return path


def _drawn(dataset: LesionDataset, augment: object, epoch: int, row: int) -> Sample:
    """Returns a training image as that epoch, counted from 0, sees it."""
    sample = dataset[epoch, row]
    if isinstance(augment, DeviceAugment):
        batch = sample["image"][None], sample["mask"][None]
        images, masks = augmented_batch(augment, *batch, rows=[row], epoch=epoch, seed=dataset.seed)
        sample["image"], sample["mask"] = images[0], masks[0]
    return sample


def _photograph(file: InputFiles, sample: Sample) -> Image.Image:
    return outlined(file.read_photograph(), {TRUTH_COLOUR: sample["truth"].numpy()}, _WIDTH)


def _input(sample: Sample) -> Image.Image:
    image = sample["image"].numpy().transpose(1, 2, 0)
    return outlined(image, {TRUTH_COLOUR: sample["mask"].numpy()[0] > 0}, _WIDTH)


def _share(sample: Sample) -> float:
    """Returns which share of the frame the lesion covers."""
    return float(sample["mask"].float().mean())


def _captions(diagnosis: str, samples: Sequence[Sample]) -> list[str]:
    # Not the catalog's size, which data.verify=false leaves unknown.
    height, width = samples[0]["truth"].shape
    first = f"{samples[0]['image_id']}\n{diagnosis}, {width}x{height}"
    return [first, *(f"lesion {100 * _share(sample):.1f} %" for sample in samples)]


def _heading(config: Plain, datasets: Sequence[str]) -> str:
    node = config["augment"]
    parts = [part for part in node.get("transforms", {"": node}).values() if part is not None]
    names = ", ".join(part["_target_"].rsplit(".", 1)[-1] for part in parts) or "none"
    height, width = config["data"]["image_size"]
    return f"{', '.join(datasets)} at {width}x{height}; augmentation: {names}; seed {config['seed']}"


def _facts(samples: Sequence[Sequence[Sample]], available: int) -> dict[str, str]:
    """Returns what to know of the images shown, in words."""
    before = [row[0] for row in samples]
    pairs = [(row[0], draw) for row in samples for draw in row[1:]]
    facts = {
        "training images shown": f"{len(samples)} of {available:,}",
        "lesion's share of the frame, mean": f"{_mean_share(before):.1f} %",
    }
    if not pairs:
        return facts
    lost = sum(_share(old) > 0 and _share(new) == 0 for old, new in pairs)
    same = sum(old["image"].equal(new["image"]) and old["mask"].equal(new["mask"]) for old, new in pairs)
    return facts | {
        "lesion's share after augmentation, mean": f"{_mean_share([new for _, new in pairs]):.1f} %",
        "augmentation cut the lesion off": f"{lost} of {counted(len(pairs), 'draw')}",
        "augmentation changed nothing": f"{same} of {counted(len(pairs), 'draw')}",
    }


def _mean_share(samples: Sequence[Sample]) -> float:
    return 100 * sum(map(_share, samples)) / len(samples)


def _show(facts: Mapping[str, str]) -> None:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for fact, value in facts.items():
        table.add_row(fact, value)
    Console(highlight=False, soft_wrap=True, markup=False).print(table)
