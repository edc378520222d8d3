"""Lesions that nobody has: what is known of them, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Real ids end at ISIC_0034320 and HAM_0007628.
FIRST_NUMBER = 9_000_000


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


@dataclass(frozen=True)
class Look:
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


LOOKS = {
    "nv": Look(
        age=45, area=0.22, melanin=(0.22, 1.0), blood=(0.05, 0.4), softness=(0.08, 0.45),
        irregularity=0.13, variegation=0.4, network=0.6, globules=0.3, streaks=0.05,
    ),
    "mel": Look(
        age=60, area=0.32, melanin=(0.5, 2.0), blood=(0.05, 0.4), softness=(0.05, 0.3),
        irregularity=0.26, variegation=0.75, network=0.5, globules=0.4, streaks=0.4, veil=0.65,
        pale_centre=0.1,
    ),
    "bkl": Look(
        age=65, area=0.22, melanin=(0.3, 1.1), blood=(0.0, 0.25), softness=(0.05, 0.3),
        irregularity=0.22, variegation=0.6, sun_damage=0.5, network=0.2, milia=0.6, scale=0.2,
    ),
    "bcc": Look(
        age=65, area=0.18, melanin=(0.1, 0.35), blood=(0.25, 0.6), softness=(0.1, 0.4),
        irregularity=0.2, variegation=0.6, sun_damage=0.4, vessels=0.9, veil=0.3, scale=0.3,
    ),
    "akiec": Look(
        age=65, area=0.25, melanin=(0.15, 0.45), blood=(0.35, 0.7), softness=(0.1, 0.45),
        irregularity=0.25, variegation=0.6, sun_damage=0.6, scale=0.9, vessels=0.2, globules=0.2,
    ),
    "vasc": Look(
        age=50, area=0.08, melanin=(0.05, 0.4), blood=(1.2, 2.4), softness=(0.04, 0.15),
        irregularity=0.09, variegation=0.3, lacunae=0.9, veil=0.35,
    ),
    "df": Look(
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
        localization: The place on the body.
        images: Number of photographs.
    """

    lesion_id: str
    diagnosis: str
    confirmation: str
    age: int | None
    sex: str
    localization: str
    images: int


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

    rng = generator(seed, number, 0)
    by_histology = rng.random() < (0.3 if diagnosis == "nv" else 0.9)
    years = float(rng.normal(LOOKS[diagnosis].age, 15))
    return Lesion(
        lesion_id=f"HAM_{FIRST_NUMBER + number}",
        diagnosis=diagnosis,
        confirmation="histo" if by_histology else "follow_up" if diagnosis == "nv" else "consensus",
        age=int(np.clip(5 * round(years / 5), 5, 85)) if rng.random() < 0.98 else None,
        sex=str(rng.choice(["male", "female", "unknown"], p=[0.53, 0.46, 0.01])),
        localization=str(rng.choice(list(LOCALIZATION_SHARE), p=list(LOCALIZATION_SHARE.values()))),
        images=1 + int(rng.choice(len(IMAGES_PER_LESION), p=IMAGES_PER_LESION)),
    )


def generator(seed: int, number: int, part: int) -> np.random.Generator:
    """Returns the random numbers of one part of one lesion, which depend on nothing else."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, part)))
