"""Scores over repeats: the variance split against analysis of variance, and the interval against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from vivace.statistics.intervals import clustered_proportion, wilson
from vivace.statistics.repeats import variance_split

Clusters = list[tuple[int, int]]


def clusters_of(random: np.random.Generator, n: int, repeats: int, a: float = 0.6, b: float = 0.9) -> Clusters:
    """Conversations whose chance of passing is Beta(a, b), each tried so many times."""
    return [(int(passes), repeats) for passes in random.binomial(repeats, random.beta(a, b, n))]


def test_the_split_is_that_of_statsmodels_analysis_of_variance_on_200_random_tables() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        clusters = []
        for _ in range(int(random.integers(2, 12))):
            replies = int(random.integers(1, 6))
            clusters.append((int(random.binomial(replies, random.beta(0.6, 0.9))), replies))
        found = variance_split(clusters)
        if all(replies == 1 for _, replies in clusters):
            assert found is None
            continue
        rows = [(place, float(try_ < passes)) for place, (passes, k) in enumerate(clusters) for try_ in range(k)]
        data = {"conversation": [row[0] for row in rows], "passed": [row[1] for row in rows]}
        table = anova_lm(ols("passed ~ C(conversation)", data).fit())
        between, within = table["mean_sq"]["C(conversation)"], table["mean_sq"]["Residual"]
        sizes = np.array([replies for _, replies in clusters])
        size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
        assert found is not None
        assert found.within == pytest.approx(within, abs=1e-9)
        assert found.between == pytest.approx(max(0.0, (between - within) / size), abs=1e-9)


def test_the_split_finds_the_true_components() -> None:
    """Beta(a, b): conversations vary by ab / ((a + b)²(a + b + 1)), replies by the mean of p(1 − p)."""
    a, b = 0.6, 0.9
    random = np.random.default_rng(2)
    found = [variance_split(clusters_of(random, 200, 3, a, b)) for _ in range(200)]
    between = np.mean([split.between for split in found if split is not None])
    within = np.mean([split.within for split in found if split is not None])
    true_between = a * b / ((a + b) ** 2 * (a + b + 1))
    assert between == pytest.approx(true_between, rel=0.02)
    assert within == pytest.approx(a / (a + b) * (1 - a / (a + b)) - true_between, rel=0.02)


def test_the_two_errors_make_up_the_spread_of_the_score() -> None:
    random = np.random.default_rng(3)
    tables = [clusters_of(random, 120, 4) for _ in range(2000)]
    spread = np.std([np.mean([passes / replies for passes, replies in clusters]) for clusters in tables])
    splits = [variance_split(clusters) for clusters in tables]
    stated = np.mean([split.between_error**2 + split.within_error**2 for split in splits if split is not None])
    assert np.sqrt(stated) == pytest.approx(spread, rel=0.05)


def test_nothing_to_split() -> None:
    assert variance_split([]) is None
    assert variance_split([(1, 3)]) is None
    assert variance_split([(1, 1), (0, 1), (0, 0)]) is None


shares = st.lists(st.integers(0, 5).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=40)


@given(shares)
def test_the_interval_holds_its_rate(clusters: Clusters) -> None:
    found = clustered_proportion(clusters)
    rates = [passes / tries for passes, tries in clusters if tries]
    assert (found is None) == (not rates)
    if found is not None:
        assert 0 <= found.low <= np.mean(rates) + 1e-12 and np.mean(rates) - 1e-12 <= found.high <= 1


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 3))
def test_with_one_try_each_it_is_wilsons_interval_exactly(passed: list[bool], untried: int) -> None:
    clusters = [(int(one), 1) for one in passed] + [(0, 0)] * untried
    assert clustered_proportion(clusters) == wilson(sum(passed), len(passed))


@pytest.mark.parametrize(("n", "repeats", "a", "b"), [(60, 3, 0.6, 0.9), (120, 5, 0.2, 0.4), (120, 2, 20.0, 30.0)])
def test_the_interval_covers_the_true_rate_as_often_as_stated(n: int, repeats: int, a: float, b: float) -> None:
    """Whether tries of a conversation are nearly copies, nearly independent, or in between."""
    random = np.random.default_rng(4)
    tables, true = 2000, a / (a + b)
    covered = 0
    for _ in range(tables):
        found = clustered_proportion(clusters_of(random, n, repeats, a, b))
        covered += found is not None and found.low <= true <= found.high
    # 94 % rather than 95: so much may an interval of estimated variance fall short at 60 conversations.
    assert stats.binom.ppf(0.005, tables, 0.94) <= covered <= stats.binom.ppf(0.9999, tables, 0.95)
