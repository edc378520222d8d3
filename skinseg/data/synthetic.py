"""Drawn dermoscopy in HAM10000's layout, for demonstrations and tests without patient data.

A lesion is a set of charts of what absorbs light in the skin (melanin, blood) or scatters it (the
blue-white veil, scales, scars). Its photographs look at the same charts under other rotations, zooms,
lights and hairs, so that a split that is not by lesion leaks here as it does in HAM10000. Colours follow
from the Beer-Lambert law: the skin's tone times exp(-absorption). Scores on these images say nothing of
real skin.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from skinseg.data.catalog import Catalog
from skinseg.data.drawing import Chart, Picture, blend, curve, noise, opacity, ramp, stroke
from skinseg.data.ham10000 import MASK_SUFFIX, SYNTHETIC_RECORD, read_ham10000
from skinseg.data.inspection import Verify
from skinseg.data.metadata import HAM10000_NAMES
from skinseg.data.problems import Problems
from skinseg.errors import SkinsegError

GENERATOR_VERSION = 1
"""Goes up whenever the same parameters would draw other pictures."""

LICENCE = "none (drawn)"
IMAGE_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDER = "HAM10000_segmentations_lesion_tschandl"
JPEG_QUALITY = 92
# Real ids end at ISIC_0034320 and HAM_0007628.
FIRST_NUMBER = 9_000_000
MOST_LESIONS = 250_000
LEAST_SIDE = 32

DIAGNOSIS_SHARE = {
    "nv": 0.67,
    "mel": 0.11,
    "bkl": 0.11,
    "bcc": 0.052,
    "akiec": 0.033,
    "vasc": 0.014,
    "df": 0.011,
}
IMAGES_PER_LESION = (0.738, 0.19, 0.066, 0.006)
"""How many lesions of HAM10000 have one, two, three and four images."""

LOCALIZATION_SHARE = {
    "lower extremity": 0.212,
    "back": 0.203,
    "trunk": 0.171,
    "abdomen": 0.112,
    "upper extremity": 0.105,
    "face": 0.066,
    "chest": 0.035,
    "foot": 0.03,
    "unknown": 0.025,
    "neck": 0.016,
    "scalp": 0.01,
    "hand": 0.009,
    "ear": 0.006,
}

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
class _Look:
    """How lesions of a diagnosis tend to look; pairs are ranges, the rest are chances of a structure."""

    age: int
    area: float
    melanin: tuple[float, float]
    blood: tuple[float, float]
    softness: tuple[float, float]
    irregularity: float
    variegation: float
    sun_damage: float = 0.1
    network: float = 0.0
    globules: float = 0.0
    streaks: float = 0.0
    veil: float = 0.0
    milia: float = 0.0
    vessels: float = 0.0
    lacunae: float = 0.0
    scale: float = 0.0
    pale_centre: float = 0.0


_LOOKS = {
    "nv": _Look(
        age=45, area=0.22, melanin=(0.22, 1.0), blood=(0.05, 0.4), softness=(0.08, 0.45),
        irregularity=0.13, variegation=0.4, network=0.6, globules=0.3, streaks=0.05,
    ),
    "mel": _Look(
        age=60, area=0.32, melanin=(0.5, 2.0), blood=(0.05, 0.4), softness=(0.05, 0.3),
        irregularity=0.26, variegation=0.75, network=0.5, globules=0.4, streaks=0.4, veil=0.65,
        pale_centre=0.1,
    ),
    "bkl": _Look(
        age=65, area=0.22, melanin=(0.3, 1.1), blood=(0.0, 0.25), softness=(0.05, 0.3),
        irregularity=0.22, variegation=0.6, sun_damage=0.5, network=0.2, milia=0.6, scale=0.2,
    ),
    "bcc": _Look(
        age=65, area=0.18, melanin=(0.1, 0.35), blood=(0.25, 0.6), softness=(0.1, 0.4),
        irregularity=0.2, variegation=0.6, sun_damage=0.4, vessels=0.9, veil=0.3, scale=0.3,
    ),
    "akiec": _Look(
        age=65, area=0.25, melanin=(0.15, 0.45), blood=(0.35, 0.7), softness=(0.1, 0.45),
        irregularity=0.25, variegation=0.6, sun_damage=0.6, scale=0.9, vessels=0.2, globules=0.2,
    ),
    "vasc": _Look(
        age=50, area=0.08, melanin=(0.05, 0.4), blood=(1.2, 2.4), softness=(0.04, 0.15),
        irregularity=0.09, variegation=0.3, lacunae=0.9, veil=0.35,
    ),
    "df": _Look(
        age=50, area=0.12, melanin=(0.25, 0.6), blood=(0.1, 0.35), softness=(0.3, 0.6),
        irregularity=0.1, variegation=0.3, network=0.5, pale_centre=0.9,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Lesion:
    """A lesion and the skin around it, before any camera looks at it.

    Attributes:
        lesion_id: Such as "HAM_9000007".
        diagnosis: One of HAM10000's seven values of `dx`.
        confirmation: HAM10000's `dx_type`.
        age: The patient's age, a multiple of 5; None where unknown.
        sex: "male", "female" or "unknown".
        localization: Where on the body.
        images: How many photographs there are.
    """

    lesion_id: str
    diagnosis: str
    confirmation: str
    age: int | None
    sex: str
    localization: str
    images: int


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


def write_synthetic_ham10000(
    root: Path,
    *,
    lesions: int = 240,
    width: int = 200,
    height: int = 150,
    seed: int = 0,
    draw: bool = True,
) -> Path:
    """Writes a drawn data set in HAM10000's folder layout, unless it is already there.

    The folder appears at once when all of it is written. The n-th lesion of a seed is the same however
    many are asked for.

    Args:
        root: The folder to create; it may exist if it is empty or holds the same set.
        lesions: How many lesions; there are about 1.3 images to a lesion.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        seed: Any integer from 0.
        draw: False: nothing is written, and the set has to be there.

    Returns:
        `root`.

    Raises:
        SkinsegError: An argument is out of range, `root` holds something else, or the set is not there and
            is not to be drawn.
    """
    _check("lesions", lesions, 1, MOST_LESIONS)
    _check("width", width, LEAST_SIDE)
    _check("height", height, LEAST_SIDE)
    _check("seed", seed, 0)
    record = {
        "generator": GENERATOR_VERSION,
        "lesions": lesions,
        "width": width,
        "height": height,
        "seed": seed,
    }
    # Links are followed: a rename would replace the link and not the folder behind it.
    target = Path(root).expanduser().resolve()
    if _is_written(target, record):
        return root
    if not draw:
        raise SkinsegError(
            f"{root}: the drawn images are not there, and are drawn only below a folder that you name "
            "yourself: data.root=<folder>."
        )
    # The leading dot keeps readers of the parent folder away from it.
    unfinished = target.parent / f".{target.name}.{uuid.uuid4().hex}.unfinished"
    try:
        _write(unfinished, record)
        try:
            unfinished.replace(target)
        except OSError:
            # Another process may have been first.
            if not _is_written(target, record):
                raise
    except OSError as error:
        raise SkinsegError(
            f"Cannot write the synthetic data set to {root}: {error}. Name a folder with room to write to."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def read_synthetic(
    root: Path,
    problems: Problems,
    *,
    lesions: int = 240,
    width: int = 200,
    height: int = 150,
    seed: int = 0,
    draw: bool = True,
    mask_folder: Path | None = None,
    verify: Verify = True,
) -> Catalog:
    """Reads a drawn data set from a folder below `root`, where it is written on first use.

    Args:
        root: Where data sets are kept; created where there is none.
        problems: What is to happen where files and metadata do not fit.
        lesions: As in `write_synthetic_ham10000`.
        width: Likewise.
        height: Likewise.
        seed: Likewise.
        draw: Likewise.
        mask_folder: Refused: the images come with their masks.
        verify: How much of each file is looked at now. See `inspect_files`.

    Returns:
        The catalog; `dataset` and `mask_source` say "synthetic".

    Raises:
        SkinsegError: `root` is a file, an argument is out of range, or the folder holds something else.
    """
    if mask_folder is not None:
        raise SkinsegError(f"data.masks={mask_folder}: drawn images have masks of their own; leave it out.")
    root = Path(root).expanduser()
    if root.exists() and not root.is_dir():
        raise SkinsegError(f"data.root={root} is a file; expected a folder to write the drawn images below.")
    # The version is in the name so that an upgrade draws a new set beside the old one.
    name = f"synthetic_v{GENERATOR_VERSION}_{lesions}_{width}x{height}_seed{seed}"
    folder = write_synthetic_ham10000(
        root / name, lesions=lesions, width=width, height=height, seed=seed, draw=draw
    )
    catalog = read_ham10000(folder, problems, verify=verify)
    ours = {"mask_source": "synthetic"}
    table = catalog.table.assign(dataset="synthetic", group_source="synthetic", licence=LICENCE, **ours)
    return replace(catalog, table=table, annotations=catalog.annotations.assign(**ours))


def describe_lesion(seed: int, number: int) -> Lesion:
    """Invents the metadata of a lesion.

    Args:
        seed: The data set's seed.
        number: The lesion's number in the data set, from 0.

    Returns:
        The same for the same arguments.
    """
    # A golden-ratio sequence instead of a lottery: rare diagnoses have their share of small sets too.
    offset = np.random.default_rng(seed).random()
    shares = np.cumsum(list(DIAGNOSIS_SHARE.values()))
    place = (offset + number * (np.sqrt(5) - 1) / 2) % 1 * shares[-1]
    diagnosis = list(DIAGNOSIS_SHARE)[int(np.searchsorted(shares, place, side="right"))]

    rng = _generator(seed, number, 0)
    by_histology = rng.random() < (0.3 if diagnosis == "nv" else 0.9)
    years = float(rng.normal(_LOOKS[diagnosis].age, 15))
    return Lesion(
        lesion_id=f"HAM_{FIRST_NUMBER + number}",
        diagnosis=diagnosis,
        confirmation="histo" if by_histology else "follow_up" if diagnosis == "nv" else "consensus",
        age=int(np.clip(5 * round(years / 5), 5, 85)) if rng.random() < 0.98 else None,
        sex=str(rng.choice(["male", "female", "unknown"], p=[0.53, 0.46, 0.01])),
        localization=str(rng.choice(list(LOCALIZATION_SHARE), p=list(LOCALIZATION_SHARE.values()))),
        images=1 + int(rng.choice(len(IMAGES_PER_LESION), p=IMAGES_PER_LESION)),
    )


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
    charts = _draw_charts(_generator(seed, number, 1), _LOOKS[lesion.diagnosis], frame)
    return [
        _photograph(_generator(seed, number, 2 + view), charts, frame, view) for view in range(lesion.images)
    ]


def _check(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise SkinsegError(f"Synthetic data: {name}={value}, expected {expected}.")


def _generator(seed: int, number: int, part: int) -> np.random.Generator:
    """Returns the random numbers of one part of one lesion, which depend on nothing else."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, part)))


def _is_written(root: Path, record: dict[str, int]) -> bool:
    """Returns whether `root` is the finished data set; False where nothing is there yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    advice = "Name another folder, or remove this one to have it drawn anew."
    try:
        found = json.loads((root / SYNTHETIC_RECORD).read_text(encoding="utf-8"))
        expected = set(pd.read_csv(root / HAM10000_NAMES[0])["image_id"])
    except (OSError, ValueError, KeyError) as error:
        raise SkinsegError(
            f"{root} is there already, but is no finished synthetic data set: {error}. {advice}"
        ) from error
    if found != record:
        raise SkinsegError(f"{root} holds another synthetic data set: {found}, expected {record}. {advice}")
    images = {path.stem for folder in IMAGE_FOLDERS for path in (root / folder).glob("*.jpg")}
    masks = {path.name.removesuffix(MASK_SUFFIX) for path in (root / MASK_FOLDER).glob(f"*{MASK_SUFFIX}")}
    if missing := expected - (images & masks):
        raise SkinsegError(
            f"{root} is incomplete: image or mask of {len(missing)} of {len(expected)} ids is gone, "
            f"e.g. {min(missing)}. {advice}"
        )
    return True


def _write(folder: Path, record: dict[str, int]) -> None:
    for name in (*IMAGE_FOLDERS, MASK_FOLDER):
        (folder / name).mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number in range(record["lesions"]):
        lesion = describe_lesion(record["seed"], number)
        pictures = draw_lesion_images(
            lesion, width=record["width"], height=record["height"], seed=record["seed"]
        )
        for image, mask in pictures:
            image_id = f"ISIC_{FIRST_NUMBER + len(rows)}"
            # In turn, so that an image keeps its folder when more lesions are asked for.
            part = folder / IMAGE_FOLDERS[len(rows) % 2]
            Image.fromarray(image).save(part / f"{image_id}.jpg", quality=JPEG_QUALITY)
            Image.fromarray(mask).save(folder / MASK_FOLDER / f"{image_id}{MASK_SUFFIX}")
            rows.append(
                {
                    "lesion_id": lesion.lesion_id,
                    "image_id": image_id,
                    "dx": lesion.diagnosis,
                    "dx_type": lesion.confirmation,
                    "age": None if lesion.age is None else float(lesion.age),
                    "sex": lesion.sex,
                    "localization": lesion.localization,
                }
            )
    pd.DataFrame(rows).to_csv(folder / HAM10000_NAMES[0], index=False)
    (folder / SYNTHETIC_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


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


def _draw_charts(rng: np.random.Generator, look: _Look, frame: tuple[int, int]) -> _Charts:
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


def _outline(rng: np.random.Generator, look: _Look, side: int) -> tuple[Chart, Chart, Chart]:
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
