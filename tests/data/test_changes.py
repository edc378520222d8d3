"""What augmentation, preprocessing and mixing hand on is what a network takes, or a message."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import Train, make_ham, train_tiny
from torch import Tensor

from skinseg.config.compose import compose as compose_config
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.dataset import EpochSampler, collate
from skinseg.data.inputs import read_input
from skinseg.data.loader import LateDataLoader
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.splits.make import make_split
from skinseg.data.transforms.augment import compose
from skinseg.data.transforms.changes import augmented, augmented_batch, mixed_batch
from skinseg.data.transforms.device_augment import DeviceAugment
from skinseg.data.transforms.mix import CutMix
from skinseg.errors import SkinsegError
from skinseg.inference.predictor import Predictor
from skinseg.models.net import LesionNet
from skinseg.preview import run as preview

SIZE = (24, 30)
BOX = {"height": 16, "width": 16}
SMALL = {"size": (16, 16)}
FLAT = {"size": (2, 16, 16)}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AtLeastOneBBoxRandomCrop": BOX,
    "CenterCrop": BOX,
    "CenterCrop3D": FLAT,
    "CropAndPad": {"px": 2, "keep_size": False},
    "CropNonEmptyMaskIfExists": BOX,
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 2},
    "LongestMaxSize": {"max_size": 16},
    "Pad3D": {"padding": 2},
    "PadIfNeeded3D": {"min_zyx": (2, 16, 16)},
    "RandomCrop": BOX,
    "RandomCrop3D": FLAT,
    "RandomResizedCrop": SMALL,
    "RandomSizedBBoxSafeCrop": BOX,
    "RandomSizedCrop": {"min_max_height": (8, 16), **SMALL},
    "Resize": BOX,
    "SmallestMaxSize": {"max_size": 16},
    "TextImage": {"font_path": "nowhere.ttf"},
}
"""What the constructors of albumentations do not do without."""

ALL = sorted(
    name
    for name, kind in vars(A).items()
    if inspect.isclass(kind)
    and issubclass(kind, A.BasicTransform)
    and kind not in (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)
)


def picture() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[6:15, 8:20] = 1
    return image, mask


def augment(transforms: Mapping[str, Any], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chain = compose(transforms)
    assert chain is not None
    chain.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return augmented(chain, *picture())


@pytest.mark.parametrize("name", ALL)
def test_every_transform_of_albumentations_fits_or_is_refused_by_name(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transform = getattr(A, name)(**ARGUMENTS.get(name, {}), p=1)
        for seed in range(4):
            try:
                image, mask = augment({"it": transform}, seed)
            except SkinsegError as error:
                said = str(error)
                assert said.startswith(f"augment.transforms.it: {name} ")
                assert "\n" not in said
            else:
                assert image.dtype == mask.dtype == np.uint8
                assert (image.shape, mask.shape) == ((*SIZE, 3), SIZE)
                assert set(np.unique(mask)) <= {0, 1}


def with_nan(image: np.ndarray, **_: Any) -> np.ndarray:
    return np.where(image > 250, np.nan, image).astype(np.float32)


def by(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """Returns a function of the kind that `albumentations.Lambda` takes."""

    def changed(array: np.ndarray, **_: Any) -> Any:
        return change(array)

    return changed


REFUSED: dict[str, tuple[A.BasicTransform, str]] = {
    "normalised": (A.Normalize(p=1), r"image float32 of .*, values -2\..* expected uint8 .* leave out Norm"),
    "tensor": (A.ToTensorV2(), r"image torch\.uint8 of shape \(3, 24, 30\).* leave out .*ToTensorV2"),
    "NaN": (A.Lambda(image=with_nan, p=1), r"image float32 .* with NaN; expected"),
    "nothing": (A.Lambda(image=by(lambda image: None), p=1), r"image nothing; .* returns arrays"),
    "smaller": (A.RandomCrop(16, 16, p=1), r"image uint8 of shape \(16, 16, 3\).*\(24, 30, 3\).*image_size"),
    "too large to crop": (A.RandomCrop(64, 64, p=1), r"RandomCrop failed on an image.*Crop size"),
    "padded": (A.CropAndPad(px=2, keep_size=False, p=1), r"\(28, 34, 3\).*keep_size=true"),
    "turned": (A.Transpose(p=1), r"image uint8 of shape \(30, 24, 3\).*turn by 90 degrees"),
    "filled": (A.CropAndPad(px=3, fill_mask=255, p=1), r"mask uint8 .* 0 to 255; .*1 \(lesion\).*fill_"),
    "scaled": (A.Lambda(mask=by(lambda mask: mask * 255), p=1), r"mask uint8 .* 0 to 255; expected"),
    "soft": (A.Lambda(mask=by(lambda mask: mask * np.float32(0.5)), p=1), r"mask float32 .* 0 to 0\.5; "),
    "bool": (A.Lambda(mask=by(lambda mask: mask > 0), p=1), r"mask bool of shape \(24, 30\)"),
    "another size": (A.Lambda(mask=by(lambda mask: mask[2:]), p=1), r"mask uint8 of shape \(22, 30\)"),
    "channels": (A.Lambda(image=by(lambda image: image[..., :1]), p=1), r"shape \(24, 30, 1\)"),
    "boxes": (A.BBoxSafeRandomCrop(p=1), r"BBoxSafe.* failed .*KeyError: 'bboxes'.*leave out .*boxes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    transform, said = REFUSED[kind]
    with pytest.raises(SkinsegError, match=r"^augment\.transforms\.it: .*" + said):
        augment({"flip": A.HorizontalFlip(p=1), "it": transform})


def test_of_a_chain_the_part_at_fault_is_named() -> None:
    smaller, back = A.CenterCrop(16, 16, p=1), A.Resize(*SIZE, p=1)
    for chain in (
        {"smaller": smaller, "it": A.Normalize(p=1), "back": back},
        {"it": A.Normalize(p=1), "flip": A.HorizontalFlip(p=1)},
        {"flip": A.HorizontalFlip(p=1), "it": A.OneOf([A.Normalize(p=1)], p=1)},
    ):
        with pytest.raises(SkinsegError, match=r"^augment\.transforms\.it: (Normalize|OneOf) makes"):
            augment(chain)
    with pytest.raises(SkinsegError, match=r"^augment\.transforms\.it: RandomCrop failed .*\(16, 16, 3\)"):
        augment({"smaller": smaller, "it": A.RandomCrop(20, 20, p=1)})


def test_what_is_brought_back_is_fine() -> None:
    image, mask = augment(
        {
            "smaller": A.CenterCrop(16, 16, p=1),
            "float": A.ToFloat(p=1),
            "back": A.Resize(*SIZE, p=1),
            "whole": A.FromFloat(dtype="uint8", p=1),
        }
    )
    assert (image.dtype, image.shape, mask.shape) == (np.uint8, (*SIZE, 3), SIZE)


class Own:
    """An augmentation of one's own."""

    def __init__(self, result: Callable[..., Any]) -> None:
        self.result = result

    def set_random_state(self, *_: object) -> None:
        """Draws nothing."""

    def __call__(self, *, image: np.ndarray, mask: np.ndarray) -> Any:
        return self.result(image, mask)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda image, mask: {"image": image}, "mask nothing"),
        (lambda image, mask: (image, mask), "image nothing"),
        (lambda image, mask: {"image": [1], "mask": mask}, "image a list"),
        (lambda image, mask: 1 / 0, r"failed on an image.*ZeroDivisionError.*test_changes\.py, line \d+"),
    ],
)
def test_augmentation_of_ones_own(result: Callable[..., Any], said: str) -> None:
    with pytest.raises(SkinsegError, match=f"^augment: Own .*{said}"):
        augmented(Own(result), *picture())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_ham(tmp_path / "ham10000", 12)


def module(root: Path, **options: Any) -> LesionDataModule:
    return LesionDataModule(
        reader=read_ham10000, split=make_split, root=str(root), image_size=SIZE, batch_size=4, **options
    )


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(SkinsegError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_loader_processes_hand_on_the_message_alone(root: Path, cache: Any) -> None:
    said = set()
    for workers in (0, 2):
        data = module(root, num_workers=workers, cache=cache, augment=compose({"it": A.Normalize(p=1)}))
        data.setup("fit")
        said.add(refusal(lambda data=data: list(data.train_dataloader())).partition(", values")[0])
    start = "augment.transforms.it: Normalize makes of the image float32 of shape (24, 30, 3)"
    assert said == {start}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_of_a_file_that_breaks_during_the_run(root: Path, workers: int) -> None:
    dataset = module(root).dataset("train")
    Path(dataset.files[0].image).write_bytes(b"")
    loader = LateDataLoader(
        dataset, sampler=EpochSampler(len(dataset), shuffle=False), num_workers=workers, collate_fn=collate
    )
    said = refusal(lambda: list(loader))
    assert said.startswith(dataset.files[0].image)
    assert "Traceback" not in said


def test_a_later_batch_is_looked_at_too(root: Path) -> None:
    calls = iter(range(100))
    late = Own(lambda image, mask: {"image": image, "mask": mask * (1 + (next(calls) > 4))})
    batches = iter(module(root, num_workers=0, augment=late).train_dataloader())
    next(batches)
    with pytest.raises(SkinsegError, match=r"^augment: Own makes of the mask .* values 0 to 2"):
        next(batches)


def float_preprocessing(image: np.ndarray) -> np.ndarray:
    return image / np.float32(255)


def failing_preprocessing(image: np.ndarray) -> np.ndarray:
    raise ValueError("no skin")


PREPROCESSED = [
    (float_preprocessing, "preprocess: function makes of the image float32"),
    (failing_preprocessing, "preprocess: function failed .*ValueError: no skin"),
]


@pytest.mark.parametrize(("change", "said"), PREPROCESSED)
@pytest.mark.parametrize("workers", [0, 2])
def test_preprocessing_of_ones_own_in_training_and_prediction(
    root: Path, change: Any, said: str, workers: int
) -> None:
    data = module(root, num_workers=workers, preprocess=change)
    paths = [file.image for file in data.dataset("test").files]
    predictor = Predictor(
        LesionNet(torch.nn.Conv2d(3, 1, 1)),
        input_size=SIZE, preprocess=change, num_workers=workers, device="cpu",
    )  # fmt: skip
    for call in (
        lambda: list(data.train_dataloader()),
        lambda: list(predictor(paths)),
        lambda: read_input(paths[0], SIZE, change),
    ):
        with pytest.raises(SkinsegError, match=f"^{said}"):
            call()


class FloatBatches(DeviceAugment):
    def __call__(self, images: Tensor, masks: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return images / 255, masks


class Paper(CutMix):
    """A mixing of one's own, which gives what it was told to."""

    def __init__(self, result: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, float | None]]) -> None:
        super().__init__(p=1)
        self.result = result

    def mix(self, batch: Any, others: Any, rng: Any) -> tuple[Tensor, Tensor, float | None]:
        return self.result(*batch)


def batch() -> tuple[Tensor, Tensor]:
    return torch.zeros(4, 3, *SIZE, dtype=torch.uint8), torch.zeros(4, 1, *SIZE, dtype=torch.uint8)


DRAW = {"rows": [0, 1, 2, 3], "epoch": 0, "seed": 0}


def test_batches_that_are_augmented_on_the_device() -> None:
    with pytest.raises(SkinsegError, match=r"^augment: FloatBatches makes of the image torch\.float32"):
        augmented_batch(FloatBatches({}), *batch(), **DRAW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda images, masks: (images.float(), masks, None), r"makes of the image torch\.float32"),
        (lambda images, masks: (images, masks + 2, None), r"makes of the mask .* values 2 to 2; expected"),
        (lambda images, masks: (images, 0.3 * masks, None), r"makes of the mask torch\.float32"),
        (lambda images, masks: (images[:2], masks, None), r"makes of the image .*\(2, 3, 24, 30\)"),
        (lambda images, masks: (images, masks, 0.5), r"makes of the mask .*\(4, 1, .* expected .*\(4, 2, "),
        (lambda images, masks: (images, masks.repeat(1, 2, 1, 1), 1.5), r"returns the share 1\.5, expected"),
    ],
)
def test_batches_that_are_mixed(result: Any, said: str) -> None:
    with pytest.raises(SkinsegError, match=f"^mix: Paper {said}"):
        mixed_batch(Paper(result), *batch(), **DRAW)  # type: ignore[arg-type]


NORMALIZE = "+augment.transforms.it={_target_: albumentations.Normalize, p: 1}"
SAID = r"^augment\.transforms\.it: Normalize makes of the image float32 of shape "


@pytest.mark.parametrize("workers", [0, 2])
def test_training(train: Train, workers: int) -> None:
    with pytest.raises(SkinsegError, match=SAID + r"(?!.*Traceback)"):
        train(NORMALIZE, f"data.num_workers={workers}")


def test_preview_says_the_same(root: Path, tmp_path: Path) -> None:
    config = compose_config([f"run_dir={tmp_path}", f"data.root={root}", NORMALIZE], "preview")
    with pytest.raises(SkinsegError, match=SAID):
        preview(config)


def test_it_is_told_before_any_data_are_read_or_anything_is_written(tmp_path: Path) -> None:
    seldom = NORMALIZE.replace("p: 1", "p: 0.5")
    with pytest.raises(SkinsegError, match=SAID):
        train_tiny(tmp_path / "nowhere", tmp_path / "run", seldom)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"augment": compose({"it": A.RandomCrop(20, 20, p=1)})},
            r"augment\.transforms\.it: RandomCrop makes",
        ),
        ({"augment": FloatBatches({})}, "augment: FloatBatches makes"),
        ({"mix": Paper(lambda images, masks: (images, masks + 2, None))}, "mix: Paper makes"),
        ({"preprocess": float_preprocessing}, "preprocess: function makes"),
    ],
)
def test_each_kind_of_change_is_tried(change: dict[str, Any], said: str) -> None:
    module(Path("nowhere")).try_changes()
    with pytest.raises(SkinsegError, match=f"^{said}"):
        module(Path("nowhere"), **change).try_changes()
