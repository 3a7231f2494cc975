"""Simulated coverage: 95 % intervals hold the truth about 95 times in 100, also where misses are few.

Conversations have four criteria, independent or with a correlation of 0.3 inside a conversation (beta-binomial).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from vivace.statistics.intervals import clustered_proportion, clustered_ratio
from vivace.statistics.paired import Pair, apr_difference, ars_difference

CRITERIA = 4
RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
CORRELATIONS = (0.0, 0.3)
PAIRS = ((0.5, 0.5), (0.7, 0.8), (0.9, 0.9), (0.9, 0.95), (0.95, 0.95), (0.95, 0.98), (0.8, 0.98), (0.5, 0.98))
AXIS = "SELF_COHERENCE"
Chances = NDArray[np.float64]
Ends = tuple[float, float]


def chances(rate: float, correlation: float, size: int = CRITERIA) -> Chances:
    """The chance of 0, 1, … criteria met in one conversation."""
    met = np.arange(size + 1)
    if correlation == 0:
        return np.asarray(stats.binom.pmf(met, size, rate))
    a, b = np.array([rate, 1 - rate]) * (1 / correlation - 1)
    return np.asarray(stats.betabinom.pmf(met, size, a, b))


def joint(rates: tuple[float, float], correlation: float, together: bool) -> Chances:
    """The chance of each pair of counts; together: both systems find the same conversations hard."""
    if correlation == 0 or not together:
        return np.outer(*(chances(rate, correlation) for rate in rates))
    places = (np.arange(20_000) + 0.5) / 20_000
    tables = []
    for rate in rates:
        a, b = np.array([rate, 1 - rate]) * (1 / correlation - 1)
        ease = special.betaincinv(a, b, places)
        tables.append(stats.binom.pmf(np.arange(CRITERIA + 1)[:, None], CRITERIA, ease))
    return np.asarray(tables[0] @ tables[1].T / len(places))


def covered(
    ends: Callable[[NDArray[np.int64]], Ends], chance: Chances, conversations: int, true: float, draws: int, seed: int
) -> float:
    """The share of simulated data whose interval holds the truth; data that are alike are looked at once."""
    drawn = np.random.default_rng(seed).multinomial(conversations, chance / chance.sum(), size=draws)
    outcomes, times = np.unique(drawn, axis=0, return_counts=True)
    held = [low - 1e-9 <= true <= high + 1e-9 for low, high in map(ends, outcomes)]
    return float(times[held].sum() / draws)


def ratio_ends(counts: NDArray[np.int64], size: int = CRITERIA) -> Ends:
    """The interval of ARS where so many conversations have met 0, 1, … criteria."""
    found = clustered_ratio([(met, size) for met, times in enumerate(counts.tolist()) for _ in range(times)])
    assert found is not None and found.low < found.high
    return found.low, found.high


def proportion_ends(counts: NDArray[np.int64]) -> Ends:
    """The interval of APR where so many conversations have passed in 0, 1, … of their replies."""
    tries = len(counts) - 1
    found = clustered_proportion(
        [(passes, tries) for passes, times in enumerate(counts.tolist()) for _ in range(times)]
    )
    assert found is not None and found.low < found.high
    return found.low, found.high


def difference_ends(counts: NDArray[np.int64]) -> Ends:
    """The interval of ARS's difference where so many conversations have met each pair of counts."""
    pairs = [
        Pair("c", AXIS, True, CRITERIA, *divmod(place, CRITERIA + 1))
        for place, times in enumerate(counts.tolist())
        for _ in range(times)
    ]
    found = ars_difference(pairs)
    assert found is not None and found.low is not None and found.high is not None and found.low < found.high
    return found.low, found.high


def difference_covered(
    rates: tuple[float, float], correlation: float, together: bool, conversations: int, draws: int
) -> float:
    chance = joint(rates, correlation, together)
    met = np.arange(CRITERIA + 1)
    true = float((chance * (met[None, :] - met[:, None])).sum() / CRITERIA)
    return covered(difference_ends, chance.ravel(), conversations, true, draws, seed=3)


def test_ars_of_five_conversations_is_covered_at_every_rate() -> None:
    """Every outcome that there is, weighed by its chance: no simulation is needed."""
    bars = np.array(list(combinations(range(5 + CRITERIA), CRITERIA)))
    outcomes = np.diff(bars, axis=1, prepend=-1, append=5 + CRITERIA) - 1
    ends = np.array([ratio_ends(counts) for counts in outcomes])
    for rate in np.arange(0.5, 0.99, 0.01):
        for correlation in CORRELATIONS:
            chance = stats.multinomial.pmf(outcomes, 5, chances(float(rate), correlation))
            held = (ends[:, 0] <= rate + 1e-9) & (rate - 1e-9 <= ends[:, 1])
            assert chance[held].sum() >= 0.935, (rate, correlation)


@pytest.mark.parametrize(("rate", "correlation"), [(0.5, 0.0), (0.9, 0.3), (0.95, 0.3), (0.98, 0.0)])
def test_ars_of_forty_conversations_is_covered_and_not_wider_than_it_need_be(rate: float, correlation: float) -> None:
    found = covered(ratio_ends, chances(rate, correlation), 40, rate, draws=4000, seed=1)
    assert 0.935 <= found <= 0.97


@pytest.mark.parametrize(("rates", "correlation"), [((0.9, 0.95), 0.3), ((0.95, 0.98), 0.3), ((0.8, 0.8), 0.0)])
@pytest.mark.parametrize("conversations", [5, 40])
def test_differences_of_ars_are_covered(rates: tuple[float, float], correlation: float, conversations: int) -> None:
    found = difference_covered(rates, correlation, True, conversations, draws=1000)
    assert found >= 0.935
    assert conversations < 40 or found <= 0.97


def wald(counts: NDArray[np.int64]) -> Ends:
    """The plain linearised interval, which serves where spread is well seen."""
    met = np.repeat(np.arange(CRITERIA + 1), counts)
    rate = met.mean() / CRITERIA
    half = stats.norm.ppf(0.975) * stats.sem(met) / CRITERIA
    return max(0.0, rate - half), min(1.0, rate + half)


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_where_spread_is_well_seen_the_interval_is_hardly_wider_than_the_plain_one(
    rate: float, correlation: float
) -> None:
    drawn = np.random.default_rng(5).multinomial(40, chances(rate, correlation), size=100)
    for counts in drawn:
        (low, high), (plain_low, plain_high) = ratio_ends(counts), wald(counts)
        assert high - low <= 1.5 * (plain_high - plain_low)


@pytest.mark.full
@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("conversations", [5, 16, 40, 452])
def test_ars_is_covered_on_the_whole_grid(conversations: int, correlation: float) -> None:
    draws = 20_000 if conversations < 452 else 5000
    for rate in RATES:
        found = covered(ratio_ends, chances(rate, correlation), conversations, rate, draws, seed=2)
        assert found >= 0.935, (rate, found)
        assert conversations < 40 or found <= 0.97, (rate, found)


@pytest.mark.full
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("conversations", [5, 16, 40, 452])
def test_differences_of_ars_are_covered_on_the_whole_grid(
    conversations: int, correlation: float, together: bool
) -> None:
    """Where hardly a conversation differs (both at 0.98) no test of that size can reject: more than 97 % are held."""
    for rates in PAIRS:
        found = difference_covered(
            rates, correlation, together, conversations, draws=5000 if conversations < 452 else 1000
        )
        assert found >= 0.935, (rates, found)
        assert conversations < 40 or found <= 0.97, (rates, found)


@pytest.mark.full
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("tries", [3, 5])
def test_pass_rates_over_repeats_are_covered(tries: int, correlation: float) -> None:
    for conversations in (5, 16, 40):
        for rate in RATES:
            found = covered(
                proportion_ends, chances(rate, correlation, tries), conversations, rate, draws=10_000, seed=4
            )
            assert found >= 0.93, (conversations, rate, found)


def test_two_conversations_that_differ_alike_show_next_to_nothing() -> None:
    """No spread seen is not no spread: no p, no width and no detectable difference of zero."""
    alike = [Pair(f"c{number}", AXIS, True, 4, 4, 3) for number in range(2)]
    found = ars_difference(alike)
    assert found is not None and found.low is not None and found.high is not None and found.p_value is not None
    assert found.low < -0.5 and found.high > 0 and found.p_value > 0.2
    assert found.detectable is None, "two conversations cannot find any difference"
    repeated = [Pair(f"c{number}", AXIS, True, 4, 4, 3, 1.0, 2 / 3) for number in range(2)]
    apr = apr_difference(repeated)
    assert apr is not None and apr.p_value == 0.5 and apr.low is not None and apr.low < 0 <= (apr.high or 0)


@pytest.mark.parametrize("differing", range(2, 12))
def test_interval_and_p_never_contradict_each_other(differing: int) -> None:
    pairs = [Pair(f"c{number}", AXIS, True, 4, 4, 4 - (number < differing)) for number in range(16)]
    for found in (ars_difference(pairs), apr_difference(pairs)):
        assert found is not None and found.p_value is not None and found.high is not None and found.low is not None
        assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05)
        assert found.detectable
