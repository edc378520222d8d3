"""Artefacts and lights of dermoscopy: what they change, what they leave, and that they can be repeated."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from skinseg.data.readers.invented import describe_lesion
from skinseg.data.readers.invented_pictures import draw_lesion_images
from skinseg.data.transforms.dermoscopy import HAIR_COLOURS, Bubbles, GelBorder, Hair, Ink, Ruler
from skinseg.data.transforms.hair_removal import HairRemoval, find_hair
from skinseg.data.transforms.lighting import (
    DarkCorners,
    Falloff,
    Gains,
    Highlights,
    ShadesOfGrey,
    gains_to_white,
)

DRAWN = [Hair, Ruler, Ink, Bubbles, GelBorder, DarkCorners, Highlights, Falloff, Gains]
ALL = [*DRAWN, ShadesOfGrey, HairRemoval]
# Not the defaults.
OTHERS: dict[type, dict[str, Any]] = {
    Hair: {"number_range": [40, 50], "colours": ["black"], "stubble": 0.9},
    Ruler: {"styles": ["strip"], "spacing_range": [0.05, 0.06]},
    Ink: {"colours": ["green"], "shapes": ["scribble"]},
    Bubbles: {"number_range": [60, 60], "radius_range": [0.01, 0.02]},
    GelBorder: {"distance_range": [0.1, 0.2]},
    DarkCorners: {"radius_range": [0.5, 0.6], "offset_range": [0.0, 0.01]},
    Highlights: {"cover_range": [0.05, 0.1]},
    Falloff: {"strength_range": [0.8, 0.9]},
    Gains: {"gain_range": [0.5, 2.0]},
    ShadesOfGrey: {"power": 1},
    HairRemoval: {"contrast": 5, "shortest": 0.05},
}
SIZES = [(256, 256), (32, 32), (450, 600), (75, 40)]


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, np.ndarray]:
    """A drawn lesion of 256x256 with its mask of 0 and 1."""
    ((image, mask), *_) = draw_lesion_images(describe_lesion(5, 1), width=256, height=256, seed=5)
    return image, mask // 255


def of_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def hairy(image: np.ndarray) -> np.ndarray:
    """With hair, so that there is something to remove."""
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    for x in (0.2, 0.55):
        ends = (int(x * width), 0), (int((x + 0.2) * width), height)
        cv2.line(image, *ends, (30, 25, 25), max(1, width // 128))
    return image


def seeded(transform: A.BasicTransform, seed: int, image: np.ndarray, **more: Any) -> dict[str, Any]:
    transform.set_random_seed(seed)
    return transform(image=image, **more)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ALL)
def test_the_image_is_changed_and_the_mask_is_not(
    kind: type, size: tuple[int, int], picture: tuple[np.ndarray, np.ndarray]
) -> None:
    image, mask = hairy(of_size(picture[0], size)), of_size(picture[1], size)
    before, outline = image.copy(), mask.copy()
    changed = 0
    for seed in range(8):
        result = seeded(kind(p=1), seed, image, mask=mask)
        assert result["image"].shape == before.shape
        assert result["image"].dtype == np.uint8
        assert np.array_equal(result["mask"], outline)
        changed += not np.array_equal(result["image"], before)
    assert np.array_equal(image, before), "the photograph itself is left alone"
    assert changed >= 7, "in a tiny image a scratch may fall beyond the border"


@pytest.mark.parametrize("kind", DRAWN)
def test_a_seed_repeats_and_another_differs(kind: type, picture: tuple[np.ndarray, np.ndarray]) -> None:
    first, again, other = (seeded(kind(p=1), seed, picture[0])["image"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", [ShadesOfGrey, HairRemoval])
def test_what_draws_nothing(kind: type, picture: tuple[np.ndarray, np.ndarray]) -> None:
    image = hairy(picture[0])
    first, other = (seeded(kind(p=1), seed, image)["image"] for seed in (3, 4))
    assert np.array_equal(first, other)


@pytest.mark.parametrize("kind", ALL)
def test_as_a_dictionary_and_back(kind: type, picture: tuple[np.ndarray, np.ndarray]) -> None:
    image = hairy(picture[0])
    transform = kind(**OTHERS[kind], p=1)
    twin = A.from_dict(A.to_dict(transform))
    assert type(twin) is kind
    found = seeded(twin, 11, image)["image"]
    assert np.array_equal(found, seeded(transform, 11, image)["image"])
    assert not np.array_equal(found, seeded(kind(p=1), 11, image)["image"]), "the arguments came along"


@pytest.mark.parametrize("kind", DRAWN)
def test_replay(kind: type, picture: tuple[np.ndarray, np.ndarray]) -> None:
    chain = A.ReplayCompose([kind(p=1)])
    first = chain(image=picture[0])
    again = A.ReplayCompose.replay(first["replay"], image=picture[0])
    assert np.array_equal(first["image"], again["image"])


@pytest.mark.parametrize("kind", ALL)
def test_never(kind: type, picture: tuple[np.ndarray, np.ndarray]) -> None:
    image = hairy(picture[0])
    assert np.array_equal(seeded(kind(p=0), 0, image)["image"], image)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (Hair, {"number_range": (0, 5)}, "number_range"),
        (Hair, {"number_range": (9, 5)}, "number_range"),
        (Hair, {"thickness_range": (-0.1, 0.1)}, "thickness_range"),
        (Hair, {"colours": ["pink"]}, "colours"),
        (Hair, {"colours": []}, r"colours\n.*found none"),
        (Hair, {"stubble": 1.5}, r"stubble\n.*found 1.5, expected 0 to 1"),
        (Hair, {"p": 2}, "p"),
        (Ruler, {"styles": ["tape"]}, "styles"),
        (Ruler, {"spacing_range": (0, 0.1)}, "spacing_range"),
        (Ink, {"shapes": ["heart"]}, "shapes"),
        (Bubbles, {"radius_range": (0.0, 0.1)}, "radius_range"),
        (GelBorder, {"opacity_range": (0, 2)}, "opacity_range"),
        (DarkCorners, {"radius_range": (0.9, 0.2)}, "radius_range"),
        (Highlights, {"cover_range": (0, 3)}, "cover_range"),
        (Falloff, {"strength_range": 0.5}, "strength_range"),
        (Gains, {"gain_range": (0, 1)}, "gain_range"),
        (ShadesOfGrey, {"power": 0}, r"power\n.*found 0"),
        (HairRemoval, {"widest": 0}, "widest"),
        (HairRemoval, {"contrast": 300}, "contrast"),
    ],
)
def test_arguments_out_of_range(kind: type, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**arguments)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_images_of_another_kind(kind: type, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 and \(height, width, 3\)"):
        kind(p=1)(image=image)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("value", [0, 255])
def test_images_of_one_value(kind: type, value: int) -> None:
    image = np.full((40, 50, 3), value, np.uint8)
    assert seeded(kind(p=1), 0, image)["image"].shape == image.shape


def test_hair_is_of_natural_colour_and_of_the_number_asked_for() -> None:
    skin = np.full((256, 256, 3), 200, np.uint8)
    for name, colour in HAIR_COLOURS.items():
        one = Hair(
            number_range=(1, 1), thickness_range=(0.02, 0.02), length_range=(2, 2), opacity_range=(1, 1),
            colours=(name,), stubble=0, p=1,
        )  # fmt: skip
        image = seeded(one, 1, skin)["image"]
        darkest = image.reshape(-1, 3)[np.abs(image.astype(int) - 200).sum(axis=2).argmax()]
        # Strands vary by a quarter in brightness.
        assert np.all(np.abs(darkest - np.array(colour)) < 0.35 * np.array(colour) + 12), name
        few, many = (Hair(number_range=(n, n), colours=("black",), stubble=0, p=1) for n in (2, 60))
        covered = [np.mean(seeded(hair, 1, skin)["image"] < 150) for hair in (few, many)]
        assert covered[1] > 5 * covered[0]


def test_lengths_grow_with_the_image() -> None:
    """The same share of a large and a small image is covered."""
    shares = []
    for side in (128, 512):
        skin = np.full((side, side, 3), 200, np.uint8)
        fixed = Hair(number_range=(30, 30), colours=("black",), opacity_range=(1, 1), stubble=0, p=1)
        images = [seeded(fixed, seed, skin)["image"] for seed in range(5)]
        shares.append(np.mean([(200 - image.astype(float)).clip(0).mean() for image in images]))
    assert shares[0] == pytest.approx(shares[1], rel=0.15)


def test_dark_corners_are_round() -> None:
    image = np.full((300, 400, 3), 180, np.uint8)
    frame = DarkCorners(radius_range=(0.6, 0.6), softness_range=(0, 0), offset_range=(0, 0), p=1)
    inside = seeded(frame, 0, image)["image"].min(axis=2) > 90
    ys, xs = np.mgrid[:300, :400]
    expected = np.hypot(xs - 199.5, ys - 149.5) < 0.6 * 250
    assert np.mean(inside != expected) < 0.005


def test_falloff_is_of_the_strength_asked_for() -> None:
    image = np.full((101, 101, 3), 200, np.uint8)
    lit = seeded(Falloff(strength_range=(0.5, 0.5), offset_range=(0, 0), p=1), 0, image)["image"]
    assert lit[50, 50].tolist() == [200] * 3
    assert lit[0, 0].tolist() == [100] * 3


def test_gains_multiply_channels(picture: tuple[np.ndarray, np.ndarray]) -> None:
    image = picture[0] // 3 + 20
    lit = seeded(Gains(gain_range=(0.5, 2), p=1), 2, image)["image"]
    ratios = lit / image
    assert ratios.std(axis=(0, 1)).max() < 0.02
    assert len(set(ratios.mean(axis=(0, 1)).round(2))) == 3
    assert np.array_equal(seeded(Gains(gain_range=(1, 1), p=1), 2, image)["image"], image)


@pytest.mark.parametrize("power", [1, 6])
def test_shades_of_grey_by_its_formula(power: float, picture: tuple[np.ndarray, np.ndarray]) -> None:
    values = picture[0].astype(float)
    light = (values**power).mean(axis=(0, 1)) ** (1 / power)
    light /= np.linalg.norm(light)
    assert gains_to_white(picture[0], power) == pytest.approx(1 / (np.sqrt(3) * light))
    expected = np.clip(np.round(values / (np.sqrt(3) * light)), 0, 255)
    found = seeded(ShadesOfGrey(power=power, p=1), 0, picture[0])["image"]
    assert np.abs(found - expected).max() <= 1
    if power == 1:
        assert found.mean(axis=(0, 1)).std() < 1, "the mean is grey"


def test_shades_of_grey_takes_the_colour_of_the_light_away(picture: tuple[np.ndarray, np.ndarray]) -> None:
    lamps = np.array([(0.9, 0.9, 0.6), (0.6, 0.8, 0.9)])
    under_lamps = [(picture[0] * lamp).astype(np.uint8) for lamp in lamps]
    constant = [seeded(ShadesOfGrey(p=1), 0, image)["image"] for image in under_lamps]
    # Which share of the light is red, green and blue; how bright it was is not what is taken away.
    before, after = (
        np.abs(np.subtract(*(image.mean(axis=(0, 1)) / image.mean() for image in images))).max()
        for images in (under_lamps, constant)
    )
    assert after < 0.05 * before
    grey = np.repeat(picture[0][..., :1], 3, axis=2)
    assert np.array_equal(seeded(ShadesOfGrey(p=1), 0, grey)["image"], grey)


def test_hair_is_found_and_replaced_by_skin(picture: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    skin = np.clip(rng.normal((205, 170, 160), 3, (256, 256, 3)), 0, 255).astype(np.uint8)
    lesion = cv2.circle(skin.copy(), (128, 128), 50, (120, 80, 60), -1)
    with_hair = hairy(lesion.copy())
    truth = (with_hair != lesion).any(axis=2)
    found = find_hair(with_hair, widest=0.02, shortest=0.08, contrast=14) > 0
    assert (found & truth).sum() > 0.9 * truth.sum()
    assert found.sum() < 4 * truth.sum(), "not much beyond the hair"
    removed = seeded(HairRemoval(p=1), 0, with_hair)["image"]
    before, after = (np.abs(image.astype(int) - lesion)[truth].mean() for image in (with_hair, removed))
    assert after < 0.12 * before
    assert np.array_equal(removed[~found], with_hair[~found])


def test_a_bend_and_a_tip_go_with_the_hair_and_a_dot_does_not() -> None:
    skin = np.full((256, 256, 3), (205, 170, 160), np.uint8)
    with_hair = skin.copy()
    path = np.array([(20, 60), (120, 60), (125, 64)])
    cv2.polylines(with_hair, [path], False, (40, 30, 30), 2)
    bent = (with_hair != skin).any(axis=2)
    cv2.circle(with_hair, (200, 200), 2, (40, 30, 30), -1)
    removed = seeded(HairRemoval(p=1), 0, with_hair)["image"]
    assert (removed[bent] == skin[bent]).all()
    assert (removed[195:205, 195:205] == with_hair[195:205, 195:205]).all()


def test_without_hair_nothing_is_removed() -> None:
    """Dots and blobs are dark too, but not long; the lesion is not narrow."""
    skin = np.full((256, 256, 3), (205, 170, 160), np.uint8)
    cv2.circle(skin, (128, 128), 50, (120, 80, 60), -1)
    for x in range(20, 250, 20):
        cv2.circle(skin, (x, 20), 2, (90, 60, 50), -1)
    assert np.array_equal(seeded(HairRemoval(p=1), 0, skin)["image"], skin)


def test_an_image_that_is_nearly_all_hair() -> None:
    """The gaps are filled from what little there is."""
    image = np.full((64, 64, 3), 20, np.uint8)
    image[::4] = 200
    result = seeded(HairRemoval(p=1, widest=0.1, contrast=10), 0, image)["image"]
    assert result.shape == image.shape
