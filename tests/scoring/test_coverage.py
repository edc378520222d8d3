"""Intervals hold the true mean as often as they say, from the least number of lesions on that has one.

`real_scores.csv.gz` holds scores of a network of this project on 1,698 test images of 1,263 lesions of
HAM10000 (unet_efficientnet_lite0_small, seed 0), lesions numbered anew, and by how much these are better than
those of the same training after two of its five epochs. benchmarks/coverage.py has more populations and other
methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from benchmarks.coverage import METHODS, OURS, drawn_populations, read, simulate
from skinseg.scoring.statistics import LEAST_LESIONS, cluster_intervals, run_intervals

Floats = NDArray[np.float64]

REAL = Path(__file__).with_name("real_scores.csv.gz")


def samples(
    values: Floats, lesions: NDArray[np.int64], number: int, times: int
) -> Iterator[tuple[Floats, NDArray[np.int64], int]]:
    """Draws lesions with all their images from a population, each as a lesion of its own."""
    members = [np.flatnonzero(lesions == code) for code in range(lesions.max() + 1)]
    generator = np.random.default_rng(number)
    for seed in range(times):
        drawn = [members[code] for code in generator.integers(0, len(members), number)]
        yield values[np.concatenate(drawn)], np.repeat(np.arange(number), [len(m) for m in drawn]), seed


def coverage(values: Floats, lesions: NDArray[np.int64], number: int, times: int) -> Floats:
    truth, hits = values.mean(axis=0), np.zeros(values.shape[1])
    for some, codes, seed in samples(values, lesions, number, times):
        found = cluster_intervals(some, codes, draws=1000, seed=seed)
        hits += (found.low <= truth) & (truth <= found.high)
    return hits / times


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(LEAST_LESIONS, 2000), (3 * LEAST_LESIONS, 1500)])
def test_on_scores_of_a_real_network(number: int, times: int) -> None:
    table = pd.read_csv(REAL)
    scores = table.drop(columns="lesion")
    found = dict(
        zip(scores, coverage(scores.to_numpy(), table["lesion"].to_numpy(), number, times), strict=True)
    )
    assert {name: share for name, share in found.items() if not 0.93 <= share <= 0.97} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(LEAST_LESIONS, 2000), (3 * LEAST_LESIONS, 1000)])
def test_on_drawn_scores_of_log_normal_errors(number: int, times: int) -> None:
    generator = np.random.default_rng(0)
    lesions = np.repeat(np.arange(20_000), np.minimum(generator.geometric(0.75, 20_000), 6))
    of_lesion, of_image = generator.normal(size=20_000)[lesions], generator.normal(size=len(lesions))
    error = 0.05 * np.exp(0.7 * of_lesion + 0.4 * of_image)
    values = np.stack([1 - np.minimum(1, error), 60 * error], axis=1)
    assert ((found := coverage(values, lesions, number, times)) >= 0.93).all(), found
    assert (found <= 0.97).all(), found


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_several_trainings_whose_means_differ(seeds: int) -> None:
    """Trainings that move a real network's Dice by as much as half of the lesions' standard error."""
    table = pd.read_csv(REAL)
    dice, lesions = table[["dice"]].to_numpy(), table["lesion"].to_numpy()
    generator = np.random.default_rng(seeds)
    hits, times = 0, 600
    for some, codes, seed in samples(dice, lesions, LEAST_LESIONS, times):
        runs = [some + generator.normal(0, 0.004) for _ in range(seeds)]
        found = run_intervals(runs, [codes] * seeds, draws=500, seed=seed)
        hits += found.low[0] <= dice.mean() <= found.high[0]
    # Student's t of few trainings is so wide that with the lesions' it covers more than it says.
    assert 0.93 <= hits / times <= {2: 1, 3: 0.99, 5: 0.98}[seeds]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    number = 2 * LEAST_LESIONS
    table = pd.DataFrame({"image_id": range(number), "group": range(number), "stratum_diagnosis": "nv"})
    table.loc[: number // 2 - 1, "stratum_diagnosis"] = "mel"
    files = [tmp_path / name for name in ("one.csv", "two.csv")]
    for path in files:
        scores = {"dice": 1 - generator.lognormal(-3, 0.5, number), "hd95": generator.lognormal(1, 1, number)}
        table.assign(**scores, stratum_size="5-15 %", stratum_hair="none").to_csv(path, index=False)
    populations = [*read(files), *drawn_populations(300)]
    assert [population.name for population in populations] == [
        *(f"network {k}{stratum}" for k in (1, 2) for stratum in ("", ", diagnosis mel", ", diagnosis nv")),
        "networks 1 - 2",
        "drawn",
        "drawn",
    ]
    for population in populations:
        found = simulate(population, 30, repeats=3, draws=50)
        assert set(found["method"]) == {*METHODS, OURS}
        assert found["coverage"].between(0, 1).all()
