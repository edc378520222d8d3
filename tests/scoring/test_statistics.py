"""Intervals and tests, by what is known of them and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from skinseg.scoring.statistics import (
    LEAST_LESIONS,
    cluster_intervals,
    holm,
    paired_folds,
    paired_runs,
    paired_test,
    run_intervals,
)

Floats = NDArray[np.float64]
Draw = tuple[Floats, NDArray[np.int64]]


def lesions_of(generator: np.random.Generator, lesions: int, most: int = 6) -> NDArray[np.int64]:
    return np.repeat(np.arange(lesions), generator.integers(1, most + 1, lesions))


def scores(
    generator: np.random.Generator, lesions: int, *, between: float = 0.1, within: float = 0.03
) -> Draw:
    """Scores of mean 0.8 whose lesions differ more than the images of one lesion."""
    codes = lesions_of(generator, lesions)
    of_lesion = generator.normal(0, between, lesions)
    return 0.8 + of_lesion[codes] + generator.normal(0, within, len(codes)), codes


def naive(values: Floats, seed: int) -> tuple[float, float]:
    estimate = cluster_intervals(values, np.arange(len(values)), draws=500, seed=seed)
    return float(estimate.low[0]), float(estimate.high[0])


def test_covers_the_true_mean_where_images_of_a_lesion_are_alike() -> None:
    generator = np.random.default_rng(1)
    hits, naive_hits, times = 0, 0, 500
    for number in range(times):
        values, codes = scores(generator, LEAST_LESIONS)
        estimate = cluster_intervals(values, codes, draws=500, seed=number)
        hits += estimate.low[0] <= 0.8 <= estimate.high[0]
        low, high = naive(values, number)
        naive_hits += low <= 0.8 <= high
    assert 0.93 <= hits / times <= 0.97
    assert naive_hits / times < 0.85, "drawing single images is far too narrow here"


def test_agrees_with_a_plain_loop() -> None:
    """The bootstrap-t by hand, lesion by lesion, with draws of its own; and Student's t where it is wider."""
    generator = np.random.default_rng(2)
    codes = lesions_of(generator, 12, 3)
    values = 1 - generator.lognormal(-3, 1, 12)[codes] * generator.uniform(0.5, 1.5, len(codes))
    by_lesion = [values[codes == code].tolist() for code in range(12)]

    def mean_and_error(drawn: list[list[float]]) -> tuple[float, float]:
        images = [value for lesion in drawn for value in lesion]
        mean = sum(images) / len(images)
        square = sum((sum(lesion) - mean * len(lesion)) ** 2 for lesion in drawn)
        return mean, (len(drawn) / (len(drawn) - 1) * square) ** 0.5 / len(images)

    mean, error = mean_and_error(by_lesion)
    student = []
    for _ in range(20_000):
        other, own = mean_and_error([by_lesion[code] for code in generator.integers(0, 12, 12)])
        student.append((other - mean) / own)
    below, above = np.quantile(student, [0.025, 0.975])
    t = stats.t.ppf(0.975, 11)
    ours = cluster_intervals(values, codes, draws=40_000, least=12)
    assert above > t > -below, "one end is of each kind"
    assert ours.mean[0] == pytest.approx(mean)
    assert (ours.mean - ours.low)[0] / error == pytest.approx(above, rel=0.05)
    assert (ours.high - ours.mean)[0] / error == pytest.approx(t)


def test_of_many_lesions_and_no_skewness_it_is_the_interval_that_all_methods_give() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.1, 2000)
    ours = cluster_intervals(values, np.arange(2000))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, rng=np.random.default_rng(4))
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=4e-4)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=4e-4)


def test_undefined_scores_are_left_out_and_counted() -> None:
    generator = np.random.default_rng(5)
    values, codes = scores(generator, 300)
    holes = values.copy()
    holes[::3] = np.nan
    both = cluster_intervals(np.stack([values, holes, np.full_like(values, np.nan)], axis=1), codes)
    alone = cluster_intervals(holes[~np.isnan(holes)], codes[~np.isnan(holes)])
    assert both.mean[1] == pytest.approx(np.nanmean(holes))
    assert both.images.tolist() == [len(values), int((~np.isnan(holes)).sum()), 0]
    assert both.lesions[1] == alone.lesions[0]
    assert both.low[0] == pytest.approx(cluster_intervals(values, codes).low[0], abs=1e-12)
    assert both.low[1] == pytest.approx(alone.low[0], abs=1e-3)
    assert np.isnan([both.mean[2], both.low[2], both.high[2]]).all()


def test_seeded_and_independent_of_the_order_of_images() -> None:
    values, codes = scores(np.random.default_rng(6), LEAST_LESIONS)
    values = 1 - (values - 1) ** 2
    order = np.random.default_rng(7).permutation(len(values))
    one, again = cluster_intervals(values, codes), cluster_intervals(values[order], codes[order])
    assert one.low[0] == pytest.approx(again.low[0], abs=1e-12)
    assert one.low[0] != cluster_intervals(values, codes, seed=1).low[0]


def test_no_interval_of_too_few_lesions() -> None:
    one = cluster_intervals([0.9], ["a"])
    assert one.mean[0] == 0.9
    assert np.isnan([one.low[0], one.high[0]]).all()
    number = LEAST_LESIONS
    enough = cluster_intervals(np.linspace(0, 1, number), np.arange(number))
    assert enough.low[0] < enough.mean[0] < enough.high[0]
    many_of_few = cluster_intervals(np.linspace(0, 1, 4 * number), np.arange(4 * number) % (number - 1))
    assert np.isnan(many_of_few.low[0]), "many images of a few lesions are few lesions"
    two = cluster_intervals(
        np.linspace(0, 1, number)[:, None].repeat(2, 1), np.arange(number), least=[2, 400]
    )
    assert np.isnan(two.low).tolist() == [False, True]


def test_equal_scores_have_an_interval_of_no_width() -> None:
    for value in (1, 0.1, 1 / 3):
        same = cluster_intervals(np.full(LEAST_LESIONS, value), np.arange(LEAST_LESIONS))
        assert same.low[0] == same.mean[0] == same.high[0] == pytest.approx(value)


def test_no_interval_where_all_but_a_few_lesions_score_alike() -> None:
    """Draws without the one that differs say that nothing varies."""
    values = np.full(LEAST_LESIONS, 0.3)
    values[0] = 0.9
    one = cluster_intervals(values, np.arange(LEAST_LESIONS))
    assert np.isnan([one.low[0], one.high[0]]).all()
    values[:20] = np.linspace(0.8, 0.9, 20)
    several = cluster_intervals(values, np.arange(LEAST_LESIONS))
    assert several.low[0] < several.mean[0] < several.high[0]


@pytest.mark.parametrize("wrong", [([], []), ([1.0], [1, 2])])
def test_what_does_not_fit_is_refused(wrong: tuple[list[float], list[int]]) -> None:
    with pytest.raises(ValueError, match="image"):
        cluster_intervals(*wrong)


def test_spread_between_seeds_is_part_of_the_interval() -> None:
    """With three seeds the interval covers; that of the lesions alone does not."""
    generator = np.random.default_rng(8)
    hits = alone = 0
    times = 500
    for number in range(times):
        values, codes = scores(generator, LEAST_LESIONS, between=0.03)
        runs = [values + generator.normal(0, 0.02) + generator.normal(0, 0.01, len(values)) for _ in range(3)]
        estimate = run_intervals(runs, [codes] * 3, draws=600, seed=number)
        hits += estimate.low[0] <= 0.8 <= estimate.high[0]
        single = cluster_intervals(np.mean(runs, axis=0), codes, draws=600, seed=number)
        alone += single.low[0] <= 0.8 <= single.high[0]
    assert 0.93 <= hits / times <= 0.975
    assert alone / times < 0.75


def test_folds_that_train_alike_have_the_interval_of_their_lesions() -> None:
    generator = np.random.default_rng(9)
    hits, widths, plain = 0, 0.0, 0.0
    times = 400
    for number in range(times):
        parts = [scores(generator, 40) for _ in range(5)]
        values, codes = [v for v, _ in parts], [c + 1000 * i for i, (_, c) in enumerate(parts)]
        estimate = run_intervals(values, codes, draws=600, seed=number)
        hits += estimate.low[0] <= 0.8 <= estimate.high[0]
        widths += estimate.high[0] - estimate.low[0]
        pooled = cluster_intervals(np.concatenate(values), np.concatenate(codes), draws=600, seed=number)
        plain += pooled.high[0] - pooled.low[0]
    assert 0.93 <= hits / times <= 0.99, (
        "a spread that is estimated as 0 or more makes it wider, not narrower"
    )
    assert 1 <= widths / plain < 1.35


def test_runs_that_share_some_lesions_are_refused() -> None:
    with pytest.raises(ValueError, match="some of their lesions"):
        run_intervals([np.ones(3), np.ones(3)], [[1, 2, 3], [3, 4, 5]])
    with pytest.raises(ValueError, match="two"):
        run_intervals([np.ones(3)], [[1, 2, 3]])


def test_permutation_equals_all_permutations() -> None:
    generator = np.random.default_rng(10)
    codes = np.repeat(np.arange(8), 2)
    a, b = generator.random(16), generator.random(16) - 0.2
    sums = np.bincount(codes, a - b)
    every = [abs((np.array(signs) * sums).sum()) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(every) >= abs(sums.sum()) - 1e-12)
    assert paired_test(a, b, codes, draws=40_000).p == pytest.approx(exact, abs=0.01)


def test_false_alarms_are_five_in_a_hundred_also_where_images_of_a_lesion_are_alike() -> None:
    generator = np.random.default_rng(11)
    clustered = naively = 0
    times = 600
    for number in range(times):
        difference, codes = scores(generator, 60)
        difference -= 0.8
        zero = np.zeros(len(difference))
        clustered += paired_test(difference, zero, codes, draws=400, seed=number).p <= 0.05
        naively += paired_test(difference, zero, np.arange(len(zero)), draws=400, seed=number).p <= 0.05
    assert 0.03 <= clustered / times <= 0.07
    assert naively / times > 0.15


def test_false_alarms_where_seeds_differ() -> None:
    """Two methods of equal merit, three seeds each: lesions alone would find a winner far too often."""
    generator = np.random.default_rng(14)
    alarms = alone = 0
    times = 500
    for number in range(times):
        values, codes = scores(generator, 60)
        methods = [
            [values + generator.normal(0, 0.01) + generator.normal(0, 0.01, len(values)) for _ in range(3)]
            for _ in range(2)
        ]
        alarms += paired_runs(*methods, codes, draws=400, seed=number).p <= 0.05
        means = [np.mean(method, axis=0) for method in methods]
        alone += paired_test(*means, codes, draws=400, seed=number).p <= 0.05
    assert 0.02 <= alarms / times <= 0.07
    assert alone / times > 0.3
    with pytest.raises(ValueError, match="several"):
        paired_runs([values], [values], codes)


def test_false_alarms_where_seeds_differ_and_lesions_are_few() -> None:
    generator = np.random.default_rng(17)
    alarms, times = 0, 400
    for number in range(times):
        methods = generator.normal(0.8, 0.1, (2, 1, 6)) + generator.normal(0, 1e-4, (2, 3, 6))
        alarms += paired_runs(*methods, np.arange(6), draws=400, seed=number).p <= 0.05
    assert alarms / times <= 0.07


def test_false_alarms_where_folds_differ() -> None:
    """Two methods of equal merit, trained anew for each of five folds."""
    generator = np.random.default_rng(18)
    alarms = alone = found = 0
    times = 400
    for number in range(times):
        folds = [scores(generator, 40) for _ in range(5)]
        codes = [c + 1000 * fold for fold, (_, c) in enumerate(folds)]
        methods = [
            [v + generator.normal(0, 0.01) + generator.normal(0, 0.01, len(v)) for v, _ in folds]
            for _ in range(2)
        ]
        alarms += paired_folds(*methods, codes, draws=400, seed=number).p <= 0.05
        pooled = [np.concatenate(method) for method in methods]
        alone += paired_test(*pooled, np.concatenate(codes), draws=400, seed=number).p <= 0.05
        better = [fold + 0.05 for fold in methods[0]]
        found += paired_folds(better, methods[1], codes, draws=400, seed=number).p <= 0.05
    assert 0.02 <= alarms / times <= 0.07
    assert alone / times > 0.3
    assert found / times > 0.95
    with pytest.raises(ValueError, match="some of their lesions"):
        paired_folds([[1.0] * 9, [1.0] * 9], [[0.0] * 9, [0.0] * 9], [np.arange(9), np.arange(1, 10)])


def test_means_of_different_images_are_no_comparison() -> None:
    """What is defined for one and not for the other has to be settled before: a penalty, or out for both."""
    values, codes = scores(np.random.default_rng(19), 20)
    gaps = np.where(codes < 8, np.nan, values)
    uneven = f"{(codes < 8).sum()} images have a score of some runs and none of others"
    with pytest.raises(ValueError, match=uneven):
        paired_test(values, gaps, codes)
    with pytest.raises(ValueError, match=uneven):
        paired_runs([values, gaps], [values, values], codes)
    with pytest.raises(ValueError, match=uneven):
        run_intervals([values, gaps], [codes, codes])
    with pytest.raises(ValueError, match=uneven):
        paired_folds([values, values], [values, gaps], [codes, codes + 100])
    assert paired_test(gaps, gaps - 0.1, codes).images == (codes >= 8).sum()
    assert run_intervals([gaps, gaps], [codes, codes]).images[0] == (codes >= 8).sum()


def test_finds_a_difference_that_is_larger_than_that_of_seeds() -> None:
    generator = np.random.default_rng(15)
    values, codes = scores(generator, 100)
    first = [values + 0.03 + generator.normal(0, 0.002, len(values)) for _ in range(3)]
    second = [values + generator.normal(0, 0.002, len(values)) for _ in range(2)]
    result = paired_runs(first, second, codes)
    assert result.p < 0.01
    assert result.low < 0.03 < result.high


def test_finds_a_difference_that_is_there() -> None:
    generator = np.random.default_rng(12)
    values, codes = scores(generator, 100)
    better = values + 0.02 + generator.normal(0, 0.03, len(values))
    result = paired_test(better, values, codes)
    assert result.p < 0.001
    assert result.wilcoxon < 0.001
    assert result.low < 0.02 < result.high
    assert result.won > 0.5
    assert result.effect_size > 0.3
    swapped = paired_test(values, better, codes)
    assert (swapped.mean, swapped.effect_size) == pytest.approx((-result.mean, -result.effect_size))
    assert swapped.p == pytest.approx(result.p)
    assert swapped.won == pytest.approx(1 - result.won - result.tied)


def test_a_run_against_itself() -> None:
    values, codes = scores(np.random.default_rng(13), 20)
    result = paired_test(values, values + 1e-16, codes)
    assert (result.mean, result.p, result.wilcoxon, result.won, result.tied) == (0, 1, 1, 0, 1)
    assert np.isnan(result.effect_size)


def test_pairs_without_scores_are_left_out() -> None:
    a, b = np.array([1, np.nan, np.nan, 1, 1, 1, 1.0]), np.array([0, np.nan, np.nan, 0, 0, 0, 0.0])
    result = paired_test(a, b, np.arange(7))
    assert (result.mean, result.images, result.lesions) == (1, 5, 5)
    nothing = paired_test([np.nan], [np.nan], [0])
    assert nothing.images == 0
    assert np.isnan(nothing.p)
    single = paired_test([1.0], [0.5], [0])
    assert single.mean == 0.5
    assert np.isnan([single.p, single.low, single.wilcoxon]).all()


def test_holm() -> None:
    # By hand: .01 * 4, then .02 * 3, then .03 * 2, then .04 * 1, and never less than the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    # Two that were chosen from three.
    assert holm([0.01, 0.04], comparisons=3).tolist() == pytest.approx([0.03, 0.08])
    corrected = holm([np.nan, 0.01, 0.04])
    assert np.isnan(corrected[0])
    assert corrected[1:].tolist() == pytest.approx([0.02, 0.04])
