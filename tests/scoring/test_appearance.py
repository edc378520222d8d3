"""Drawn photographs of which the answers are known, and real ones at two sizes."""

import math
import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

from skinseg.scoring.appearance import APPEARANCE, appearance, contrast, hair_mask, typology_angle

SKIN, LESION, HAIR = (225, 180, 150), (110, 70, 50), (60, 40, 35)
WORST_MS = 60
"""Ten times what one free core needs of a 600x450 photograph."""


def draw(size=(200, 150), hairs=0, skin=SKIN, lesion=LESION, centre=(0.5, 0.5), seed=0):
    """Returns a disc on skin with `hairs` long strands, and the disc."""
    width, height = size
    ys, xs = np.mgrid[:height, :width]
    truth = (xs - centre[0] * width) ** 2 + (ys - centre[1] * height) ** 2 < (height / 5) ** 2
    image = np.where(truth[..., None], lesion, skin).astype(np.uint8)
    generator = np.random.default_rng(seed)
    for _ in range(hairs):
        angle, offset = generator.uniform(0, np.pi), generator.uniform(-0.4, 0.4) * height
        middle = np.array([width / 2 - offset * np.sin(angle), height / 2 + offset * np.cos(angle)])
        along = np.array([np.cos(angle), np.sin(angle)]) * width
        start, end = (tuple(int(v) for v in middle + sign * along) for sign in (-1, 1))
        cv2.line(image, start, end, HAIR, max(1, width // 200), cv2.LINE_AA)
    return image, truth


def lab(colour):
    """L*, a*, b* by the definition (CIE 15, sRGB under D65), in float64 and without OpenCV."""
    linear = np.array(colour) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    matrix = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    x, y, z = (np.array(matrix) @ linear) / (0.95047, 1, 1.08883)
    fx, fy, fz = (v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def angle(colour):
    lightness, _, yellow = lab(colour)
    return math.degrees(math.atan((lightness - 50) / yellow))


def test_names_and_types():
    found = appearance(*draw())
    assert tuple(found) == APPEARANCE
    assert {type(value) for value in found.values()} == {float}


def test_lesion_share_and_border():
    image, truth = draw()
    assert appearance(image, truth)["lesion_share"] == pytest.approx(100 * truth.mean())
    assert appearance(image, truth)["touches_border"] == 0
    for row, column in ((0, 70), (-1, 70), (70, 0), (70, -1)):
        reaches = truth.copy()
        reaches[row, column] = True
        assert appearance(image, reaches)["touches_border"] == 1


def test_contrast_is_the_difference_in_lightness():
    image, truth = draw()
    expected = lab(SKIN)[0] - lab(LESION)[0]
    assert appearance(image, truth)["contrast"] == pytest.approx(expected, abs=0.05)
    image, truth = draw(skin=LESION, lesion=SKIN)
    assert appearance(image, truth)["contrast"] == pytest.approx(-expected, abs=0.05)


def test_contrast_takes_a_mask_of_another_size():
    image, _ = draw((200, 150))
    for size in ((400, 300), (100, 75)):
        assert contrast(image, draw(size)[1]) == pytest.approx(contrast(*draw()), abs=3)


@pytest.mark.parametrize("size", [(200, 150), (600, 450)])
def test_more_strands_more_hair(size):
    hair = [appearance(*draw(size, hairs))["hair"] for hairs in (0, 1, 3, 8, 20)]
    assert hair[0] == 0
    assert all(more > less for less, more in pairwise(hair)), hair


def test_hair_is_where_the_strand_is():
    image, _ = draw()
    cv2.line(image, (20, 20), (180, 35), HAIR, 1)
    strand = np.zeros(image.shape[:2], np.uint8)
    cv2.line(strand, (20, 20), (180, 35), 1, 1)
    found = hair_mask(image)
    near = cv2.dilate(strand, np.ones((3, 3), np.uint8)) > 0
    assert not found[~near].any()
    assert found[strand > 0].mean() > 0.8


def test_what_is_no_strand():
    image, truth = draw()
    for x in range(10, 200, 12):
        cv2.circle(image, (x, 20), 2, HAIR, -1)
    cv2.rectangle(image, (10, 120), (60, 140), HAIR, -1)
    cv2.line(image, (90, 130), (180, 130), (255, 230, 215), 1)
    corners = np.hypot(*(np.mgrid[:150, :200] - np.array([75, 100])[:, None, None])) > 108
    image[corners] = 5
    assert appearance(image, truth)["hair"] == 0, "dots, boxes, light lines and dark corners"


def test_hair_does_not_depend_on_exposure():
    image, truth = draw(hairs=6)
    hair = appearance(image, truth)["hair"]
    for gain in (0.5, 0.7, 1.1):
        other = np.clip(image * gain, 0, 255).astype(np.uint8)
        assert appearance(other, truth)["hair"] == pytest.approx(hair, rel=0.1)


def test_same_picture_at_several_sizes():
    image, truth = draw((1800, 1350), hairs=6)
    large = appearance(image, truth)
    for size in ((200, 150), (600, 450)):
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        lesion = cv2.resize(truth.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        other = appearance(small, lesion)
        assert other["hair"] == pytest.approx(large["hair"], rel=0.1)
        assert other["ita"] == pytest.approx(large["ita"], abs=1)
        assert other["contrast"] == pytest.approx(large["contrast"], abs=1)
        assert other["lesion_share"] == pytest.approx(large["lesion_share"], abs=0.2)


@pytest.mark.parametrize("skin", [SKIN, (200, 160, 130), (160, 110, 80), (110, 75, 55), (70, 45, 35)])
def test_angle_of_a_flat_colour(skin):
    image, truth = draw(skin=skin, lesion=(20, 15, 10))
    assert appearance(image, truth)["ita"] == pytest.approx(angle(skin), abs=1e-6)


def test_angle_leaves_out_what_is_not_skin():
    image, truth = draw(hairs=5)
    image[:, :70] = 4
    image[60:70, 135:150] = 255
    ring = cv2.dilate(truth.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    image[ring & ~truth] = (170, 120, 90)
    assert appearance(image, truth)["ita"] == pytest.approx(angle(SKIN), abs=1e-6)


def test_angle_beyond_the_scale():
    for bluish in ((200, 190, 230), (60, 55, 90)):
        found = appearance(*draw(skin=bluish))["ita"]
        assert 90 < found < 270


def test_empty_and_full_masks():
    image, truth = draw(hairs=3)
    empty, full = appearance(image, np.zeros_like(truth)), appearance(image, np.ones_like(truth))
    assert (empty["lesion_share"], empty["touches_border"]) == (0, 0)
    assert (full["lesion_share"], full["touches_border"]) == (100, 1)
    for found in (empty, full):
        assert math.isnan(found["contrast"])
        assert math.isnan(found["ita"])
        assert found["hair"] == appearance(image, truth)["hair"]


def test_no_skin_left():
    image, truth = draw()
    image[~truth] = 255
    assert math.isnan(appearance(image, truth)["ita"]), "overexposed"
    assert math.isnan(typology_angle(image, truth, np.ones_like(truth))), "all hair"


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_smallest_images(shape, value):
    for lesion in (False, True):
        found = appearance(np.full((*shape, 3), value, np.uint8), np.full(shape, lesion))
        assert found["lesion_share"] == 100 * lesion


def test_neither_input_is_changed():
    image, truth = draw(hairs=3)
    before = image.copy(), truth.copy()
    appearance(image, truth)
    assert (image == before[0]).all()
    assert (truth == before[1]).all()


def test_refuses():
    image, truth = draw()
    with pytest.raises(TypeError, match="float64"):
        appearance(image / 255, truth)
    with pytest.raises(TypeError, match="uint8 and bool"):
        appearance(image, truth.astype(np.uint8))
    for wrong in ((image[..., 0], truth), (image[1:], truth), (image[:0], truth[:0])):
        with pytest.raises(ValueError, match="expected"):
            appearance(*wrong)


def test_fast():
    image, truth = draw((600, 450), hairs=10)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        appearance(image, truth)
        seconds.append(time.perf_counter() - start)
    assert 1000 * min(seconds) < WORST_MS


@pytest.mark.realdata
def test_real_photographs_at_two_sizes(real_data):
    rows = []
    for path in sorted((real_data / "ham10000_fullres" / "images").glob("*.jpg")):
        both = []
        for image in (path, next((real_data / "ham10000").glob(f"HAM10000_images_part_?/{path.name}"))):
            name = f"{path.stem}_segmentation.png"
            folder = (
                "ham10000_fullres/masks"
                if image is path
                else "ham10000/HAM10000_segmentations_lesion_tschandl"
            )
            pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
            truth = cv2.imread(str(real_data / folder / name), cv2.IMREAD_GRAYSCALE) > 128
            both.append(list(appearance(pixels, truth).values()))
        rows.append(both)
    large, small = np.array(rows).transpose(1, 2, 0)
    assert len(rows) == 64
    difference = dict(zip(APPEARANCE, np.nanmax(np.abs(large - small), axis=1), strict=True))
    assert difference["touches_border"] == 0
    assert difference["lesion_share"] < 0.1
    assert difference["contrast"] < 1
    assert difference["ita"] < 4
    assert difference["hair"] < 3
    hair = APPEARANCE.index("hair")
    assert np.corrcoef(large[hair], small[hair])[0, 1] > 0.95
