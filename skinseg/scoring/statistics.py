"""Intervals and tests that know that images of one lesion are not independent.

Everything here takes a value per image and the lesion that each image shows. Lesions are drawn, exchanged and
counted, never single images: two photographs of one lesion say less than two lesions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from skinseg.counting import counted
from skinseg.scoring.resampling import (
    Estimates,
    Floats,
    by_lesion,
    column_means,
    estimates_of,
    linearised,
    resample,
    sign_flips,
)

DRAWS = 10_000
LEVEL = 0.95
LEAST_LESIONS = 100
"""Of fewer lesions no interval is given: those on which a network fails may all be missing in them.

From here on 95 % intervals covered between .93 and .97 for the overlap, distance and calibration scores of
real networks on a whole test subset, and less of fewer lesions, by whatever method (benchmarks/coverage.py).
"""


@dataclass(frozen=True)
class PairedResult:
    """How two methods differ on the same images; first minus second throughout.

    Attributes:
        mean: Mean difference over images.
        low: Lower end of its interval; nan where none can be given.
        high: Upper end.
        p: Two-sided, of the permutation test by lesion, in (0, 1].
        wilcoxon: Two-sided p of Wilcoxon's signed-rank test of the lesions' mean differences.
        effect_size: Cohen's d of paired samples: mean of the lesions' mean differences by their standard
            deviation; nan where they do not vary.
        won: Share of the images where the first is greater; ties count as neither.
        tied: Share of the images with equal scores.
        images: Images with both scores.
        lesions: Their lesions.
    """

    mean: float
    low: float
    high: float
    p: float
    wilcoxon: float
    effect_size: float
    won: float
    tied: float
    images: int
    lesions: int


def cluster_intervals(
    values: ArrayLike,
    lesions: ArrayLike,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    least: ArrayLike = LEAST_LESIONS,
    seed: int = 0,
) -> Estimates:
    """Bootstraps means over images by drawing lesions with all of their images.

    The mean of a draw is the sum over its images by their number (a ratio, since lesions differ in how many
    images they have), and its standard error the linearised one of a ratio (Cochran, Sampling Techniques,
    1977). Each end is that of the bootstrap-t interval (Efron 1979; Hall, Ann Statist 1988), whose quantiles
    are of draws' deviations by their own standard error, so that they know of the skewness of scores near 1;
    or of Student's t interval, where that reaches further out. The bootstrap-t alone covers too little where
    single lesions lie far out on both sides, as in differences of two networks, and Student's t where they
    lie far out on one (benchmarks/coverage.py has both, and what else was tried). No interval knows of
    failures so rare that none is among the lesions.

    Args:
        values: A score per image, float of shape (n,) or (n, m); nan is undefined and left out.
        lesions: The lesion of each image, shape (n,), of any type that can be sorted.
        draws: Number of resamples of the lesions.
        level: Coverage, in (0, 1).
        least: Smallest number of lesions of which an interval is given; one number, or one for each score.
        seed: Seed of the resampling. All m scores see the same resamples.

    Returns:
        The estimates; no interval where a score has fewer than `least` lesions, or where so few of these
        differ from the mean that draws without any of them are no exception.

    Raises:
        ValueError: The lengths differ, or there is no image.
    """
    sums, counts = by_lesion(*_checked(values, lesions))
    return estimates_of(resample(sums, counts, draws, seed), sums, counts, level, least)


def run_intervals(
    runs: Sequence[ArrayLike],
    lesions: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    least: ArrayLike = LEAST_LESIONS,
    seed: int = 0,
) -> Estimates:
    """Bootstraps the mean of a method that was trained several times, with seeds or on folds.

    What another training would have changed is part of the interval. How far it reaches is the root of the
    sum of two squares (Zou and Donner, Stat Med 2008): the reach of the lesions' interval, as
    `cluster_intervals` has it, and that of the trainings', Student's t with k - 1 degrees of freedom times
    the standard error of the k runs, since so few cannot be resampled. Where both matter, this covers more
    than it says, up to .99 of two runs and .98 of three. Runs with seeds have the same images: their
    means differ by training alone. Folds have different images, and what the lesions contribute to the
    spread of their means is subtracted. Folds share most of their training images, which no interval can make
    up for: it is somewhat too narrow (Bengio and Grandvalet, JMLR 2004).

    Args:
        runs: For each run the scores, shape (n,) or (n, m).
        lesions: For each run the lesion of each image. Either all runs have the same lesions in the same
            order, or no two runs share one.
        draws: Number of resamples of the lesions.
        level: Coverage.
        least: As in `cluster_intervals`.
        seed: Seed of the resampling.

    Returns:
        The estimates: means over runs and images. Images and lesions are counted once.

    Raises:
        ValueError: Fewer than two runs, they share some of their lesions only, or a score is undefined for
            some seeds and not for others: their means would be of different images.
    """
    sums, counts, error = _of_runs(runs, lesions)
    drawn = resample(sums, counts, draws, seed)
    return estimates_of(drawn, sums, counts, level, least, error, len(runs) - 1)


def _of_runs(runs: Sequence[ArrayLike], lesions: Sequence[ArrayLike]) -> tuple[Floats, Floats, Floats]:
    """Sums and numbers by lesion, and the standard error that the trainings bring, as `run_intervals`."""
    if len(runs) < 2:
        raise ValueError(f"{counted(len(runs), 'run')}; a spread between runs needs two.")
    names = [np.asarray(of_run) for of_run in lesions]
    tables = [_checked(values, of_run)[0] for values, of_run in zip(runs, names, strict=True)]
    same = all(np.array_equal(names[0], of_run) for of_run in names[1:])
    if not same and len(np.unique(np.concatenate(names))) < sum(len(np.unique(n)) for n in names):
        raise ValueError(
            "The runs share some of their lesions only; expected the same ones (seeds) or none (folds)."
        )
    spread = np.var([column_means(table) for table in tables], axis=0, ddof=1)
    if same:
        _check_defined(tables)
        table = column_means(np.stack(tables))
        codes = _checked(table, names[0])[1]
    else:
        table = np.concatenate(tables)
        codes = _checked(table, np.concatenate(names))[1]
        parts = [linearised(*by_lesion(*_checked(t, n)))[2] for t, n in zip(tables, names, strict=True)]
        spread = np.maximum(0, spread - np.nan_to_num(np.square(parts)).mean(axis=0))
    return (*by_lesion(table, codes), np.sqrt(spread / len(runs)))


def _check_defined(tables: Sequence[Floats]) -> None:
    """Refuses means of the images that each has a score of; they would reward whoever has none of some."""
    undefined = np.isnan(tables)
    if uneven := int((undefined.any(axis=0) & ~undefined.all(axis=0)).sum()):
        raise ValueError(
            f"{counted(uneven, 'image has', 'images have')} a score of some runs and none of others; give "
            "these a value (skinseg.scoring.metrics.with_penalties), or take the images out on purpose."
        )


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    lesions: ArrayLike,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    least: int = LEAST_LESIONS,
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ on the same images.

    If they did not, the two scores of a lesion could be exchanged, for all of its images together. So the
    sign of each lesion's summed difference is drawn at random, and p is the share of draws whose mean
    difference is at least as large as the one found, both counted with the one found itself
    (Phipson and Smyth 2010).

    Args:
        first: A score per image, shape (n,); nan is undefined.
        second: Scores of the second method on the same images.
        lesions: The lesion of each image.
        draws: Number of random signs of the permutation test, and of resamples of the bootstrap.
        level: Coverage of the interval.
        least: Smallest number of lesions of which an interval is given.
        seed: Seed of the resampling.

    Returns:
        The result, over the images with scores; all nan where there is none, and p is nan of a single lesion.

    Raises:
        ValueError: The lengths differ, or an image has a score of one method alone: a test of the others
            would reward a method that has none of hard images.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    names = np.asarray(lesions)
    if not a.shape == b.shape == names.shape:
        raise ValueError(f"The shapes differ: {a.shape}, {b.shape}, {names.shape}.")
    _check_defined([a, b])
    both = ~np.isnan(a)
    # So far below any resolution of a score that only rounding can be the cause.
    difference = np.where(np.isclose(a, b, rtol=0, atol=1e-12), 0.0, a - b)[both]
    if not len(difference):
        nothing = float("nan")
        return PairedResult(nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing, 0, 0)
    table, codes = _checked(difference, names[both])
    sums, counts = by_lesion(table, codes)
    estimate = cluster_intervals(difference, codes, draws=draws, level=level, least=least, seed=seed)
    means = (sums / counts)[:, 0]
    varies = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return PairedResult(
        mean=float(estimate.mean[0]),
        low=float(estimate.low[0]),
        high=float(estimate.high[0]),
        p=sign_flips(sums[:, 0], draws, seed) if len(means) > 1 else float("nan"),
        wilcoxon=_wilcoxon(means),
        effect_size=float(means.mean()) / varies if varies > 0 else float("nan"),
        won=float((difference > 0).mean()),
        tied=float((difference == 0).mean()),
        images=len(difference),
        lesions=len(means),
    )


def paired_runs(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    lesions: ArrayLike,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    least: int = LEAST_LESIONS,
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ of which at least one was trained with several seeds.

    A permutation of lesions would ask whether these trainings differ. Here another training is part of the
    question: to the mean difference of each draw of lesions a deviation of the trainings is added, Student's
    t times the standard error of the difference of two means with pooled variance; p is twice the smaller
    share of draws on one side of 0, and not less than that of `paired_test`. The interval is as in
    `run_intervals`.

    Args:
        first: For each run of the first method a score per image, shape (n,); nan is undefined.
        second: Scores of the second method, on the same images in the same order.
        lesions: The lesion of each image.
        draws: Number of resamples of the bootstrap.
        level: Coverage.
        least: Smallest number of lesions of which an interval is given.
        seed: Seed of the resampling.

    Returns:
        The result; wilcoxon, effect_size, won and tied are of the images' means over runs.

    Raises:
        ValueError: Neither method has two runs, the lengths differ, or an image has a score of some runs
            only.
    """
    sides = [np.stack([np.asarray(run, dtype=np.float64) for run in runs]) for runs in (first, second)]
    freedom = sum(len(side) - 1 for side in sides)
    if freedom < 1:
        raise ValueError("Neither method has several runs; take paired_test.")
    _check_defined([run for side in sides for run in side])
    averages = [column_means(side) for side in sides]
    how: dict[str, Any] = {"draws": draws, "level": level, "seed": seed}
    result = paired_test(averages[0], averages[1], lesions, least=least, **how)
    if result.lesions < 2:
        return result
    means = [column_means(side.T) for side in sides]
    pooled = sum(float(((of_side - of_side.mean()) ** 2).sum()) for of_side in means) / freedom
    error = np.sqrt([pooled * sum(1 / len(side) for side in sides)])
    difference = averages[0] - averages[1]
    both = ~np.isnan(difference)
    sums, counts = by_lesion(*_checked(difference[both], np.asarray(lesions)[both]))
    return _with_trainings(result, sums, counts, error, freedom, least=least, **how)


def paired_folds(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    lesions: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    least: int = LEAST_LESIONS,
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ that were trained and tested on the same folds.

    As in `paired_runs` another training is part of the question. Its spread is that of the folds' mean
    differences, less what their lesions contribute, as in `run_intervals`.

    Args:
        first: For each fold the first method's score per image, shape (n,); nan is undefined.
        second: Scores of the second method, on the same images in the same order.
        lesions: For each fold the lesion of each image; no lesion is in two folds.
        draws: Number of resamples of the bootstrap.
        level: Coverage.
        least: Smallest number of lesions of which an interval is given.
        seed: Seed of the resampling.

    Returns:
        The result; wilcoxon, effect_size, won and tied are of all folds' images together.

    Raises:
        ValueError: Fewer than two folds, the lengths differ, folds share lesions, or an image has a score of
            one method alone.
    """
    values = [[np.asarray(fold, dtype=np.float64) for fold in of_method] for of_method in (first, second)]
    names = [np.asarray(of_fold) for of_fold in lesions]
    how: dict[str, Any] = {"draws": draws, "level": level, "seed": seed}
    pooled = [np.concatenate(of_method) for of_method in values]
    result = paired_test(pooled[0], pooled[1], np.concatenate(names), least=least, **how)
    if result.lesions < 2:
        return result
    differences = [a - b for a, b in zip(*values, strict=True)]
    sums, counts, error = _of_runs(differences, names)
    return _with_trainings(result, sums, counts, error, len(names) - 1, least=least, **how)


def _with_trainings(
    result: PairedResult,
    sums: Floats,
    counts: Floats,
    error: Floats,
    freedom: int,
    *,
    draws: int,
    level: float,
    least: int,
    seed: int,
) -> PairedResult:
    """Puts the interval and p of draws of lesions and trainings into a result."""
    drawn = resample(sums, counts, draws, seed)
    estimate = estimates_of(drawn, sums, counts, level, least, error, freedom)
    trainings = np.random.default_rng([seed, 1]).standard_t(freedom, size=(draws, 1)) * error
    means = drawn.mean + drawn.deviation + trainings
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    # Of few lesions the bootstrap's p is too small; another training can only make a difference less sure.
    p = max(result.p, min(1.0, 2 * (1 + beyond) / (1 + draws)))
    return replace(result, low=float(estimate.low[0]), high=float(estimate.high[0]), p=p)


def holm(p: ArrayLike, comparisons: int | None = None) -> Floats:
    """Corrects p values for their number (Holm, Scand J Statist 1979).

    Args:
        p: Shape (k,), in [0, 1]; nan is no comparison and stays.
        comparisons: How many they were chosen from, at least k. None: they are all.

    Returns:
        Corrected p of the same shape, never below the original, at most 1.
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = values.copy()
    order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]
    number = len(order) if comparisons is None else comparisons
    steps = values[order] * np.arange(number, number - len(order), -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected


def _checked(values: ArrayLike, lesions: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    table, names = np.asarray(values, dtype=np.float64), np.asarray(lesions)
    table = table[:, None] if table.ndim == 1 else table
    if len(table) != len(names):
        raise ValueError(f"{counted(len(table), 'image')} with scores and {len(names)} with lesions.")
    if not len(table):
        raise ValueError("There is no image.")
    return table, np.unique(names, return_inverse=True)[1].astype(np.int64)


def _wilcoxon(means: Floats) -> float:
    if not means.any():
        return 1.0 if len(means) > 1 else float("nan")
    if len(means) < 2:
        return float("nan")
    return float(stats.wilcoxon(means, zero_method="wilcox").pvalue)
