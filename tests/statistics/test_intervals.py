"""The intervals, against independent implementations."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from vivace.statistics.intervals import clustered_ratio, median_interval, wilson

shares = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
clusters = st.lists(st.integers(0, 15).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=40)


@given(shares)
def test_wilson_is_scipys(share: tuple[int, int]) -> None:
    successes, n = share
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    found = wilson(successes, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= successes / n <= found.high <= 1


@given(shares)
def test_wilson_is_statsmodels(share: tuple[int, int]) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    found = wilson(*share)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(proportion.proportion_confint(*share, method="wilson"), abs=1e-12)


def test_wilson_has_the_published_half_widths() -> None:
    """The public board prints 54.65 ± 4.57, 46.90 ± 4.58 and 20.35 ± 3.70 for these of 452 conversations."""
    for passes, half in ((247, 4.57), (212, 4.58), (92, 3.70)):
        found = wilson(passes, 452)
        assert found is not None and round(50 * (found.high - found.low), 2) == half


def test_nothing_has_no_interval() -> None:
    assert wilson(0, 0) is None
    assert clustered_ratio([]) is None
    assert clustered_ratio([(1, 2)]) is None
    assert clustered_ratio([(1, 2), (0, 0)]) is None


@given(clusters)
def test_the_clustered_interval_is_the_delta_methods(given_clusters: list[tuple[int, int]]) -> None:
    """Wilson's, of as many criteria as the ratio of two means with numpy's covariance matrix is worth, with t."""
    found = clustered_ratio(given_clusters)
    scored = np.array([pair for pair in given_clusters if pair[1]], dtype=float)
    k = len(scored)
    if k < 2:
        assert found is None
        return
    assert found is not None
    met, total = scored.mean(axis=0)
    rate = met / total
    gradient = np.array([1 / total, -met / total**2])
    variance = max(0.0, gradient @ np.cov(scored.T) @ gradient / k)
    seen = variance / (rate * (1 - rate) / (k * total)) if 0 < rate < 1 else 0.0
    weight = min((scored[:, 0] > 0).sum(), (scored[:, 0] < scored[:, 1]).sum()) ** 2
    expected = 1 + 0.2 * ((scored[:, 1] ** 2).sum() / scored[:, 1].sum() - 1)
    effective = k * total / max(1 / 3, (weight * seen + 3 * expected) / (weight + 3))
    quantile = t.ppf(0.975, k - 1)
    for end in (found.low, found.high):
        assert abs(end - rate) == pytest.approx(quantile * np.sqrt(end * (1 - end) / effective), abs=1e-6)
    assert 0 <= found.low <= rate <= found.high <= 1 and found.high > found.low


@given(clusters, st.randoms())
def test_the_order_of_the_clusters_does_not_count(given_clusters: list[tuple[int, int]], random: object) -> None:
    shuffled = list(given_clusters)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = clustered_ratio(given_clusters), clustered_ratio(shuffled)
    assert (one is None) == (two is None)
    if one and two:
        assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=1e-12)


def test_clusters_of_one_are_a_plain_proportion() -> None:
    """With one criterion each, the interval is Wilson's of n - 1, but for t in the place of the normal."""
    found = clustered_ratio([(1, 1)] * 30 + [(0, 1)] * 70)
    plain = wilson(0.3 * 99, 99, t.ppf(0.975, 99))
    assert found is not None and plain is not None
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-4)


@pytest.mark.parametrize("cluster", [(4, 4), (3, 4), (0, 4)], ids=["all met", "one missed in each", "none met"])
@pytest.mark.parametrize("k", [2, 5, 40, 452])
def test_conversations_that_are_all_alike_do_not_pin_the_score_down(cluster: tuple[int, int], k: int) -> None:
    """No spread seen is not no spread: the rule of three leaves room for what so many criteria cannot show."""
    found = clustered_ratio([cluster] * k)
    assert found is not None
    assert found.high - found.low > 3 / (4 * k)
    if k == 2:
        assert found.high - found.low > 0.8


def test_criteria_that_stand_and_fall_together_widen_the_interval() -> None:
    together, apart = clustered_ratio([(10, 10), (0, 10)] * 20), clustered_ratio([(5, 10)] * 39 + [(6, 10)])
    assert together is not None and apart is not None
    assert together.high - together.low > 5 * (apart.high - apart.low)


@pytest.mark.parametrize(("rate", "size"), [(0.3, 4), (0.7, 2)])
def test_the_intervals_cover_the_truth_about_nineteen_times_in_twenty(rate: float, size: int) -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        # Conversations differ in how hard they are: criteria inside one are not independent.
        ease = generator.beta(rate * 3, (1 - rate) * 3, 150)
        found = clustered_ratio([(int(met), size) for met in generator.binomial(size, ease)])
        assert found is not None
        covered += found.low <= rate <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_medians_interval_is_of_values_and_keeps_its_level() -> None:
    assert median_interval([1.0] * 5) is None and median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)
    assert median_interval(list(range(100))) == (39, 60), "ranks 40 and 61 of 100"
    chance = random.Random(3)
    samples = (median_interval([chance.expovariate(1) for _ in range(25)]) or (9.0, 0.0) for _ in range(400))
    assert sum(low <= math.log(2) <= high for low, high in samples) >= 0.935 * 400
