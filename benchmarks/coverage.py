"""How often intervals of several kinds hold the true mean, by simulation on scores of real networks.

    python benchmarks/coverage.py SCORES [SCORES ...] [--lesions N,N] [--repeats N] [--draws N] [--write CSV]

SCORES is the scores.csv of an evaluation (python -m skinseg.evaluate). The lesions of each file are a
population, and so are those of its larger strata, and the differences of each two files of the same images;
two populations are drawn. N lesions are drawn with all their images, and each method's 95 % interval of the
image mean either holds the population's or does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from skinseg.scoring.metrics import METRICS
from skinseg.scoring.statistics import LEAST_LESIONS, cluster_intervals

Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats]

LEVEL = 0.95
TAILS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
STRATA = ("stratum_diagnosis", "stratum_size", "stratum_hair")
SAME = ("jaccard", "hd95", "assd", "nsd")
"""Left out: each behaves as another score does."""


@dataclass(frozen=True)
class Population:
    """Scores of m kinds.

    Attributes:
        name: For people.
        scores: Names of the scores.
        values: float64 of shape (images, m).
        lesions: int64 of shape (images,), from 0.
        error: Which way an error grows: 1 where a score falls from 1 with it, -1 where it grows from 0, 0
            where it has no bound.
    """

    name: str
    scores: list[str]
    values: Floats
    lesions: NDArray[np.int64]
    error: Floats

    @property
    def by_lesion(self) -> tuple[Floats, Floats]:
        """Sums (lesions, m) and numbers of images (lesions, 1)."""
        sums = [np.bincount(self.lesions, column) for column in self.values.T]
        return np.stack(sums, axis=1), np.bincount(self.lesions)[:, None].astype(np.float64)


@dataclass(frozen=True)
class Sample:
    """What the methods see of drawn lesions: means, their errors, and each draw of the bootstrap.

    Attributes:
        mean: Shape (m,).
        error: Linearised standard errors of the means.
        residuals: Of each lesion, (lesions, m).
        off: Deviations of the draws from the mean, (draws, m).
        own: Their own standard errors.
        direction: `Population.error`.
    """

    mean: Floats
    error: Floats
    residuals: Floats
    off: Floats
    own: Floats
    direction: Floats

    @property
    def student(self) -> Floats:
        """Deviations by their own standard errors."""
        return _ratio(self.off, self.own)


def _ratio(off: Floats, own: Floats) -> Floats:
    beyond = np.where(off == 0, 0.0, np.copysign(1e9, off))
    return np.divide(off, own, out=beyond, where=own > 0)


def student(sample: Sample) -> Ends:
    """Student's t."""
    reach = stats.t.ppf(TAILS[1], len(sample.residuals) - 1) * sample.error
    return sample.mean - reach, sample.mean + reach


def bca(sample: Sample) -> Ends:
    """BCa (Efron, JASA 1987), expanded for few lesions (Hesterberg, The American Statistician 2015)."""
    n, draws = len(sample.residuals), len(sample.off)
    below = ((sample.off < 0).mean(axis=0) + (sample.off <= 0).mean(axis=0)) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / draws, 1 - 1 / draws))
    spread = np.maximum((sample.residuals**2).sum(axis=0), 1e-300) ** 1.5
    acceleration = (sample.residuals**3).sum(axis=0) / (6 * spread)
    ends = []
    for z in np.sqrt(n / (n - 1)) * stats.t.ppf(TAILS, n - 1):
        bent = np.minimum(acceleration * (bias + z), 0.99)
        at = stats.norm.cdf(bias + (bias + z) / (1 - bent))
        ends.append(sample.mean + [np.quantile(o, a) for o, a in zip(sample.off.T, at, strict=True)])
    return ends[0], ends[1]


def bootstrap_t(sample: Sample) -> Ends:
    """Bootstrap-t."""
    low, high = np.quantile(sample.student, TAILS, axis=0)
    return sample.mean - high * sample.error, sample.mean - low * sample.error


def symmetric_bootstrap_t(sample: Sample) -> Ends:
    """Symmetric bootstrap-t (Hall, J R Statist Soc B 1988)."""
    reach = np.quantile(np.abs(sample.student), LEVEL, axis=0) * sample.error
    return sample.mean - reach, sample.mean + reach


def log_bootstrap_t(sample: Sample) -> Ends:
    """Bootstrap-t of the logarithm of the error, for its variance; plain where there is no bound."""
    way = sample.direction
    error = np.where(way > 0, 1 - sample.mean, sample.mean)
    drawn = np.maximum(error - way * sample.off, 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = np.quantile(_ratio(np.log(drawn / error), sample.own / drawn), TAILS, axis=0)
        scale = sample.error / error
        least, most = error * np.exp(-high * scale), error * np.exp(-low * scale)
    plain = bootstrap_t(sample)
    return (
        np.where(way > 0, 1 - most, np.where(way < 0, least, plain[0])),
        np.where(way > 0, 1 - least, np.where(way < 0, most, plain[1])),
    )


def hall(sample: Sample) -> Ends:
    """Student's t after Hall's transformation, which takes the skewness out (J R Statist Soc B 1992)."""
    n = len(sample.residuals)
    spread = np.maximum((sample.residuals**2).mean(axis=0), 1e-300) ** 1.5
    skewness = (sample.residuals**3).mean(axis=0) / spread
    skewness = np.where(np.abs(skewness) < 1e-8, 1e-8, skewness)

    def back(t: float) -> Floats:
        inner = 1 + skewness * (t / np.sqrt(n) - skewness / (6 * n))
        reach: Floats = np.sqrt(n) * 3 / skewness * (np.cbrt(inner) - 1)
        return reach

    t = stats.t.ppf(TAILS[1], n - 1)
    return sample.mean - back(t) * sample.error, sample.mean - back(-t) * sample.error


METHODS: Mapping[str, Callable[[Sample], Ends]] = {
    "Student's t": student,
    "BCa, expanded": bca,
    "Hall's transformation": hall,
    "bootstrap-t": bootstrap_t,
    "symmetric bootstrap-t": symmetric_bootstrap_t,
    "bootstrap-t of log error": log_bootstrap_t,
}
OURS = "skinseg"
"""`skinseg.scoring.statistics.cluster_intervals`, the wider of the first and the fourth on each side."""


def sample_of(
    sums: Floats, images: Floats, direction: Floats, draws: int, generator: np.random.Generator
) -> Sample:
    """Draws lesions anew from those of a sample."""
    n = len(sums)
    weights = generator.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)
    mean = sums.sum(axis=0) / images.sum()
    residuals = sums - mean * images
    number, number_square = weights @ images, weights @ images**2
    off = weights @ residuals / number
    square = weights @ residuals**2 - 2 * off * (weights @ (residuals * images)) + off**2 * number_square
    factor = n / (n - 1)
    own = np.sqrt(factor * np.maximum(square, 0)) / number
    error = np.sqrt(factor * (residuals**2).sum(axis=0)) / images.sum()
    return Sample(mean, error, residuals, off, own, direction)


def simulate(population: Population, lesions: int, *, repeats: int, draws: int) -> pd.DataFrame:
    """Draws samples from a population.

    Returns:
        A row per method and score: population, lesions, score, method, coverage, below and above (shares of
        the samples whose interval lies wholly below or above the true mean), width (mean, of Student's t
        one).
    """
    all_sums, all_images = population.by_lesion
    truth = all_sums.sum(axis=0) / all_images.sum()
    members = [np.flatnonzero(population.lesions == code) for code in range(len(all_sums))]
    generator = np.random.default_rng(lesions)
    counts = {name: np.zeros((3, len(truth))) for name in (*METHODS, OURS)}
    for number in range(repeats):
        drawn = generator.integers(0, len(all_sums), lesions)
        sample = sample_of(all_sums[drawn], all_images[drawn], population.error, draws, generator)
        ends = {name: method(sample) for name, method in METHODS.items()}
        rows = np.concatenate([members[code] for code in drawn])
        codes = np.repeat(np.arange(lesions), [len(members[code]) for code in drawn])
        ours = cluster_intervals(population.values[rows], codes, draws=draws, least=2, seed=number)
        ends[OURS] = ours.low, ours.high
        for name, (low, high) in ends.items():
            counts[name] += [high < truth, low > truth, high - low]
    widths = counts["Student's t"][2]
    return pd.DataFrame(
        {
            "population": population.name,
            "lesions": lesions,
            "score": score,
            "method": name,
            "coverage": 1 - (below[k] + above[k]) / repeats,
            "below": below[k] / repeats,
            "above": above[k] / repeats,
            "width": width[k] / widths[k],
        }
        for name, (below, above, width) in counts.items()
        for k, score in enumerate(population.scores)
    )


def _population(name: str, table: pd.DataFrame, *, differences: bool = False) -> Population:
    scores = [score for score in METRICS if score in table and score not in SAME]
    # An image without a distance is no part of the simulation.
    table = table.dropna(subset=scores)
    ways = {"higher": 1, "lower": -1, "zero": 0}
    return Population(
        name,
        scores,
        table[scores].to_numpy(dtype=np.float64),
        pd.factorize(table["group"])[0],
        np.array([0.0 if differences else ways[METRICS[score].better] for score in scores]),
    )


def read(paths: list[Path]) -> Iterator[Population]:
    """Returns the populations that files of scores are."""
    tables = {path: pd.read_csv(path, dtype={"image_id": str, "group": str}) for path in paths}
    for number, table in enumerate(tables.values(), start=1):
        yield _population(f"network {number}", table)
        for column in STRATA:
            for value, part in table.groupby(column):
                # A stratum that is all but the whole says the same once more.
                if LEAST_LESIONS <= part["group"].nunique() < 0.6 * table["group"].nunique():
                    yield _population(f"network {number}, {column.removeprefix('stratum_')} {value}", part)
    for (i, one), (j, other) in combinations(enumerate(tables.values(), start=1), 2):
        scores = [score for score in METRICS if score in one and score in other]
        first, second = (table.set_index("image_id").sort_index() for table in (one, other))
        if first.index.equals(second.index):
            gap = first[scores] - second[scores]
            yield _population(f"networks {i} - {j}", gap.assign(group=first["group"]), differences=True)


def drawn_populations(lesions: int = 20_000) -> Iterator[Population]:
    """Returns scores with log-normal errors, and scores of which .04 are 0, as threshold Jaccard has."""
    generator = np.random.default_rng(5)
    codes = np.repeat(np.arange(lesions), np.minimum(generator.geometric(0.75, lesions), 6))
    of_lesion, of_image = generator.normal(size=lesions)[codes], generator.normal(size=len(codes))
    error = np.minimum(1, 0.05 * np.exp(0.7 * of_lesion + 0.4 * of_image))
    yield Population("drawn", ["log-normal error"], 1 - error[:, None], codes, np.ones(1))
    score = 1 - np.minimum(0.35, 0.08 * np.exp(0.5 * of_lesion + 0.2 * of_image))
    failed = (generator.random(lesions) < 0.04)[codes]
    yield Population("drawn", [".04 failures"], np.where(failed, 0, score)[:, None], codes, np.ones(1))


def main() -> None:
    """Prints, by number of lesions and method, the coverage over all populations and scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="*", help="scores.csv of evaluations")
    parser.add_argument("--lesions", default="20,60,100,200,400", help="how many are drawn")
    parser.add_argument("--repeats", type=int, default=1000, help="samples of each population")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap, for each sample")
    parser.add_argument("--write", type=Path, help="CSV with all of it")
    arguments = parser.parse_args()
    populations = [*read(arguments.scores), *drawn_populations()]
    found = []
    for lesions in map(int, arguments.lesions.split(",")):
        for population in (p for p in populations if lesions <= p.lesions.max() + 1):
            print(f"{lesions} lesions of {population.name}", file=sys.stderr, flush=True)
            found.append(simulate(population, lesions, repeats=arguments.repeats, draws=arguments.draws))
    table = pd.concat(found, ignore_index=True)
    if arguments.write is not None:
        cells = ["lesions", "population", "score"]
        table.pivot_table("coverage", cells, "method", sort=False).round(4).to_csv(arguments.write)
    areas = table["score"].str.startswith("area_")
    for title, part in (("scores but of area", table[~areas]), ("area_bias and area_error", table[areas])):
        if len(part):
            of = part.groupby(["lesions", "method"], sort=False)
            summary = of.agg(
                least=("coverage", "min"),
                mean=("coverage", "mean"),
                most=("coverage", "max"),
                width=("width", "mean"),
            )
            print(f"\n{title}\n{summary.round(3).to_string()}")


if __name__ == "__main__":
    main()
