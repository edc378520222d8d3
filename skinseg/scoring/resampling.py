"""Resamples of lesions: means, their errors, and what resampling makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


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


def by_lesion(table: Floats, codes: NDArray[np.int64]) -> tuple[Floats, Floats]:
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


def column_means(table: Floats) -> Floats:
    """Returns the means of the columns of (rows, m), undefined values left out."""
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


class Resamples(NamedTuple):
    """Means of m scores, their standard errors, both (m,), and how far off each draw is, (draws, m).

    `student` is the deviation by the draw's own standard error: infinite where the draw does not vary.
    """

    mean: Floats
    error: Floats
    deviation: Floats
    student: Floats


def resample(sums: Floats, counts: Floats, draws: int, seed: int) -> Resamples:
    """Resamples lesions with replacement.

    Args:
        sums: Sums over each lesion's images, (lesions, m).
        counts: Numbers of images that they are of, of the same shape.
        draws: Number of resamples.
        seed: Seed of the generator.
    """
    mean, residuals, error = linearised(sums, counts)
    # Most often all scores are defined on the same images.
    images = counts[:, :1] if (counts == counts[:, :1]).all() else counts
    terms = [residuals, residuals * counts, residuals**2, images, images**2]
    table = np.concatenate(terms, axis=1)
    drawn = np.concatenate([w @ table for w in _weights(len(sums), draws, seed)])
    off, product, square, number, number_square = np.split(
        drawn, np.cumsum([term.shape[1] for term in terms])[:-1], axis=1
    )
    deviation = _divide(off, np.broadcast_to(number, off.shape))
    # The sum of the squared residuals from the draw's own mean, unless nothing but rounding is left of it.
    own = square - 2 * deviation * product + deviation**2 * number_square
    own = np.where(own > 1e-12 * square, own, 0)
    own_error = _divide(np.sqrt(_correction(counts) * own), np.broadcast_to(number, own.shape))
    student = np.where(deviation == 0, 0.0, np.copysign(np.inf, deviation))
    np.divide(deviation, own_error, out=student, where=own_error > 0)
    return Resamples(mean, error, deviation, student)


def linearised(sums: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Means over images (m,), each lesion's residuals (lesions, m), and the standard errors of the means."""
    number = counts.sum(axis=0)
    mean = _divide(sums.sum(axis=0), number)
    residuals = np.nan_to_num(sums - mean * counts)
    # What is left of equal scores is rounding.
    residuals[np.abs(residuals) <= 1e-12 * np.abs(sums).max(axis=0)] = 0
    return mean, residuals, _divide(np.sqrt(_correction(counts) * (residuals**2).sum(axis=0)), number)


def _correction(counts: Floats) -> Floats:
    """By how much a variance of lesions is too small, the mean being their own."""
    known = (counts > 0).sum(axis=0)
    correction: Floats = known / np.maximum(known - 1, 1)
    return correction


def estimates_of(
    drawn: Resamples,
    sums: Floats,
    counts: Floats,
    level: float,
    least: ArrayLike,
    error: Floats | float = 0.0,
    freedom: int = 1,
) -> Estimates:
    """Intervals of draws, and of trainings with so large a standard error and so many degrees of freedom."""
    known = (counts > 0).sum(axis=0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    # A quantile between two draws of which one is infinite would be no number.
    below, above = np.quantile(drawn.student, tails, axis=0, method="inverted_cdf")
    student = stats.t.ppf(tails[1], known - 1)
    trainings = stats.t.ppf(tails[1], freedom) * error
    enough = (known >= least) & np.isfinite(below) & np.isfinite(above)
    ends = [
        np.hypot(np.where(enough, np.maximum(student, reach), np.nan) * drawn.error, trainings)
        for reach in (above, -below)
    ]
    number = counts.sum(axis=0).astype(np.int64)
    return Estimates(drawn.mean, drawn.mean - ends[0], drawn.mean + ends[1], number, known)


def sign_flips(sums: Floats, draws: int, seed: int) -> float:
    """Returns the p value of sums over lesions, by random signs: that a total as far from 0 comes by chance.

    Args:
        sums: Sums of differences, shape (lesions,).
        draws: Number of random signs.
        seed: Seed of the generator.
    """
    generator = np.random.default_rng(seed)
    as_large = 0
    # A lesion without any difference stays as it is under either sign.
    sums = sums[sums != 0]
    found = abs(float(sums.sum()))
    for start in range(0, draws, _CHUNK):
        signs = generator.integers(0, 2, (min(_CHUNK, draws - start), len(sums)), dtype=np.int8)
        as_large += int((np.abs((2.0 * signs - 1.0) @ sums) >= found * (1 - 1e-12)).sum())
    return (1 + as_large) / (1 + draws)
