"""Pictures of lesions that nobody has."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skinseg.data.readers.invented import FIRST_NUMBER, LOOKS, Lesion, Look, generator
from skinseg.data.transforms.drawing import Chart, Picture, blend, curve, noise, opacity, ramp, stroke

# Everything is drawn at this multiple of the asked size and then averaged down.
SUPERSAMPLING = 2


# A chart reaches this far from the lesion's centre, in mean radii of the lesion.
EXTENT = 2.0


# Absorption of red, green and blue light for one unit of the chromophore.
MELANIN = np.array((0.45, 0.8, 1.05), np.float32)


BLOOD = np.array((0.12, 0.85, 0.65), np.float32)


UNPIGMENTED = np.array((250, 232, 228), np.float32)


VEIL = np.array((98, 96, 122), np.float32)


PALE = np.array((240, 214, 212), np.float32)


@dataclass(frozen=True)
class _Charts:
    """What a lesion is made of, on a square around its centre."""

    absorbers: Chart
    """Melanin, blood, veil and pale scatter: shape (side, side, 4), 0 outside the lesion."""

    level: Chart
    """Above 0 inside the outline, below 0 outside, in mean radii."""

    radius: float
    """Pixels of the supersampled frame that one mean radius takes in the first photograph."""

    skin: tuple[float, float, float]
    """Melanin, blood and sun damage of the skin around."""


def draw_lesion_images(
    lesion: Lesion, *, width: int = 200, height: int = 150, seed: int = 0
) -> list[tuple[Picture, Picture]]:
    """Draws all photographs of a lesion.

    Args:
        lesion: From `describe_lesion` with the same seed.
        width: Width in pixels.
        height: Height in pixels.
        seed: The data set's seed.

    Returns:
        For each photograph the image, RGB of shape (height, width, 3), and its mask of shape
        (height, width) with 0 for skin and 255 for lesion.
    """
    number = int(lesion.lesion_id.removeprefix("HAM_")) - FIRST_NUMBER
    frame = (SUPERSAMPLING * height, SUPERSAMPLING * width)
    charts = _draw_charts(generator(seed, number, 1), LOOKS[lesion.diagnosis], frame)
    return [
        _photograph(generator(seed, number, 2 + view), charts, frame, view) for view in range(lesion.images)
    ]


def _cells(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> Chart:
    """Draws a cell pattern: 0 at each of many scattered points, about 1 on the lines between them."""
    height, width = shape
    apart = np.ones(shape, np.uint8)
    ys, xs = np.meshgrid(np.arange(0, height, spacing), np.arange(0, width, spacing), indexing="ij")
    xs[1::2] += spacing / 2
    jitter = rng.uniform(-0.42, 0.42, (2, *ys.shape)) * spacing
    rows = np.clip(ys + jitter[0], 0, height - 1).astype(int)
    columns = np.clip(xs + jitter[1], 0, width - 1).astype(int)
    apart[rows, columns] = 0
    distance = np.asarray(cv2.distanceTransform(apart, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)
    return distance / np.float32(0.6 * spacing)


def _draw_charts(rng: np.random.Generator, look: Look, frame: tuple[int, int]) -> _Charts:
    """Draws a lesion of a diagnosis, scaled for a frame of height and width `frame`."""
    height, width = frame
    # HAM10000's masks cover 3 % to 60 % of the frame in nine images of ten, half of them below 22 %.
    area = float(np.clip(look.area * np.exp(rng.normal(0, 0.7)), 0.03, 0.6)) * height * width
    side = int(2 * EXTENT * np.sqrt(area / np.pi))
    shape = (side, side)
    level, radius, angle = _outline(rng, look, side)
    pixels = float(np.sqrt(area / (np.mean(level > 0) * (2 * EXTENT) ** 2)))
    # In pixels of the chart: structures such as the pigment network do not grow with the lesion.
    frame_width = side / (2 * EXTENT * pixels) * width

    def has(chance: float) -> bool:
        return bool(rng.random() < chance)

    softness = rng.uniform(*look.softness)
    ragged = level + rng.uniform(0.02, 0.06) * noise(rng, shape, 20, 3)
    if has(look.streaks):
        spokes = cv2.resize(rng.standard_normal((1, 80), dtype=np.float32), (720, 1))[0]
        ragged += 0.06 * spokes[(angle * (719 / (2 * np.pi))).astype(int)] * ramp(radius, 0.4, 0.8)
    # Observers outline the faint rim too, so the outline is where the pigment begins to show.
    cover = ramp(ragged, -0.4 * softness, 0.6 * softness)

    slope = rng.normal(0, 0.25 * look.variegation, 2)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    uneven = 1 + look.variegation * 0.5 * noise(rng, shape, int(rng.integers(5, 14)), 6)
    uneven += np.float32(slope[0]) * axis[:, None] + np.float32(slope[1]) * axis
    uneven *= 1 + rng.uniform(-0.3, 0.5) * ramp(radius, 1.0, 0.0)
    pigment = rng.uniform(*look.melanin) * np.maximum(uneven, 0.15)
    blood = rng.uniform(*look.blood) * np.maximum(1 + 0.35 * noise(rng, shape, 8, 3), 0.2)
    veil = np.zeros(shape, np.float32)
    pale = np.zeros(shape, np.float32)

    if has(look.network):
        lines = ramp(_cells(rng, shape, frame_width * rng.uniform(0.01, 0.018)), 0.1, 1.1)
        where = ramp(noise(rng, shape, 6), -1.2, 0.5)
        pigment *= 1 + where * (0.9 * lines - 0.45)
    if has(look.globules):
        dots = ramp(_cells(rng, shape, frame_width * rng.uniform(0.014, 0.03)), 0.8, 0.1)
        pigment += 0.8 * pigment * dots * ramp(noise(rng, shape, 9), -0.2, 1.5)
    if has(look.lacunae):
        lumps = _cells(rng, shape, frame_width * rng.uniform(0.04, 0.08))
        blood *= 1.25 - 0.7 * ramp(lumps, 0.5, 1.1)
    if has(look.vessels):
        blood += 1.1 * _vessels(rng, side, frame_width)
    if has(look.veil):
        veil = rng.uniform(0.3, 0.7) * ramp(noise(rng, shape, 5, 4), -0.1, 1.8)
    if has(look.milia):
        dots = ramp(_cells(rng, shape, frame_width * rng.uniform(0.025, 0.05)), 0.5, 0.05)
        pale += 0.45 * dots * ramp(noise(rng, shape, 8), 0.0, 1.0)
    if has(look.scale):
        pale += 0.5 * ramp(noise(rng, shape, 12, 5), 0.5, 2.5)
    if has(look.pale_centre):
        centre = ramp(radius + 0.12 * noise(rng, shape, 8, 3), rng.uniform(0.45, 0.7), 0.1)
        pale = np.maximum(pale, rng.uniform(0.3, 0.6) * centre)
    tone = rng.uniform(0.45, 0.9) if has(0.06) else rng.uniform(0.0, 0.22)
    flush = rng.uniform(0.05, 0.45)
    if has(0.04):
        # A scar or regression: lighter than the skin around it, which has to be flushed to show that.
        pigment, blood, veil, pale = 0.1 * pigment, 0.1 * blood, 0.1 * veil, pale + 0.5
        flush += 0.35
    return _Charts(
        absorbers=np.stack([pigment, blood, veil, pale], axis=2) * cover[..., None],
        level=level,
        radius=pixels,
        skin=(tone, flush, rng.uniform(0.15, 0.45) if has(look.sun_damage) else 0.0),
    )


def _outline(rng: np.random.Generator, look: Look, side: int) -> tuple[Chart, Chart, Chart]:
    """Returns the level that is 0 on the border, the distance in mean radii, and the angle."""
    axis = np.linspace(-EXTENT, EXTENT, side, dtype=np.float32)
    stretch = float(np.sqrt(rng.uniform(1.0, 1.6)))
    x, y = np.meshgrid(axis / stretch, axis * stretch)
    polar = cv2.cartToPolar(x, y)
    radius, angle = np.asarray(polar[0], np.float32), np.asarray(polar[1], np.float32)
    order = np.arange(2, 10)
    phases = np.linspace(0, 2 * np.pi, 721)[:, None] * order + rng.uniform(0, 2 * np.pi, len(order))
    waves = np.cos(phases) @ (rng.normal(0, 2 * look.irregularity, len(order)) / order**1.5)
    border = np.exp(np.clip(waves, -0.5, 0.4)).astype(np.float32)
    level = border[(angle * (720 / (2 * np.pi))).astype(int)] - radius
    level += 0.2 * look.irregularity * noise(rng, (side, side), 9, 2)
    return level, radius, angle


def _vessels(rng: np.random.Generator, side: int, frame_width: float) -> Chart:
    """Draws arborising vessels: trunks from the rim inwards, with thinner branches."""
    layer = np.zeros((side, side), np.uint8)
    for _ in range(rng.integers(4, 10)):
        inward = rng.uniform(0, 2 * np.pi)
        outward = -np.array([np.cos(inward), np.sin(inward)])
        start = side / 2 + side / (2 * EXTENT) * rng.uniform(0.4, 1.0) * outward
        trunk = curve(rng, start, inward + rng.normal(0, 0.6), frame_width * rng.uniform(0.06, 0.2), 0.8)
        stroke(layer, trunk, 0.006 * frame_width)
        for joint in rng.integers(2, 22, rng.integers(2, 5)):
            away = inward + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
            stroke(
                layer,
                curve(rng, trunk[joint], away, frame_width * rng.uniform(0.03, 0.09), 0.8),
                0.003 * frame_width,
            )
    return opacity(cv2.GaussianBlur(layer, (0, 0), 0.001 * frame_width + 0.3))


def _photograph(
    rng: np.random.Generator, charts: _Charts, frame: tuple[int, int], view: int
) -> tuple[Picture, Picture]:
    """Takes a photograph of a lesion; the first one shows it at the size it was drawn for."""
    height, width = frame
    zoom = 1.0 if view == 0 else float(np.exp(rng.uniform(-0.25, 0.25)))
    scale = zoom * charts.radius * 2 * EXTENT / len(charts.level)
    spread = 0.03 if rng.random() < 0.9 else 0.18
    centre = np.clip(rng.normal(0.5, spread, 2), 0.15, 0.85) * (width, height)
    middle = len(charts.level) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 360), scale)
    onto_frame = np.asarray(turn, np.float64)
    onto_frame[:, 2] += centre - middle
    absorbers = np.asarray(cv2.warpAffine(charts.absorbers, onto_frame, (width, height)), np.float32)
    level = cv2.warpAffine(charts.level, onto_frame, (width, height), borderValue=-1.0)

    image = _skin(rng, charts.skin, absorbers)
    _hairs(rng, image)
    _ruler(rng, image)
    _bubbles(rng, image)
    image = _light(rng, image)

    size = (width // SUPERSAMPLING, height // SUPERSAMPLING)
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), size[1] / 150 * rng.uniform(0.25, 0.75)), np.float32)
    sensor_noise: Chart = rng.standard_normal(image.shape, dtype=np.float32)
    image += rng.uniform(0.5, 3) * sensor_noise
    inside = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_AREA) > 0)
    return np.clip(image, 0, 255).astype(np.uint8), _largest_part(inside)


def _largest_part(inside: NDArray[np.bool_]) -> Picture:
    """Returns the mask of the largest region without holes, as observers outline one closed border."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return mask


def _skin(rng: np.random.Generator, skin: tuple[float, float, float], absorbers: Chart) -> Chart:
    """Returns the evenly lit reflectance of skin with a lesion in it, 0 to 255."""
    shape = (absorbers.shape[0], absorbers.shape[1])
    tone, flush, sun_damage = skin
    melanin, blood, veil, pale = np.moveaxis(absorbers, 2, 0)
    melanin = melanin + tone * (1 + 0.1 * noise(rng, shape, 4, 4))
    mottling = noise(rng, shape, 5, 5)
    blood = blood + flush * np.maximum(1 + 0.14 * mottling, 0)
    if sun_damage:
        melanin = melanin + sun_damage * ramp(noise(rng, shape, 7, 5), 0.2, 2.6)
        blood = blood + 0.5 * sun_damage * ramp(-np.abs(noise(rng, shape, 9, 2)), -0.25, 0.0)
    absorption = cv2.transform(np.dstack([melanin, blood]), np.stack([MELANIN, BLOOD], axis=1))
    image = UNPIGMENTED * np.exp(-np.asarray(absorption, np.float32))
    # The veil lies over pigment: it greys what is below and is darker where that is dark.
    image += veil[..., None] * (VEIL * (0.4 + image[..., :1] / 250) - image)
    blend(image, PALE, np.minimum(pale, 0.8))
    # Furrows between the fields of the skin's relief, and pores.
    furrows = ramp(_cells(rng, shape, shape[1] * rng.uniform(0.02, 0.035)), 0.6, 1.2)
    relief = 1 - rng.uniform(0, 0.05) * furrows
    relief += rng.uniform(0.005, 0.02) * noise(rng, shape, 90)
    image *= relief[..., None]
    return np.asarray(image, np.float32)


def _hairs(rng: np.random.Generator, image: Chart) -> None:
    if rng.random() > 0.4:
        return
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    direction = rng.uniform(0, 2 * np.pi)
    dense = rng.random() < 0.25
    for _ in range(rng.integers(8, 30) if dense else rng.integers(1, 8)):
        start = rng.uniform(-0.1, 1.1, 2) * (width, height)
        path = curve(rng, start, direction + rng.normal(0, 0.6), width * rng.uniform(0.15, 1.0), 0.5)
        stroke(layer, path, width * rng.uniform(0.001, 0.0045), int(rng.integers(130, 256)))
    blond = rng.random() < 0.2
    blend(image, (205, 165, 125) if blond else (48, 32, 32), opacity(layer))


def _ruler(rng: np.random.Generator, image: Chart) -> None:
    if rng.random() > 0.04:
        return
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    y, step = height * rng.uniform(0.03, 0.12), width * rng.uniform(0.02, 0.04)
    for tick, x in enumerate(np.arange(rng.uniform(0, step), width, step)):
        length = height * (0.07 if tick % 5 == 0 else 0.04)
        stroke(layer, np.array([[x, y], [x, y + length]]), 0.003 * width, 200)
    if rng.random() < 0.5:
        layer = np.ascontiguousarray(layer[::-1])
    blend(image, (60, 55, 60), opacity(layer))


def _bubbles(rng: np.random.Generator, image: Chart) -> None:
    """Draws bubbles in the immersion gel, with bright rims."""
    if rng.random() > 0.12:
        return
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 9)):
        x, y = (int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        size = max(2, int(width * rng.uniform(0.006, 0.035)))
        cv2.circle(layer, (x, y), size, 40, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(layer, (x, y), size, 150, max(1, width // 300), cv2.LINE_AA)
        start = rng.uniform(0, 360)
        cv2.ellipse(layer, (x, y), (size, size), 0, start, start + 80, 255, max(1, width // 200), cv2.LINE_AA)
    blend(image, (252, 245, 245), opacity(cv2.GaussianBlur(layer, (0, 0), width / 500)))


def _light(rng: np.random.Generator, image: Chart) -> Chart:
    """Lights the skin unevenly, with glare, highlights, a white balance and the dark rim of the lens."""
    height, width = image.shape[:2]
    y, x = np.meshgrid(
        np.linspace(-height / width, height / width, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    tilt = rng.normal(0, 0.08, 2)
    off = rng.normal(0, 0.12, 2)
    light = 1 + np.float32(tilt[0]) * x + np.float32(tilt[1]) * y
    falloff = rng.uniform(0.0, 0.2)
    light -= falloff * ((x - np.float32(off[0])) ** 2 + (y - np.float32(off[1])) ** 2)
    balance = rng.normal((1.0, 1.0, 1.02), (0.02, 0.03, 0.06)) * rng.uniform(0.85, 1.1)
    image = image * light[..., None] * balance.astype(np.float32)
    glare = rng.uniform(0.0, 0.1)
    image += glare * (np.array((150, 130, 160), np.float32) - image)
    if rng.random() < 0.12:
        gleam = ramp(noise(rng, (height, width), 60, 2), 2.2, 3.0)
        gleam *= ramp(noise(rng, (height, width), 3), 0.2, 1.2)
        blend(image, (255, 252, 252), gleam)
    if rng.random() < 0.12:
        rim = rng.uniform(0.92, 1.18)
        distance = np.hypot(x - np.float32(0.2 * off[0]), y - np.float32(0.2 * off[1]))
        image *= ramp(distance, rim + rng.uniform(0.02, 0.12), rim - 0.04)[..., None]
    return image
