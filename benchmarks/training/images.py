"""The images that all competitors get: a folder in HAM10000's layout with a split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from skinseg.data.readers.synthetic import write_synthetic_ham10000

Pair = tuple[Path, Path]
"""An image and its mask."""


def pairs_of(folder: Path, limit: int | None = None) -> list[Pair]:
    """Returns images that have a mask.

    Args:
        folder: JPEGs `<id>.jpg` and masks `<id>_segmentation.png` anywhere below it.
        limit: How many at most.

    Raises:
        SystemExit: There is none.
    """
    visible = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(".")]
    images = {path.stem: path.resolve() for path in visible if path.suffix == ".jpg"}
    masks = {
        path.name.removesuffix("_segmentation.png"): path.resolve()
        for path in visible
        if path.name.endswith("_segmentation.png")
    }
    found = [(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())]
    if not found:
        raise SystemExit(
            f"--data {folder}: found {len(images)} images *.jpg and {len(masks)} masks *_segmentation.png, "
            "and no image with a mask of its name. Name a folder that holds both."
        )
    return found[:limit]


def drawn(cache: Path, images: int) -> Path:
    """Returns a folder of drawn images of 600×450, written when first asked for."""
    lesions = images  # there are about 1.3 images to a lesion
    return write_synthetic_ham10000(cache / f"drawn_{lesions}", lesions=lesions, width=600, height=450)


def groups_of(folder: Path) -> dict[str, str]:
    """Returns the lesion of each image, where the folder has HAM10000's metadata."""
    tables = sorted(folder.rglob("HAM10000_metadata*.csv"))
    if not tables:
        return {}
    table = pd.read_csv(tables[0], dtype=str)
    return dict(zip(table["image_id"], table["lesion_id"], strict=True))


def repeated(pairs: list[Pair], folder: Path, counts: dict[str, int]) -> Path:
    """Writes as many images as each side needs; there are more than pairs, so they repeat on both sides.

    That is for measuring speed only: scores of such a split say nothing.

    Args:
        pairs: Images with masks.
        folder: Where to write.
        counts: Images of "train" and "val".
    """
    rows = []
    number = 0
    for side, count in counts.items():
        for row in range(count):
            rows.append((pairs[row % len(pairs)], f"ISIC_{9_000_000 + number}", f"HAM_{number:07d}", side))
            number += 1
    return _write(folder, rows)


def divided(pairs: list[Pair], folder: Path, groups: dict[str, str]) -> Path:
    """Writes each image once; a fifth of the lesions is for test, a tenth for validation.

    Args:
        pairs: Images with masks.
        folder: Where to write.
        groups: The lesion of an image; one that is not named is a lesion of its own.
    """
    lesions = [groups.get(image.stem, image.stem) for image, _ in pairs]
    order = {lesion: place for place, lesion in enumerate(dict.fromkeys(lesions))}
    sides = ["test", "val", "train", "train", "train", "test", "train", "train", "train", "train"]
    return _write(
        folder,
        [
            (pair, pair[0].stem, lesion, sides[order[lesion] % len(sides)])
            for pair, lesion in zip(pairs, lesions, strict=True)
        ],
    )


def _write(folder: Path, rows: list[tuple[Pair, str, str, str]]) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for (image, mask), image_id, _, _ in rows:
        _link(image, folder / "images" / f"{image_id}.jpg")
        _link(mask, folder / "masks" / f"{image_id}_segmentation.png")
    table = pd.DataFrame(
        {
            "image_id": [row[1] for row in rows],
            "group": [row[2] for row in rows],
            "split": [r[3] for r in rows],
        }
    )
    table.to_csv(folder / "split.csv", index=False)
    blanks = {"dx": "nv", "dx_type": "histo", "age": 50, "sex": "unknown", "localization": "unknown"}
    metadata = table[["image_id"]].assign(lesion_id=table["group"], **blanks)
    metadata.to_csv(folder / "HAM10000_metadata.csv", index=False)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # Windows without the right to make links
        shutil.copyfile(source, target)
