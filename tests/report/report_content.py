"""Evaluations and comparisons with drawn photographs, and with names that would break a careless page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from skinseg.report.page import GalleryImage

HOSTILE = '</script><script>window.broken = 1</script>"\'&amp;<b onmouseover="x">'
SIZE = (600, 450)

METRICS: dict[str, dict[str, str]] = {
    "dice": {
        "label": "Dice",
        "unit": "",
        "better": "higher",
        "definition": "Twice the common area over the sum of both areas. 1 is a perfect match.",
    },
    "jaccard": {
        "label": "Jaccard",
        "unit": "",
        "better": "higher",
        "definition": "Common area over the area of the union.",
    },
    "threshold_jaccard": {
        "label": "Threshold Jaccard",
        "unit": "",
        "better": "higher",
        "definition": "Jaccard, and 0 where it is below 0.65, as in the ISIC challenge of 2018.",
    },
    "hd95": {
        "label": "Hausdorff 95",
        "unit": "px",
        "better": "lower",
        "definition": "95th percentile of the distances between the outlines, in pixels of the native image.",
    },
    "hd95_percent": {
        "label": "Hausdorff 95",
        "unit": "%",
        "better": "lower",
        "definition": "The same in per cent of the image's diagonal.",
    },
    "nsd": {
        "label": "Surface Dice",
        "unit": "",
        "better": "higher",
        "definition": "Share of both outlines that lies within a tolerance of the other.",
    },
    "area_error": {
        "label": "Area error",
        "unit": "%",
        "better": "zero",
        "definition": "How much too large the predicted area is.",
    },
}
HEADLINE = ["dice", "jaccard", "threshold_jaccard", "hd95_percent", "nsd"]
DIAGNOSES = {
    "melanocytic nevus": 0.62,
    "melanoma": 0.14,
    "benign keratosis": 0.12,
    "basal cell carcinoma": 0.06,
    "actinic keratosis": 0.03,
    "vascular lesion": 0.02,
    "dermatofibroma": 0.01,
}


def scores(rows: int = 1500, *, hostile: bool = True) -> pd.DataFrame:
    """One row an image; a few distances are undefined and one name is hostile."""
    random = np.random.default_rng(7)
    dice = 1 - np.clip(random.gamma(1.6, 0.032, rows), 0.004, 0.96)
    jaccard = dice / (2 - dice)
    hd95 = 160 * (1 - dice) * random.uniform(0.5, 1.5, rows)
    hd95[rows // 2 :: 97] = np.nan
    table = pd.DataFrame(
        {
            "image_id": [f"ISIC_{24306 + i:07d}" for i in random.permutation(rows)],
            "group": [f"HAM_{i // 2:07d}" for i in range(rows)],
            "diagnosis": random.choice(list(DIAGNOSES), rows, p=list(DIAGNOSES.values())),
            "dataset": "ham10000",
            "dice": dice,
            "jaccard": jaccard,
            "threshold_jaccard": np.where(jaccard < 0.65, 0, jaccard),
            "hd95": hd95,
            "hd95_percent": hd95 / 7.5,
            "nsd": np.clip(dice - 0.08, 0, 1),
            "area_error": random.normal(0, 6, rows),
        }
    )
    if hostile:
        table.loc[1, "image_id"] = HOSTILE
        table.loc[2, "diagnosis"] = None
    return table


def summary(values: pd.Series[float]) -> dict[str, Any]:
    finite = values.dropna()
    half = 1.96 * float(finite.std()) / np.sqrt(len(finite))
    mean = float(finite.mean())
    first, middle, third = (float(value) for value in finite.quantile([0.25, 0.5, 0.75]))
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "n": len(finite),
        "undefined": int(values.isna().sum()),
        "median": middle,
        "q1": first,
        "q3": third,
    }


def stratum(table: pd.DataFrame, column: str, label: str, note: str) -> dict[str, Any]:
    rows = []
    for value, part in sorted(table.groupby(column), key=lambda pair: -len(pair[1])):
        small = len(part) < 40
        told = {key: summary(part[key]) for key in METRICS}
        if small:
            told = {key: {**numbers, "low": None, "high": None} for key, numbers in told.items()}
        rows.append(
            {
                "value": value,
                "images": len(part),
                "lesions": part["group"].nunique(),
                "small": small,
                "scores": told,
            }
        )
    return {"column": column, "label": label, "note": note, "rows": rows}


def evaluation(
    table: pd.DataFrame, *, title: str = "U-Net with EfficientNet-B3 on HAM10000"
) -> dict[str, Any]:
    random = np.random.default_rng(3)
    edges = np.linspace(0, 1, 16)
    middle = (edges[1:] + edges[:-1]) / 2
    share = np.array([0.68, *np.full(13, 0.004), 0.268])
    epochs = np.arange(40)
    return {
        "name": "unet_efficientnet-b3",
        "title": title,
        "created": "2025-11-03T14:05:00+00:00",
        "skinseg": "0.2.0",
        "stamps": [],
        "metrics": METRICS,
        "headline": HEADLINE,
        "scores": {key: summary(table[key]) for key in METRICS},
        "interval": "95 % BCa bootstrap over 1,263 lesions, 10,000 draws",
        "images": len(table),
        "lesions": int(table["group"].nunique()),
        "protocol": [
            ["Split", "test of splits/ham10000-0.csv, sha256 3f1c9a7be42d"],
            ["Grouped by", "lesion_id; no lesion is in two subsets"],
            ["Resolution", "scored at 600 by 450, the native size"],
            ["Averaging", "mean over images, intervals over lesions"],
            ["Threshold", "0.5, fixed before training"],
            ["Images", f"{len(table):,}"],
            ["Data fingerprint", "b7c0d8e1f2a34956e0b1c2d3f4a5968778695a4b3c2d1e0f"],
            ["Config fingerprint", "0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4d3"],
        ],
        "strata": [
            stratum(
                table.dropna(subset=["diagnosis"]),
                "diagnosis",
                "diagnosis",
                "As in the data set; more than half of the lesions were confirmed by histopathology.",
            ),
            stratum(table.assign(sex=np.where(table.index % 3 == 0, "female", "male")), "sex", "sex", ""),
        ],
        "calibration": {
            "ece": 0.0123,
            "bins": [
                {
                    "low": float(low),
                    "high": float(high),
                    "confidence": None if i == 4 else float(m),
                    "frequency": None if i == 4 else float(np.clip(m - 0.09 * np.sin(m * np.pi), 0, 1)),
                    "share": 0.0 if i == 4 else float(part),
                }
                for i, (low, high, m, part) in enumerate(
                    zip(edges[:-1], edges[1:], middle, share, strict=True)
                )
            ],
        },
        "ceiling": {
            "text": "Two or more people outlined 100 of these lesions independently. Above their agreement "
            "with each other, a higher score no longer means a better outline.",
            "rows": [
                {"metric": "dice", "annotators": 0.9312, "model": 0.9287, "images": 100},
                {"metric": "hd95", "annotators": 18.4, "model": 21.73, "images": 100},
            ],
        },
        "curves": {
            "train/loss": [[int(e), float(0.6 * np.exp(-e / 9) + 0.06)] for e in epochs],
            "val/loss": [
                [int(e), float(0.6 * np.exp(-e / 8) + 0.09 + random.normal(0, 0.006))] for e in epochs
            ],
            "val/dice": [
                [int(e), float(0.94 - 0.4 * np.exp(-e / 6) + random.normal(0, 0.004))] for e in epochs
            ],
        },
        "scorings": {"count": 1, "text": "The test subset was not looked at before."},
        "cost": [
            ["Parameters", "13.2 M"],
            ["Training", "2 h 41 min on one GPU"],
            ["Inference", "182 images a second on the GPU, 6.1 on 4 cores"],
        ],
        "licences": ["HAM10000: CC BY-NC 4.0, not for commercial use"],
        "files": [["Scores of each image", "scores.csv"], ["Everything above", "evaluation.json"]],
    }


def photograph(seed: int) -> tuple[bytes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draws a lesion on skin; returns a JPEG of half the native size and two outlines in native pixels."""
    random = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = sum(random.normal(0, 0.06) * np.cos(k * angle + random.uniform(0, 6)) for k in range(2, 6))
    radius = random.uniform(90, 150) * (1 + waves)
    centre = np.array([SIZE[0] / 2, SIZE[1] / 2]) + random.normal(0, 20, 2)
    circle = np.stack([np.cos(angle) * 1.2, np.sin(angle)], axis=1)
    truth = (centre + circle * radius[:, None]).round().astype(np.int64)
    other = radius * (1 + 0.06 * np.cos(2 * angle) + random.normal(0, 0.008, 90)) + random.normal(0, 6)
    prediction = (centre + circle * other[:, None]).round().astype(np.int64)
    skin = tuple(int(v) for v in np.array([222, 178, 160]) + random.integers(-12, 12, 3))
    picture = Image.new("RGB", SIZE, skin)
    ImageDraw.Draw(picture).polygon([tuple(p) for p in truth.tolist()], fill=(120, 74, 60))
    picture = picture.filter(ImageFilter.GaussianBlur(7))
    noise = random.normal(0, 5, (SIZE[1], SIZE[0], 1))
    grainy = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).resize((SIZE[0] // 2, SIZE[1] // 2)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), truth, prediction


def gallery() -> list[GalleryImage]:
    images = []
    for place, kind in enumerate(["worst"] * 4 + ["median"] * 3 + ["best"] * 3):
        jpeg, truth, prediction = photograph(place)
        images.append(
            GalleryImage(
                image_id=HOSTILE if place == 1 else f"ISIC_{24306 + place:07d}",
                kind=kind,
                width=SIZE[0],
                height=SIZE[1],
                jpeg=jpeg,
                outlines={"truth": [truth], "prediction": [prediction]},
                scores={
                    "dice": 0.31 + 0.06 * place,
                    "hd95": float("nan") if place == 0 else 40.0 / (place + 1),
                },
                note="melanoma, 61 y, back",
            )
        )
    return images


def comparison() -> tuple[dict[str, Any], list[GalleryImage]]:
    names = ["unet++ efficientnet-b3", "segformer mit-b2", HOSTILE, "unet resnet34", "a$b$ baseline"]
    runs = []
    for place, name in enumerate(names):
        drop = 0.0021 * place**1.6
        runs.append(
            {
                "name": name,
                "rank": place + 1,
                "members": 5 if place == 0 else 1,
                "scores": {
                    key: {
                        "mean": (0.9412 - drop if not about["unit"] else 12.4 + 200 * drop),
                        "low": (0.9371 - drop if not about["unit"] else 11.2 + 200 * drop),
                        "high": (0.9449 - drop if not about["unit"] else 13.9 + 200 * drop),
                    }
                    for key, about in METRICS.items()
                },
                "difference": None
                if place == 0
                else {"mean": -drop, "low": -drop - 0.0024, "high": -drop + 0.0024},
                "p": None if place == 0 else 0.09 / 40**place,
                "p_corrected": None if place == 0 else 0.09 * 3 / 40**place,
                "wilcoxon": None if place == 0 else 0.05 / 40**place,
                "effect_size": None if place == 0 else -0.04 * place,
                "won": None if place == 0 else 0.47 - 0.03 * place,
                "parameters": 13_200_000 * (place + 1),
                "gflops": 14.2 * (place + 1),
                "images_per_second": 182.0 / (place + 1),
                "training_seconds": 9660.0 if place != 3 else None,
                "stamps": ["LEAKY: trained on 12 of these lesions"] if place == 3 else [],
            }
        )
    shown = []
    for place, kind in enumerate(["unet++ efficientnet-b3 wins", "segformer mit-b2 wins"] * 3):
        jpeg, truth, prediction = photograph(20 + place)
        shown.append(
            GalleryImage(
                image_id=f"ISIC_{30000 + place:07d}",
                kind=kind,
                width=SIZE[0],
                height=SIZE[1],
                jpeg=jpeg,
                outlines={"truth": [truth], names[0]: [prediction], names[1]: [(truth + 9)]},
                scores={names[0]: 0.94 - place / 50, names[1]: 0.81},
                note="nevus, 34 y, trunk",
            )
        )
    content = {
        "title": "Five networks on the test subset of HAM10000",
        "created": "2025-11-03T14:05:00+00:00",
        "skinseg": "0.2.0",
        "stamps": ["SYNTHETIC: the photographs on this page are drawn, not taken."],
        "metric": "dice",
        "metrics": METRICS,
        "test": "clustered permutation test, 10,000 draws, Holm over 4 comparisons",
        "interval": "95 % BCa bootstrap over 1,263 lesions, 10,000 draws",
        "images": 1500,
        "lesions": 1263,
        "protocol": [["Split", "test of splits/ham10000-0.csv"], ["Resolution", "600 by 450"]],
        "runs": runs,
        "differ": [
            {
                "image_id": f"ISIC_{30000 + place:07d}",
                "difference": place / 20 - 0.4,
                "values": {names[0]: 0.93, names[1]: 0.53 + place / 20},
            }
            for place in range(6)
        ],
        "verdict": "unet++ efficientnet-b3 leads segformer mit-b2 by 0.0021 in Dice, which chance alone may "
        "explain; it is plainly ahead of the other three.",
    }
    return content, shown
