"""Augmentation in batches: what single transforms do, and that all draw as albumentations does."""

from __future__ import annotations

import random
from typing import Any

import albumentations as A
import cv2
import lightning as L
import numpy as np
import pytest
import torch
from conftest import Train, WriteHam
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from skinseg.build import nodes
from skinseg.config.compose import compose, plain
from skinseg.data.datamodule import LesionDataModule
from skinseg.data.readers.ham10000 import read_ham10000
from skinseg.data.splits.make import make_split
from skinseg.data.transforms import device_augment, parcel
from skinseg.data.transforms.batch_transforms import (
    Affine,
    BatchTransform,
    BrightnessContrast,
    CoarseDropout,
    ColorJitter,
    Elastic,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    HorizontalFlip,
    VerticalFlip,
)
from skinseg.data.transforms.device_augment import DeviceAugment
from skinseg.errors import SkinsegError

Picture = NDArray[np.uint8]
APPEARANCE = (BrightnessContrast, ColorJitter, Gamma, GaussianBlur, GaussianNoise, CoarseDropout)


def picture(height: int = 48, width: int = 64) -> tuple[Picture, Picture]:
    """A smooth image of skin colours with a darker lesion off its centre, and the lesion's mask."""
    ys, xs = np.mgrid[:height, :width]
    mask = (
        ((xs - 0.45 * width) / (0.2 * width)) ** 2 + ((ys - 0.55 * height) / (0.2 * height)) ** 2 < 1
    ).astype(np.uint8)
    noise = np.random.default_rng(5).normal(0, 40, (height, width, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2).reshape(height, width, 3)
    image = np.where(mask[..., None] > 0, (130, 80, 70), (215, 165, 150)) + texture + 0.2 * xs[..., None]
    return cv2.GaussianBlur(image.clip(0, 255).astype(np.uint8), (0, 0), 0.8).reshape(image.shape), mask


def strip(draws: int, image: Picture, mask: Picture) -> tuple[Tensor, Tensor]:
    """One image many times, as a batch."""
    images = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].repeat(draws, 1, 1, 1)
    return images, torch.from_numpy(mask.copy())[None, None].repeat(draws, 1, 1, 1)


def by_device(
    augment: DeviceAugment, draws: int, image: Picture, mask: Picture, seed: int = 0
) -> list[tuple[Picture, Picture]]:
    images, masks = augment(*strip(draws, image, mask), rows=range(draws), epoch=0, seed=seed)
    return list(zip(images.numpy().transpose(0, 2, 3, 1), masks.numpy()[:, 0], strict=True))


def by_albumentations(
    transform: A.BasicTransform | A.Compose, draws: int, image: Picture, mask: Picture, seed: int = 1
) -> list[tuple[Picture, Picture]]:
    chain = transform if isinstance(transform, A.Compose) else A.Compose([transform])
    result = []
    for row in range(draws):
        chain.set_random_state(np.random.default_rng([seed, row]), random.Random(seed * 100_000 + row))
        changed = chain(image=image, mask=mask)
        result.append((changed["image"], changed["mask"]))
    return result


def alone(transform: BatchTransform) -> DeviceAugment:
    return DeviceAugment({"only": transform})


def configured(option: str) -> Any:
    return nodes.instance("augment", plain(compose([f"augment={option}", "run_dir=."]))["augment"])


# --- single transforms, with parameters that leave nothing to chance ---


@pytest.mark.parametrize(("kind", "axis"), [(HorizontalFlip, 1), (VerticalFlip, 0)])
def test_flips_are_exact(kind: type[BatchTransform], axis: int) -> None:
    image, mask = picture(31, 45)
    ((flipped, flipped_mask),) = by_device(alone(kind(p=1)), 1, image, mask)
    assert np.array_equal(flipped, np.flip(image, axis))
    assert np.array_equal(flipped_mask, np.flip(mask, axis))


@pytest.mark.parametrize("size", [(64, 96), (45, 33)])
@pytest.mark.parametrize(
    ("rotate", "scale", "shift", "shear"),
    [(0, 1, 0.2, 0), (90, 1, 0, 0), (-33, 1, 0, 0), (0, 0.5, 0, 0), (0, 1.4, 0, 0), (160, 0.7, -0.12, 8)],
)
def test_affine_equals_opencv(
    size: tuple[int, int], rotate: float, scale: float, shift: float, shear: float
) -> None:
    image, mask = picture(*size)
    options = {
        "rotate": (rotate, rotate), "scale": (scale, scale), "translate_percent": (shift, shift),
        "shear": (shear, shear), "p": 1,
    }  # fmt: skip
    ((ours, our_mask),) = by_device(alone(Affine(**options)), 1, image, mask)
    theirs = A.Affine(**options, border_mode=cv2.BORDER_REFLECT_101)
    ((image_there, mask_there),) = by_albumentations(theirs, 1, image, mask)
    matrix = Affine(**options).matrices(np.full((1, 7), 0.5), *size)[0]
    centre = np.array([[1, 0, size[1] / 2 - 0.5], [0, 1, size[0] / 2 - 0.5], [0, 0, 1]])
    warped = cv2.warpAffine(
        image, (centre @ matrix @ np.linalg.inv(centre))[:2], size[::-1], borderMode=cv2.BORDER_REFLECT_101
    )
    # OpenCV takes places to 1/32 pixel and weights to 1/32768.
    for other in (warped, image_there):
        difference = np.abs(ours.astype(int) - other)
        assert difference.max() <= 4
        assert difference.mean() < 0.4
    assert not np.array_equal(ours, image)
    # Theirs is the nearest pixel, ours half of the pixel's area.
    outline = cv2.morphologyEx(mask_there, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(our_mask[~outline], mask_there[~outline])


def jitter(name: str, factor: float) -> tuple[BatchTransform, A.BasicTransform]:
    """Colour jitter with one of its four changes."""
    still = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    options = still | {name: (factor, factor)}
    return ColorJitter(p=1, **options), A.ColorJitter(**options, p=1)


def light(brightness: float, contrast: float) -> tuple[BatchTransform, A.BasicTransform]:
    ranges = (brightness, brightness), (contrast, contrast)
    return BrightnessContrast(1, *ranges), A.RandomBrightnessContrast(*ranges, p=1)


# Beside each the largest and the mean difference of values: OpenCV's 8-bit HSV cuts saturation too.
FIXED = [
    *((*light(*limits), 1, 0.01) for limits in ((0.1, 0.2), (-0.3, -0.1), (0.5, 0.0))),
    *((Gamma(1, (one, one)), A.RandomGamma((one, one), p=1), 1, 0.01) for one in (70, 125)),
    *((*jitter("brightness", factor), 1, 0.01) for factor in (0.75, 1.25)),
    *((*jitter("contrast", factor), 1, 0.01) for factor in (0.7, 1.3)),
    *((*jitter("saturation", factor), 1, 0.05) for factor in (0.6, 1.4)),
    *((*jitter("hue", factor), 5, 1) for factor in (0.03, -0.03, 0.4)),
    *((GaussianBlur(1, (one, one)), A.GaussianBlur(0, (one, one), p=1), 1, 0.01) for one in (0.5, 0.9, 1.2)),
]


@pytest.mark.parametrize(("ours", "theirs", "largest", "mean"), FIXED)
def test_appearance_equals_albumentations(
    ours: BatchTransform, theirs: A.BasicTransform, largest: float, mean: float
) -> None:
    image, mask = picture()
    ((here, same),) = by_device(alone(ours), 1, image, mask)
    ((there, _),) = by_albumentations(theirs, 1, image, mask)
    difference = np.abs(here.astype(int) - there)
    assert difference.max() <= largest
    assert difference.mean() <= mean
    assert np.array_equal(same, mask)
    assert not np.array_equal(here, image)


# --- distributions, over many draws of fixed seeds ---

DRAWS = 400
# Of two samples from one distribution in a thousand, one is further apart than this.
KS_LIMIT = 1.95 * (2 / DRAWS) ** 0.5


def pose_of(pair: tuple[Picture, Picture]) -> dict[str, float]:
    """Where the lesion lies, how large, how long and how inclined it is."""
    moments = cv2.moments(pair[1], binaryImage=True)
    area = max(moments["m00"], 1)
    values = {"area": area, "x": moments["m10"] / area, "y": moments["m01"] / area}
    values["wide"], values["high"] = moments["mu20"] / area**2, moments["mu02"] / area**2
    return values | {"inclined": moments["mu11"] / area**2}


def colour_of(pair: tuple[Picture, Picture]) -> dict[str, float]:
    """Mean and spread of the channels, and how much neighbours differ."""
    image = pair[0].astype(float)
    values = {f"mean {name}": image[..., i].mean() for i, name in enumerate("rgb")}
    values |= {f"spread {name}": image[..., i].std() for i, name in enumerate("rgb")}
    values |= {
        "red to green": (image[..., 0] - image[..., 1]).mean(),
        "black": (image.max(axis=2) < 8).mean(),
    }
    return values | {
        "rough": np.abs(np.diff(image, axis=1)).mean(),
        "rough down": np.abs(np.diff(image, axis=0)).mean(),
    }


def assert_alike(
    ours: list[tuple[Picture, Picture]], theirs: list[tuple[Picture, Picture]], describe: list[Any]
) -> None:
    """Compares the distribution of each description by the test of Kolmogorov and Smirnov.

    Values are rounded to a fiftieth of theirs' standard deviation, so that those which stand at one point
    are not told apart by how a pixel was rounded.
    """
    for one in describe:
        here, there = [one(pair) for pair in ours], [one(pair) for pair in theirs]
        for name in here[0]:
            a, b = (np.array([values[name] for values in side]) for side in (here, there))
            tolerance = 0.02 * (np.std(b) or 1)
            a, b = (np.round(side / tolerance) * tolerance for side in (a, b))
            apart = stats.ks_2samp(a, b).statistic
            assert apart < KS_LIMIT, f"{name}: {apart:.3f}; ours {a.mean():.4g}, theirs {b.mean():.4g}"


@pytest.mark.parametrize("name", ["light", "strong"])
def test_each_transform_draws_as_albumentations(name: str) -> None:
    image, mask = picture()
    theirs = plain(compose([f"augment={name}", "run_dir=."]))["augment"]["transforms"]
    ours = configured(f"{name}_device").transforms
    assert list(ours) == list(theirs)
    for part, transform in ours.items():
        if part.endswith("flip") or part == "elastic":
            continue
        always = type(transform)(**{**vars(transform), "p": 1})
        other = nodes.instance("augment", {**theirs[part], "p": 1})
        assert_alike(
            by_device(alone(always), DRAWS, image, mask),
            by_albumentations(other, DRAWS, image, mask),
            [pose_of if part == "affine" else colour_of],
        )


@pytest.mark.parametrize("name", ["light", "strong"])
def test_all_together_draw_as_albumentations(name: str) -> None:
    image, mask = picture()
    ours = by_device(configured(f"{name}_device"), DRAWS, image, mask)
    theirs = by_albumentations(configured(name), DRAWS, image, mask)
    assert_alike(ours, theirs, [pose_of, colour_of])
    same = [np.mean([np.array_equal(pair[0], image) for pair in side]) for side in (ours, theirs)]
    assert abs(same[0] - same[1]) < 0.03


def test_jitter_changes_colours_in_every_order() -> None:
    """By factors that leave nothing else to chance: 24 orders, of which each looks its own way."""
    image, mask = picture()
    factors = {"brightness": (1.8, 1.8), "contrast": (0.5, 0.5), "saturation": (2.0, 2.0), "hue": (0.2, 0.2)}
    ours = by_device(alone(ColorJitter(1, **factors)), 400, image, mask)
    theirs = by_albumentations(A.ColorJitter(**factors, p=1), 400, image, mask)
    here, there = ({one.tobytes(): one.astype(float) for one, _ in side} for side in (ours, theirs))
    assert len(here) == len(there) == 24
    for one in here.values():
        assert min(np.abs(one - other).mean() for other in there.values()) < 2
    counts = np.unique([one.tobytes() for one, _ in ours], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.001


def test_elastic_moves_pixels_as_far_as_albumentations_does() -> None:
    """The red channel is the column and the green one the row, so that an image shows where it came from."""
    ys, xs = np.mgrid[:64, :80].astype(np.uint8) * 3
    image, mask = np.stack([xs, ys, 0 * xs], axis=-1), np.zeros((64, 80), np.uint8)

    def shifts(pairs: list[tuple[Picture, Picture]]) -> NDArray[np.float64]:
        inner = np.stack([pair[0] for pair in pairs])[:, 12:-12, 12:-12, :2].astype(float)
        return (inner - image[12:-12, 12:-12, :2]) / 3

    options: dict[str, Any] = {"alpha": 60.0, "sigma": 6.0, "p": 1}
    ours = shifts(by_device(alone(Elastic(**options)), 150, image, mask))
    other = A.ElasticTransform(**options, approximate=True, border_mode=cv2.BORDER_REFLECT_101)
    theirs = shifts(by_albumentations(other, 150, image, mask))
    for axis in (0, 1):
        assert ours[..., axis].std() == pytest.approx(theirs[..., axis].std(), rel=0.06)
        assert abs(ours[..., axis].mean()) < 0.05
        # How alike the shifts of pixels are that lie 8 apart.
        near = [
            np.corrcoef(one[:, :, 8:, axis].ravel(), one[:, :, :-8, axis].ravel())[0, 1]
            for one in (ours, theirs)
        ]
        assert near[0] == pytest.approx(near[1], abs=0.06)
    assert abs(np.corrcoef(ours[..., 0].ravel(), ours[..., 1].ravel())[0, 1]) < 0.1


def test_affine_draws_width_and_height_apart_and_shifts_whole_pixels() -> None:
    matrices = Affine(1, scale=(0.5, 2), translate_percent=(-0.3, 0.3)).matrices(
        np.random.default_rng(0).random((500, 7)), 50, 70
    )
    assert abs(np.corrcoef(matrices[:, 0, 0], matrices[:, 1, 1])[0, 1]) < 0.1
    assert np.array_equal(matrices[:, :2, 2], matrices[:, :2, 2].astype(int))
    assert (np.abs(matrices[:, :2, 2]).max(axis=0) == (20, 14)).all()


@pytest.mark.parametrize("name", ["light", "strong"])
def test_options_say_the_same_as_those_of_albumentations(name: str) -> None:
    """A range that is changed in one file only would make the choice more than one of speed."""
    theirs, ours = (
        plain(compose([f"augment={one}", "run_dir=."]))["augment"]["transforms"]
        for one in (name, f"{name}_device")
    )
    assert list(ours) == list(theirs)
    ignored = {"_target_", "border_mode", "approximate", "blur_limit", "fill_mask"}
    for part in ours:
        for key in (ours[part].keys() | theirs[part].keys()) - ignored:
            here, there = ours[part][key], theirs[part][key]
            # albumentations takes one number for a symmetric range.
            assert here == (
                [-there, there] if isinstance(here, list) and not isinstance(there, list) else there
            )


# --- masks, seeds, batches, odd input ---


def test_masks_stay_on_lesions() -> None:
    _, mask = picture()
    image = np.repeat(200 * mask[..., None], 3, axis=2)
    strong = configured("strong_device").transforms
    pose = DeviceAugment(
        {name: strong[name] for name in ("horizontal_flip", "vertical_flip", "affine", "elastic")}
    )
    for changed, moved in by_device(pose, 100, image, mask):
        # Half of 200, which the image shows rounded.
        clear = np.abs(changed[..., 0].astype(int) - 100) > 1
        assert np.array_equal(changed[clear, 0] > 100, moved[clear] > 0)
        assert clear.mean() > 0.99


@pytest.mark.parametrize("kind", APPEARANCE)
def test_appearance_leaves_the_mask(kind: type[BatchTransform]) -> None:
    image, mask = picture()
    for changed, same in by_device(alone(kind(p=1)), 20, image, mask):
        assert np.array_equal(same, mask)
        assert not np.array_equal(changed, image)


def test_dropout_paints_rectangles() -> None:
    image, mask = picture()
    transform = CoarseDropout(1, (2, 2), (0.25, 0.25), (0.125, 0.125), fill=7)
    for changed, _ in by_device(alone(transform), 20, image, mask):
        painted = (changed == 7).all(axis=2)
        assert 12 * 8 < painted.sum() <= 2 * 12 * 8
        assert np.array_equal(changed[~painted], image[~painted])


@pytest.mark.parametrize(("images_at_once", "as_on_gpu"), [(1, False), (3, False), (64, False), (4, True)])
def test_an_image_does_not_depend_on_its_batch(
    images_at_once: int, as_on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = picture()
    strong = configured("strong_device")
    images, masks = strip(40, image, mask)
    images = images + torch.arange(40, dtype=torch.uint8)[:, None, None, None]
    rows = [3 * i for i in range(40)]
    whole = strong(images, masks, rows=rows, epoch=2, seed=5)
    monkeypatch.setattr(device_augment, "_CPU_IMAGES", images_at_once)
    if as_on_gpu:
        for module in (device_augment, parcel):
            monkeypatch.setattr(module, "on_cpu", lambda tensor: False)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:30]
    some = strong(images[order], masks[order], rows=[rows[i] for i in order.tolist()], epoch=2, seed=5)
    for all_of_them, part in zip(whole, some, strict=True):
        assert torch.equal(all_of_them[order], part)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(1, rotate=(-90, 90)),
        Elastic(1, alpha=60),
        GaussianNoise(1, std_range=(0.1, 0.1)),
        CoarseDropout(1),
    ],
)
def test_seed_epoch_and_row_each_change_the_draw(transform: BatchTransform) -> None:
    image, mask = picture()
    images, masks = strip(1, image, mask)
    augment = alone(transform)
    first, again, *others = (
        augment(images, masks, rows=[row], epoch=epoch, seed=seed)[0]
        for seed, epoch, row in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    assert torch.equal(first, again)
    assert len({tensor.numpy().tobytes() for tensor in (first, *others)}) == 4


def test_transforms_draw_apart_from_each_other() -> None:
    """Two coins show all four combinations equally often, and a third transform does not turn them."""
    image, mask = picture(8, 8)
    coins = {"across": HorizontalFlip(), "down": VerticalFlip()}
    seen = [pair[0].tobytes() for pair in by_device(DeviceAugment(coins), 400, image, mask)]
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 0.01
    dark = DeviceAugment({**coins, "noise": GaussianNoise(p=0.5)})
    assert [pair[1].tobytes() for pair in by_device(dark, 400, image, mask)] == [
        pair[1].tobytes() for pair in by_device(DeviceAugment(coins), 400, image, mask)
    ]


def test_what_is_not_drawn_stays_bit_by_bit() -> None:
    image, mask = (
        np.random.default_rng(0).integers(0, top, shape, dtype=np.uint8)
        for top, shape in ((256, (33, 47, 3)), (2, (33, 47)))
    )
    idle = DeviceAugment(
        {
            name: type(one)(**{**vars(one), "p": 0})
            for name, one in configured("strong_device").transforms.items()
        }
    )
    images, masks = strip(20, image, mask)
    for augment in (idle, DeviceAugment({}), DeviceAugment({"blur": None})):
        new_images, new_masks = augment(images, masks, rows=range(20), epoch=0, seed=0)
        assert torch.equal(new_images, images)
        assert torch.equal(new_masks, masks)
        assert new_images.data_ptr() != images.data_ptr(), "a new tensor"
    rare = DeviceAugment(
        {
            name: type(one)(**{**vars(one), "p": 0.05})
            for name, one in configured("strong_device").transforms.items()
        }
    )
    before = images.clone()
    pairs = by_device(rare, 200, image, mask)
    assert torch.equal(images, before)
    assert 0.5 < np.mean([np.array_equal(a, image) and np.array_equal(b, mask) for a, b in pairs]) < 0.75


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 3), (33, 47)])
def test_any_size(size: tuple[int, int]) -> None:
    transforms = configured("strong_device").transforms
    always = DeviceAugment({name: type(one)(**{**vars(one), "p": 1}) for name, one in transforms.items()})
    image, mask = (np.full((*size, 3), 120, np.uint8), np.ones(size, np.uint8))
    for changed, moved in by_device(always, 6, image, mask):
        assert changed.shape == (*size, 3)
        assert changed.dtype == moved.dtype == np.uint8
        assert (moved == 1).all()
    for name, one in transforms.items():
        if name in ("horizontal_flip", "vertical_flip", "affine", "elastic", "blur"):
            sure = alone(type(one)(**{**vars(one), "p": 1}))
            assert all((changed == 120).all() for changed, _ in by_device(sure, 6, image, mask)), name


def test_no_images() -> None:
    images, masks = torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    new_images, new_masks = configured("strong_device")(images, masks, rows=[], epoch=0, seed=0)
    assert (new_images.shape, new_masks.shape) == (images.shape, masks.shape)


# --- mistakes ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, r"images: found torch.float32 of shape \(2, 3, 4, 4\)"),
        ({"masks": torch.zeros(2, 1, 4, 4, dtype=torch.bool)}, "masks: found torch.bool"),
        (
            {"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)},
            r"expected torch.uint8 of shape \(images, 3",
        ),
        ({"masks": torch.zeros(2, 1, 4, 5, dtype=torch.uint8)}, "do not belong together"),
        ({"rows": [1]}, "1 row for 2 images"),
        ({"rows": [1, -1]}, "rows: found -1, expected 0 or more"),
        ({"rows": torch.tensor([1, 2])}, r"hand over rows.tolist\(\)"),
        ({"epoch": -1}, "epoch: found -1"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_bad_batches(change: dict[str, Any], message: str) -> None:
    good = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "masks": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "rows": [0, 1], "epoch": 0, "seed": 0,
    }  # fmt: skip
    with pytest.raises(SkinsegError, match=message):
        alone(HorizontalFlip())(**{**good, **change})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("affine.scale=[1.2,0.8]", r"Affine.scale=\[1.2, 0.8\]: expected two increasing numbers"),
        ("affine.rotate=30", r"Affine.rotate=30: expected two increasing numbers"),
        ("affine.scale=[-1,1]", "Affine.scale: found -1, expected 0.01 to 100"),
        ("horizontal_flip.p=2", "HorizontalFlip.p: found 2"),
        ("noise.std_range=[0,2]", "GaussianNoise.std_range: found 2"),
        ("dropout.fill=300", "CoarseDropout.fill: found 300, expected 0 to 255"),
        ("elastic.sigma=0", "Elastic.sigma: found 0"),
        ("affine._target_=albumentations.Affine", "augment.transforms.affine: .* does not work on batches"),
        (
            "gamma._target_=skinseg.data.transforms.batch_transforms.HorizontalFlip",
            "a second HorizontalFlip beside",
        ),
    ],
)
def test_bad_options(override: str, message: str) -> None:
    overrides = [f"augment.transforms.{override}", "augment=strong_device", "run_dir=."]
    if "gamma._target_" in override:
        overrides.append("~augment.transforms.gamma.gamma_limit")
    if "affine._target_" in override:
        overrides.append("+augment.transforms.affine.border_mode=4")
    with pytest.raises(SkinsegError, match=message):
        nodes.instance("augment", plain(compose(overrides))["augment"])


def test_another_order() -> None:
    with pytest.raises(SkinsegError, match=r"augment.transforms.b: comes after a, but is applied before it"):
        DeviceAugment({"a": GaussianBlur(), "b": Affine()})


# --- in training ---


class Seen(L.LightningModule):
    """Keeps the batches that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.trained: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.scored: list[tuple[int, Tensor, Tensor]] = []

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        for row, image, mask in zip(batch["index"].tolist(), batch["image"], batch["mask"], strict=True):
            self.trained[self.current_epoch, row] = (image, mask)
        assert set(batch) == {"image", "mask", "image_id", "index"}
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch: dict[str, Any]) -> None:
        self.scored += zip(batch["index"].tolist(), batch["image"], batch["mask"], strict=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_training_batches_are_augmented_and_others_are_not(write_ham: WriteHam) -> None:
    augment = configured("strong_device")
    data = LesionDataModule(
        reader=read_ham10000, split=make_split, root=str(write_ham(20)), image_size=(24, 30), batch_size=4,
        num_workers=0, augment=augment, seed=3,
    )  # fmt: skip
    seen = Seen()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(seen, datamodule=data)
    train, val = data.dataset("train"), data.dataset("val")
    assert train.transform is None
    assert {epoch for epoch, _ in seen.trained} == {0, 1}
    for (epoch, row), (image, mask) in seen.trained.items():
        sample = train[row]
        images, masks = augment(sample["image"][None], sample["mask"][None], rows=[row], epoch=epoch, seed=3)
        assert torch.equal(images[0], image)
        assert torch.equal(masks[0], mask)
    assert seen.scored
    for row, image, mask in seen.scored:
        assert torch.equal(image, val[row]["image"])
        assert torch.equal(mask, val[row]["mask"])


def test_a_run(train: Train) -> None:
    folder = train("augment=strong_device")
    assert (folder / "scores.csv").is_file()
