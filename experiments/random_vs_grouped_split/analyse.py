"""Sets the scores of the same test images under two splits side by side: one by lesion, one by image.

python experiments/random_vs_grouped_split/analyse.py <folder of the sweep> <name of the files>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skinseg.run.writing import write_csv
from skinseg.scoring.statistics import cluster_intervals

DRAWS, LEVEL = 10_000, 0.95


def read(sweep: Path) -> tuple[dict[str, dict[int, pd.DataFrame]], pd.DataFrame]:
    """Returns the scores by unit of the split (lesion, image), a table by seed, and the leaky split."""
    scores: dict[str, dict[int, pd.DataFrame]] = {"lesion": {}, "image": {}}
    for path in sorted(sweep.glob("*/summary.json")):
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        unit = config["data"]["split"]["unit"]
        scores[unit][config["seed"]] = pd.read_csv(path.with_name("scores.csv"), index_col="image_id")
        if unit == "image":
            leaky = pd.read_csv(path.with_name("split.csv"))
    seeds = {unit: sorted(tables) for unit, tables in scores.items()}
    if seeds["lesion"] != seeds["image"] or not seeds["image"]:
        sys.exit(f"{sweep}: the seeds that have finished are {seeds}; expected the same ones of both splits.")
    return scores, leaky


def interval(values: pd.Series[float], lesions: pd.Series[str]) -> list[float]:
    """Returns mean, low and high."""
    found = cluster_intervals(values.to_numpy(), lesions.to_numpy(), draws=DRAWS, level=LEVEL, seed=0)
    return [float(part[0]) for part in (found.mean, found.low, found.high)]


def main() -> None:
    """Writes a table (.csv) and a figure (.png) of the given name beside this file."""
    scores, leaky = read(Path(sys.argv[1]))
    target = Path(__file__).with_name(sys.argv[2])
    lesion, image = (next(iter(scores[unit].values()))["group"] for unit in ("lesion", "image"))
    dice = {
        unit: sum(table["dice"] for table in tables.values()) / len(tables) for unit, tables in scores.items()
    }
    trained = set(leaky.loc[leaky["split"] == "train", "group"])
    known = image.isin(trained)
    rows = [
        ["split by lesion: all test images", len(lesion), *interval(dice["lesion"], lesion)],
        ["split by image: all test images", len(image), *interval(dice["image"], image)],
        *(
            [f"split by image: {name}", int(mask.sum()), *interval(dice["image"][mask], image[mask])]
            for name, mask in (("lesion also in training", known), ("lesion not in training", ~known))
        ),
    ]
    both = lesion.index.intersection(image.index)
    gain, group, seen = (dice["image"] - dice["lesion"])[both], image[both], known[both]
    for name, mask in (("lesion also in training", seen), ("lesion not in training", ~seen)):
        label = f"same images, by image minus by lesion: {name}"
        rows.append([label, int(mask.sum()), *interval(gain[mask], group[mask])])
        for seed, table in scores["image"].items():
            own = (table["dice"] - scores["lesion"][seed]["dice"])[both]
            print(f"{label}, seed {seed}: {own[mask].mean():+.5f}")
    table = pd.DataFrame(rows, columns=["what", "images", "dice", "low", "high"])
    table[["dice", "low", "high"]] = np.round(table[["dice", "low", "high"]], 5)
    write_csv(target.with_suffix(".csv"), table)
    draw(table, target.with_suffix(".png"))
    print(table.to_string(index=False))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draws the scores above, the differences below."""
    figure, panels = plt.subplots(2, 1, figsize=(6.8, 3.6), height_ratios=[2, 1], layout="constrained")
    for axes, rows in zip(panels, (table.iloc[:4], table.iloc[4:]), strict=True):
        for place, row in enumerate(rows.itertuples()):
            axes.plot([row.low, row.high], [place, place], color="#333333", lw=1.6)
            axes.plot(row.dice, place, "o", color="#c2571a", ms=6)
        axes.set_yticks(range(len(rows)), rows["what"].str.replace(": ", ":\n"), fontsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color="#dddddd")
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[1].axvline(0, color="#333333", lw=0.8)
    panels[0].set_xlabel("Dice", fontsize=8)
    panels[1].set_xlabel("difference in Dice", fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
