"""What is done to every image: the same everywhere, and known to the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import make_ham

from skinseg.data.cache import mapped_pixels
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.inputs import input_files, read_input
from skinseg.data.photographs import read_image
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.splits.make import make_split
from skinseg.data.transforms.hair_removal import HairRemoval
from skinseg.data.transforms.lighting import Gains, ShadesOfGrey
from skinseg.data.transforms.preprocess import Preprocess, compose
from skinseg.errors import SkinsegError

SIZE = (24, 30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_ham(tmp_path / "ham10000", 12)


def grey(power: float = 6) -> Preprocess:
    return Preprocess({"grey": ShadesOfGrey(power=power, p=1)})


def module(root: Path, **options: Any) -> LesionDataModule:
    data = LesionDataModule(
        reader=read_ham10000, split=make_split, root=str(root), image_size=SIZE, num_workers=0, batch_size=4,
        cache_dir=str(root.parent / "cache"), **options,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("cache", ["none", "ram", "memmap"])
@pytest.mark.parametrize("side", ["train", "val", "test"])
def test_every_side_with_every_cache(root: Path, cache: Any, side: str) -> None:
    data = module(root, cache=cache, preprocess=grey())
    dataset = data.dataset(side)
    for batch in getattr(data, f"{side}_dataloader")():
        for image, mask, row in zip(batch["image"], batch["mask"], batch["index"].tolist(), strict=True):
            raw, outline, truth = dataset.files[row].read(SIZE)
            expected = ShadesOfGrey(p=1)(image=raw)["image"]
            assert np.array_equal(image.permute(1, 2, 0), expected)
            assert not np.array_equal(image.permute(1, 2, 0), raw)
            assert np.array_equal(mask[0], outline)
            if side != "train":
                place = batch["index"].tolist().index(row)
                assert torch.equal(batch["truth"][place], torch.from_numpy(truth > 128)), "at native size"


def test_augmentation_comes_after(root: Path) -> None:
    seen: list[np.ndarray] = []

    class Look(A.ImageOnlyTransform):
        def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
            seen.append(img.copy())
            return img

    data = module(root, preprocess=grey(), augment=A.Compose([Look(p=1)]))
    dataset = data.dataset("train")
    dataset[0]
    raw = dataset.files[0].read(SIZE)[0]
    assert np.array_equal(seen[0], ShadesOfGrey(p=1)(image=raw)["image"])


def test_caches_of_other_preprocessing_are_others(root: Path, tmp_path: Path) -> None:
    files = input_files(module(root).catalog.table)

    def folder(preprocess: Preprocess | None) -> Path | None:
        pixels = mapped_pixels(
            files, SIZE, folder=tmp_path / "c", name="ham", limit_gb=1, preprocess=preprocess
        )
        expected = read_input(files[3].image, SIZE, preprocess)
        assert np.array_equal(pixels[pixels.rows_of([files[3].image_id])[0]][0], expected)
        return pixels.folder

    both = Preprocess({"hair": HairRemoval(p=1), "grey": ShadesOfGrey(p=1)})
    turned = Preprocess({"grey": ShadesOfGrey(p=1), "hair": HairRemoval(p=1)})
    folders = [folder(preprocess) for preprocess in (None, grey(), grey(1), both, turned)]
    assert len(set(folders)) == 5
    assert [folder(preprocess) for preprocess in (None, grey(), grey(1))] == folders[:3]


def test_of_threads_each_gets_its_own_pixels(root: Path) -> None:
    """The cache is filled by several threads."""
    both = Preprocess({"hair": HairRemoval(p=1), "grey": ShadesOfGrey(p=1)})
    data = module(root, cache="ram", preprocess=both)
    for row, file in enumerate(input_files(data.catalog.table)):
        assert data._pixels is not None
        assert np.array_equal(data._pixels[row][0], file.read(SIZE, both)[0])


def test_in_the_order_written() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    chain = compose({"invert": A.InvertImg(p=1), "grey": ShadesOfGrey(p=1)})
    assert chain is not None
    expected = ShadesOfGrey(p=1)(image=255 - image)["image"]
    assert np.array_equal(chain(image), expected)
    assert compose({}) is None


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (ShadesOfGrey(p=0.5), r"preprocess\.transforms\.it\.p=0\.5: expected 1"),
        (A.HorizontalFlip(p=1), "HorizontalFlip is no transform .* changes the image alone"),
        (A.OneOf([ShadesOfGrey(p=1)], p=1), "OneOf is no transform"),
        ("text", "str is no transform"),
        (Gains(p=1), "Gains draws at random"),
        (A.CLAHE(p=1), r"CLAHE draws at random .* clip_limit=\[2,2\]"),
        (A.ToFloat(p=1), "ToFloat makes of the image float32"),
        (A.Lambda(image=abs, p=1), "Lambda is no transform"),
        (A.HistogramMatching(p=1), "HistogramMatching failed .*hm_metadata"),
    ],
)
def test_refused(transform: Any, said: str) -> None:
    with pytest.raises(SkinsegError, match=said):
        compose({"it": transform})


def test_fixed_arguments_are_fine() -> None:
    chain = compose({"it": A.CLAHE(clip_limit=(2, 2), p=1)})
    assert chain is not None


def test_read_input_without(root: Path) -> None:
    file = input_files(module(root).catalog.table)[0]
    assert read_input(file.image, read_image(file.image).shape[:2]).shape == (32, 40, 3)
