"""Turns the runs of a study into its results.csv, comparison.csv and figure.png.

python experiments/collect.py experiments/<study> '<method>=<run folder>,<run folder>,...' '<method>=...'
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from skinseg.evaluation.comparison import Comparison
from skinseg.evaluation.methods import methods_of
from skinseg.evaluation.runs import ScoredRun, load_run
from skinseg.run.writing import write_csv

SCORES = ("dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity")
DRAWS, LEVEL = 10_000, 0.95


def load(arguments: list[str]) -> dict[str, list[ScoredRun]]:
    """Reads the runs of each method, which then bear the method's name."""
    methods = {}
    for argument in arguments:
        name, _, folders = argument.partition("=")
        methods[name] = [replace(load_run(Path(folder)), name=name) for folder in folders.split(",")]
    return methods


def by_run(methods: dict[str, list[ScoredRun]]) -> pd.DataFrame:
    """A row per training: method, seed, mean scores over the test images, steps, seconds, parameters."""
    rows = []
    for name, runs in methods.items():
        for run in runs:
            means = {score: round(float(run.table[score].mean()), 5) for score in SCORES}
            cost = {key: run.cost[key] for key in ("parameters", "gflops", "training_seconds")}
            rows.append(
                {"method": name, "seed": run.identity["seed"], "images": len(run.table), **means, **cost}
            )
    return pd.DataFrame(rows)


def ranking(methods: dict[str, list[ScoredRun]]) -> pd.DataFrame:
    """A row per method, the best first: Dice and its difference to the best one, with intervals, and p."""
    found = Comparison(
        methods_of([run for runs in methods.values() for run in runs], pool=True), "dice", DRAWS, LEVEL, 0
    )
    rows = []
    for entry in found.content["runs"]:
        row: dict[str, Any] = {"method": entry["name"], "trainings": entry["members"]}
        for key, values in (("dice", entry["scores"]["dice"]), ("difference", entry["difference"] or {})):
            row |= {
                key: values.get("mean"),
                f"{key}_low": values.get("low"),
                f"{key}_high": values.get("high"),
            }
        rows.append(row | {key: entry[key] for key in ("p", "p_corrected")})
    return pd.DataFrame(rows).round(5)


def draw(ranked: pd.DataFrame, runs: pd.DataFrame, path: Path) -> None:
    """Draws each method's interval, and its trainings as dots."""
    figure, axes = plt.subplots(figsize=(6.4, 0.45 * len(ranked) + 1.0), layout="constrained")
    for place, row in enumerate(ranked.itertuples()):
        axes.plot([row.dice_low, row.dice_high], [place, place], color="#333333", lw=1.6, zorder=1)
        axes.plot(row.dice, place, "o", color="#333333", ms=6, zorder=2)
        own = runs.loc[runs["method"] == row.method, "dice"]
        axes.plot(own, [place + 0.22] * len(own), "o", color="#c2571a", ms=4, zorder=3)
    axes.set_yticks(range(len(ranked)), ranked["method"])
    axes.invert_yaxis()
    axes.set_xlabel(
        "test Dice: mean with 95 % interval over lesions and seeds (black), each training (orange)"
    )
    axes.xaxis.label.set_size(8)
    axes.grid(axis="x", color="#dddddd")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Writes the three files into the study's folder."""
    study, methods = Path(sys.argv[1]), load(sys.argv[2:])
    runs, ranked = by_run(methods), ranking(methods)
    write_csv(study / "results.csv", runs)
    write_csv(study / "comparison.csv", ranked)
    draw(ranked, runs, study / "figure.png")
    print(ranked.to_string(index=False))


if __name__ == "__main__":
    main()
