"""Intervals and tests that know that images of one lesion are not independent.

Everything here takes a value per image and the lesion that each image shows. Lesions are drawn, exchanged and
counted, never single images: two photographs of one lesion say less than two lesions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

DRAWS = 10_000
LEVEL = 0.95
LEAST_LESIONS = 5
"""Of fewer lesions no interval is given: resampling them says next to nothing of those that were not seen."""

Floats = NDArray[np.float64]
Method = Literal["bca", "percentile"]

_CHUNK = 500


@dataclass(frozen=True)
class Estimates:
    """Means of m scores with their intervals.

    Attributes:
        mean: float64 of shape (m,), over the images whose score is defined; nan where there is none.
        low: Lower ends, likewise; nan where no interval can be given.
        high: Upper ends.
        images: int64 of shape (m,): images with a defined score.
        lesions: Their lesions.
    """

    mean: Floats
    low: Floats
    high: Floats
    images: NDArray[np.int64]
    lesions: NDArray[np.int64]


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
    method: Method = "bca",
    seed: int = 0,
) -> Estimates:
    """Bootstraps means over images by drawing lesions with all of their images.

    The mean of a draw is the sum over its images by their number (a ratio, since lesions differ in how many
    images they have). "bca" is Efron's bias-corrected and accelerated interval (JASA 1987), its acceleration
    from the jackknife over lesions; it suits scores that are skewed towards 1. "percentile" takes the
    quantiles as they are. Both are taken further out for few lesions, by Student's t and the bootstrap's
    missing n / (n - 1) ("expanded", Hesterberg, The American Statistician 2015); of 5 lesions intervals
    would otherwise cover .86 of what they should.

    Args:
        values: A score per image, float of shape (n,) or (n, m); nan is undefined and left out.
        lesions: The lesion of each image, shape (n,), of any type that can be sorted.
        draws: How often lesions are drawn.
        level: Coverage, in (0, 1).
        method: Kind of interval.
        seed: Of the draws. All m scores see the same draws.

    Returns:
        The estimates; no interval where a score has fewer than `LEAST_LESIONS` lesions.

    Raises:
        ValueError: The lengths differ, or there is no image.
    """
    table, codes = _checked(values, lesions)
    sums, counts = _by_lesion(table, codes)
    drawn = _drawn_means(sums, counts, draws, seed)
    return _estimates(drawn, sums, counts, level, _jackknife(sums, counts) if method == "bca" else None)


def run_intervals(
    runs: Sequence[ArrayLike],
    lesions: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimates:
    """Bootstraps the mean of a method that was trained several times, with seeds or on folds.

    What another training would have changed is part of the interval. Lesions are drawn as in
    `cluster_intervals` ("percentile"); to the mean of each draw a deviation of the training is added,
    Student's t with k - 1 degrees of freedom times the standard error of the k runs, since so few runs cannot
    be resampled. Runs with seeds have the same images: their means differ by training alone. Folds have
    different images, and what the lesions contribute to the spread of their means is subtracted. Folds share
    most of their training images, which no interval can make up for: it is somewhat too narrow (Bengio and
    Grandvalet, JMLR 2004).

    Args:
        runs: For each run the scores, shape (n,) or (n, m).
        lesions: For each run the lesion of each image. Either all runs have the same lesions in the same
            order, or no two runs share one.
        draws: How often lesions are drawn.
        level: Coverage.
        seed: Of the draws.

    Returns:
        The estimates: means over runs and images. Images and lesions are counted once.

    Raises:
        ValueError: Fewer than two runs, or they share some of their lesions only.
    """
    drawn, sums, counts = _drawn_runs(runs, lesions, draws, seed)
    return _estimates(drawn, sums, counts, level, None)


def _drawn_runs(
    runs: Sequence[ArrayLike], lesions: Sequence[ArrayLike], draws: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Means of each draw of lesions and trainings, and sums and numbers by lesion, as `run_intervals`."""
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} runs; a spread between runs needs two.")
    names = [np.asarray(of_run) for of_run in lesions]
    tables = [_checked(values, of_run)[0] for values, of_run in zip(runs, names, strict=True)]
    same = all(np.array_equal(names[0], of_run) for of_run in names[1:])
    if not same and len(np.unique(np.concatenate(names))) < sum(len(np.unique(n)) for n in names):
        raise ValueError(
            "The runs share some of their lesions only; expected the same ones (seeds) or none (folds)."
        )
    spread = np.var([_column_means(table) for table in tables], axis=0, ddof=1)
    if same:
        table = _column_means(np.stack(tables))
        codes = _checked(table, names[0])[1]
    else:
        table = np.concatenate(tables)
        codes = _checked(table, np.concatenate(names))[1]
        parts = [_lesion_variance(*_checked(t, n)) for t, n in zip(tables, names, strict=True)]
        spread = np.maximum(0, spread - np.mean(parts, axis=0))
    sums, counts = _by_lesion(table, codes)
    deviation = np.random.default_rng([seed, 1]).standard_t(len(runs) - 1, size=(draws, 1))
    return (
        _drawn_means(sums, counts, draws, seed) + deviation * np.sqrt(spread / len(runs)),
        sums,
        counts,
    )


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    lesions: ArrayLike,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ on the same images.

    If they did not, the two scores of a lesion could be exchanged, for all of its images together. So the
    sign of each lesion's summed difference is drawn at random, and p is the share of draws whose mean
    difference is at least as large as the one found, both counted with the one found itself
    (Phipson and Smyth 2010).

    Args:
        first: A score per image, shape (n,); nan is undefined.
        second: Of the same images.
        lesions: The lesion of each image.
        draws: Of the permutation and of the bootstrap (BCa) of the mean difference.
        level: Coverage of the interval.
        seed: Of the draws.

    Returns:
        The result, over images where both scores are defined; all nan where there is none, and p is nan of
        a single lesion.

    Raises:
        ValueError: The lengths differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    names = np.asarray(lesions)
    if not a.shape == b.shape == names.shape:
        raise ValueError(f"The shapes differ: {a.shape}, {b.shape}, {names.shape}.")
    both = ~np.isnan(a) & ~np.isnan(b)
    # So far below any resolution of a score that only rounding can be the cause.
    difference = np.where(np.isclose(a, b, rtol=0, atol=1e-12), 0.0, a - b)[both]
    if not len(difference):
        nothing = float("nan")
        return PairedResult(nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing, 0, 0)
    table, codes = _checked(difference, names[both])
    sums, counts = _by_lesion(table, codes)
    estimate = cluster_intervals(difference, codes, draws=draws, level=level, seed=seed)
    means = (sums / counts)[:, 0]
    varies = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return PairedResult(
        mean=float(estimate.mean[0]),
        low=float(estimate.low[0]),
        high=float(estimate.high[0]),
        p=_sign_flips(sums[:, 0], draws, seed) if len(means) > 1 else float("nan"),
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
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ of which at least one was trained with several seeds.

    A permutation of lesions would ask whether these trainings differ. Here another training is part of the
    question: to the mean difference of each draw of lesions a deviation of the trainings is added, Student's
    t times the standard error of the difference of two means with pooled variance, as in `run_intervals`; p
    is twice the smaller share of draws on one side of 0.

    Args:
        first: For each run of the first method a score per image, shape (n,); nan is undefined.
        second: Of the second method, on the same images in the same order.
        lesions: The lesion of each image.
        draws: Of the bootstrap ("percentile").
        level: Coverage.
        seed: Of the draws.

    Returns:
        The result; wilcoxon, effect_size, won and tied are of the images' means over runs.

    Raises:
        ValueError: Neither method has two runs, or the lengths differ.
    """
    sides = [np.stack([np.asarray(run, dtype=np.float64) for run in runs]) for runs in (first, second)]
    freedom = sum(len(side) - 1 for side in sides)
    if freedom < 1:
        raise ValueError("Neither method has several runs; take paired_test.")
    averages = [_column_means(side) for side in sides]
    result = paired_test(averages[0], averages[1], lesions, draws=draws, level=level, seed=seed)
    if result.lesions < LEAST_LESIONS:
        return result
    means = [_column_means(side.T) for side in sides]
    pooled = sum(float(((of_side - of_side.mean()) ** 2).sum()) for of_side in means) / freedom
    error = np.sqrt(pooled * sum(1 / len(side) for side in sides))
    difference = averages[0] - averages[1]
    both = ~np.isnan(difference)
    sums, counts = _by_lesion(*_checked(difference[both], np.asarray(lesions)[both]))
    deviation = np.random.default_rng([seed, 1]).standard_t(freedom, size=(draws, 1))
    drawn = _drawn_means(sums, counts, draws, seed) + deviation * error
    return _with_trainings(result, drawn, sums, counts, level)


def paired_folds(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    lesions: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedResult:
    """Tests whether two methods differ that were trained and tested on the same folds.

    As in `paired_runs` another training is part of the question. Its spread is that of the folds' mean
    differences, less what their lesions contribute, as in `run_intervals`.

    Args:
        first: For each fold the first method's score per image, shape (n,); nan is undefined.
        second: Of the second method, on the same images in the same order.
        lesions: For each fold the lesion of each image; no lesion is in two folds.
        draws: Of the bootstrap ("percentile").
        level: Coverage.
        seed: Of the draws.

    Returns:
        The result; wilcoxon, effect_size, won and tied are of all folds' images together.

    Raises:
        ValueError: Fewer than two folds, the lengths differ, or folds share lesions.
    """
    values = [[np.asarray(fold, dtype=np.float64) for fold in of_method] for of_method in (first, second)]
    names = [np.asarray(of_fold) for of_fold in lesions]
    result = paired_test(
        np.concatenate(values[0]),
        np.concatenate(values[1]),
        np.concatenate(names),
        draws=draws,
        level=level,
        seed=seed,
    )
    if result.lesions < LEAST_LESIONS:
        return result
    differences = [a - b for a, b in zip(*values, strict=True)]
    drawn, sums, counts = _drawn_runs(differences, names, draws, seed)
    return _with_trainings(result, drawn, sums, counts, level)


def _with_trainings(
    result: PairedResult, drawn: Floats, sums: Floats, counts: Floats, level: float
) -> PairedResult:
    """Puts the interval and p of draws of lesions and trainings into a result."""
    if np.isnan(drawn).any():
        nothing = float("nan")
        return replace(result, low=nothing, high=nothing, p=nothing)
    estimate = _estimates(drawn, sums, counts, level, None)
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    # Of few lesions the bootstrap's p is too small; another training can only make a difference less sure.
    p = max(result.p, min(1.0, 2 * (1 + beyond) / (1 + len(drawn))))
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
        raise ValueError(f"{len(table)} images with scores and {len(names)} with lesions.")
    if not len(table):
        raise ValueError("There is no image.")
    return table, np.unique(names, return_inverse=True)[1].astype(np.int64)


def _by_lesion(table: Floats, codes: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sums and numbers of defined scores, each (lesions, m)."""
    lesions = int(codes.max()) + 1
    defined = ~np.isnan(table)
    columns = [
        (np.bincount(codes, np.where(ok, value, 0), lesions), np.bincount(codes, ok, lesions))
        for value, ok in zip(table.T, defined.T, strict=True)
    ]
    return np.stack([s for s, _ in columns], axis=1), np.stack([n for _, n in columns], axis=1)


def _divide(sums: Floats, counts: Floats) -> Floats:
    quotient: Floats = np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
    return quotient


def _column_means(table: Floats) -> Floats:
    defined = ~np.isnan(table)
    return _divide(np.where(defined, table, 0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _weights(lesions: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each lesion was drawn, in pieces of (draws, lesions)."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        picked = generator.integers(0, lesions, (size, lesions), dtype=np.int32)
        picked += np.arange(size, dtype=np.int32)[:, None] * np.int32(lesions)
        yield np.bincount(picked.ravel(), minlength=size * lesions).reshape(size, lesions).astype(np.float64)


def _drawn_means(sums: Floats, counts: Floats, draws: int, seed: int) -> Floats:
    """Mean of each draw, (draws, m); nan where a draw has no defined score."""
    return np.concatenate([_divide(w @ sums, w @ counts) for w in _weights(len(sums), draws, seed)])


def _jackknife(sums: Floats, counts: Floats) -> Floats:
    """Acceleration of each score, (m,): a sixth of the skewness of the means without one lesion."""
    without = _divide(sums.sum(axis=0) - sums, counts.sum(axis=0) - counts)
    # A lesion without a defined score changes nothing when it is left out, and is no observation.
    without = np.where(counts > 0, without, np.nan)
    away = np.nan_to_num(_column_means(without) - without)
    spread = (away**2).sum(axis=0) ** 1.5
    acceleration: Floats = np.divide(
        (away**3).sum(axis=0), 6 * spread, out=np.zeros(len(spread)), where=spread > 0
    )
    return acceleration


def _estimates(
    drawn: Floats, sums: Floats, counts: Floats, level: float, acceleration: Floats | None
) -> Estimates:
    number = counts.sum(axis=0)
    mean = _divide(sums.sum(axis=0), number)
    known = (counts > 0).sum(axis=0)
    low, high = _ends(drawn, mean, known, level, acceleration)
    return Estimates(mean, low, high, number.astype(np.int64), known.astype(np.int64))


def _ends(
    drawn: Floats, mean: Floats, known: NDArray[np.int64], level: float, acceleration: Floats | None
) -> tuple[Floats, Floats]:
    low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    for column, center in enumerate(mean):
        values = drawn[:, column][~np.isnan(drawn[:, column])]
        if not len(values) or known[column] < LEAST_LESIONS:
            continue
        lesions = int(known[column])
        z = np.sqrt(lesions / (lesions - 1)) * stats.t.ppf([(1 - level) / 2, (1 + level) / 2], lesions - 1)
        if acceleration is not None:
            below = ((values < center).mean() + (values <= center).mean()) / 2
            if 0 < below < 1:
                bias = stats.norm.ppf(below)
                # Beyond 1 the correction would turn around; that far out there is only the last draw.
                bent = np.minimum(acceleration[column] * (bias + z), 0.99)
                z = bias + (bias + z) / (1 - bent)
        low[column], high[column] = np.quantile(values, stats.norm.cdf(z))
    return low, high


def _lesion_variance(table: Floats, codes: NDArray[np.int64]) -> Floats:
    """Variance of the mean over images that drawing lesions brings (linearised ratio estimator)."""
    sums, counts = _by_lesion(table, codes)
    number, lesions = counts.sum(axis=0), len(sums)
    if lesions < 2:
        return np.zeros(table.shape[1])
    residuals = sums - _divide(sums.sum(axis=0), number) * counts
    variance: Floats = lesions / (lesions - 1) * _divide((residuals**2).sum(axis=0), number**2)
    variance[np.isnan(variance)] = 0
    return variance


def _sign_flips(sums: Floats, draws: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    as_large = 0
    # A lesion without any difference stays as it is under either sign.
    sums = sums[sums != 0]
    found = abs(float(sums.sum()))
    for start in range(0, draws, _CHUNK):
        signs = generator.integers(0, 2, (min(_CHUNK, draws - start), len(sums)), dtype=np.int8)
        as_large += int((np.abs((2.0 * signs - 1.0) @ sums) >= found * (1 - 1e-12)).sum())
    return (1 + as_large) / (1 + draws)


def _wilcoxon(means: Floats) -> float:
    if not means.any():
        return 1.0 if len(means) > 1 else float("nan")
    if len(means) < 2:
        return float("nan")
    return float(stats.wilcoxon(means, zero_method="wilcox").pvalue)
