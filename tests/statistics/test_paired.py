"""Paired comparisons against scipy and statsmodels, and their false-alarm rate on systems that are equal."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from vivace.statistics.intervals import score_statistic
from vivace.statistics.paired import (
    Pair,
    apr_difference,
    ars_difference,
    benjamini_hochberg,
    exact_mcnemar,
    holm,
    repeats_needed,
)

AXIS = "SELF_COHERENCE"


def random_pairs(random: np.random.Generator, n: int, shift: float = 0.0) -> list[Pair]:
    """Conversations of 1 to 15 criteria, each with a difficulty that both systems share."""
    scored = random.integers(1, 16, n)
    ease = random.beta(3, 1, n)
    met_a, met_b = random.binomial(scored, ease), random.binomial(scored, np.clip(ease + shift, 0.0, 1.0))
    columns = (scored.tolist(), met_a.tolist(), met_b.tolist())
    return [Pair(f"c{number}", AXIS, True, *row) for number, row in enumerate(zip(*columns, strict=True))]


def test_exact_mcnemar_is_statsmodels_on_200_random_tables() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        gained, lost = (int(count) for count in random.integers(0, 60, 2))
        expected = mcnemar([[5, gained], [lost, 7]], exact=True).pvalue
        assert exact_mcnemar(gained, lost) == pytest.approx(expected, abs=1e-9)


@pytest.fixture
def little_to_collect() -> Iterator[None]:
    """statsmodels collects garbage with each of its corrections, which takes long where much else is in memory."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_to_collect")
def test_corrections_are_statsmodels_on_200_random_families() -> None:
    random = np.random.default_rng(2)
    for _ in range(200):
        p_values = list(random.uniform(0, 1, int(random.integers(1, 30))) ** 3)
        for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
            assert ours(p_values) == pytest.approx(list(multipletests(p_values, method=name)[1]), abs=1e-9)


def test_ars_difference_is_the_paired_t_test_where_all_conversations_have_equally_many_criteria() -> None:
    """Score and t test agree where many conversations differ; both ends and p are where Tango's test just rejects."""
    random = np.random.default_rng(3)
    for _ in range(200):
        met = random.binomial(4, 0.6, (int(random.integers(5, 80)), 2))
        pairs = [Pair(f"c{i}", AXIS, True, 4, int(a), int(b)) for i, (a, b) in enumerate(met)]
        ours = ars_difference(pairs)
        change = met[:, 1] - met[:, 0]
        test = stats.ttest_rel(met[:, 1] / 4, met[:, 0] / 4)
        n = len(change)
        assert ours is not None and ours.low is not None and ours.high is not None and ours.p_value is not None
        assert ours.value == pytest.approx(np.mean(change) / 4, abs=1e-9)
        more, fewer, total = change[change > 0].sum(), -change[change < 0].sum(), 4 * n
        seen = stats.sem(change / 4) ** 2 / (((more + fewer) / total - ours.value**2) / total)
        weight = np.count_nonzero(change) ** 2
        effect = max(1 / 3, (weight * seen + 3) / (weight + 3))
        z = (more - fewer) / np.sqrt((more + fewer) * effect)
        assert ours.p_value == pytest.approx(2 * stats.t.sf(abs(z), n - 1), abs=1e-9)
        for end, sign in ((ours.low, 1), (ours.high, -1)):
            statistic = score_statistic(more / effect, fewer / effect, total / effect, end)
            assert sign * statistic == pytest.approx(stats.t.ppf(0.975, n - 1), abs=1e-6)
        if n > 30:
            interval = test.confidence_interval(0.95)
            assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.01)
            assert ours.p_value == pytest.approx(test.pvalue, abs=0.01)


def test_swapping_the_systems_swaps_the_sign() -> None:
    pairs = random_pairs(np.random.default_rng(4), 90, shift=-0.1)
    swapped = [Pair(p.conversation, p.axis, p.whole, p.scored, p.met_b, p.met_a) for p in pairs]
    for compare in (apr_difference, ars_difference):
        one, other = compare(pairs), compare(swapped)
        assert one is not None and other is not None
        assert one.value == -other.value
        assert one.p_value == pytest.approx(other.p_value)
        assert one.low == pytest.approx(-(other.high or 0))
        assert (one.gained, one.lost) == (other.lost, other.gained)


def test_a_conversation_with_an_unscored_criterion_does_not_count_for_apr() -> None:
    pairs = [Pair("whole", AXIS, True, 2, 2, 1), Pair("part", AXIS, False, 1, 0, 1)]
    apr, ars = apr_difference(pairs), ars_difference(pairs)
    assert apr is not None and (apr.n, apr.a, apr.b) == (1, 1.0, 0.0)
    assert ars is not None and (ars.n, ars.a, ars.b) == (2, 2 / 3, 2 / 3)
    assert apr_difference([]) is None and ars_difference([]) is None


@pytest.mark.parametrize("n", [16, 120, 452])
def test_equal_systems_are_called_different_no_more_often_than_stated(n: int) -> None:
    comparisons = 10_000 // 3
    random = np.random.default_rng(n)
    alarms = {"apr p": 0, "ars p": 0, "apr interval": 0, "ars interval": 0}
    for _ in range(comparisons):
        pairs = random_pairs(random, n)
        for name, difference in (("apr", apr_difference(pairs)), ("ars", ars_difference(pairs))):
            assert difference is not None and difference.p_value is not None
            assert difference.low is not None and difference.high is not None
            alarms[f"{name} p"] += difference.p_value < 0.05
            alarms[f"{name} interval"] += not difference.low <= 0 <= difference.high
    limit = stats.binom.ppf(0.99, comparisons, 0.05)
    assert all(count <= limit for count in alarms.values()), (alarms, limit)


def repeated_pairs(random: np.random.Generator, n: int, repeats: tuple[int, int]) -> list[Pair]:
    """Conversations that two equal systems pass with the same chance, tried so many times by each."""
    chances = random.beta(0.5, 0.8, n)
    rates = [random.binomial(k, chances) / k for k in repeats]
    return [
        Pair(f"c{number}", AXIS, True, 1, float(a), float(b), float(a), float(b))
        for number, (a, b) in enumerate(zip(*rates, strict=True))
    ]


def test_apr_with_repeats_is_scipys_paired_t_test_on_200_random_tables() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        pairs = repeated_pairs(random, int(random.integers(5, 80)), (3, int(random.integers(1, 6))))
        test = stats.ttest_rel([pair.rate_b for pair in pairs], [pair.rate_a for pair in pairs])
        if len({pair.passed_b - pair.passed_a for pair in pairs}) == 1:
            continue  # no spread: scipy divides by zero
        found = apr_difference(pairs)
        assert found is not None and found.p_value == pytest.approx(test.pvalue, abs=1e-9)


def test_apr_with_repeats_has_the_interval_of_single_replies_where_all_repeats_agree() -> None:
    pairs = random_pairs(np.random.default_rng(6), 100, shift=-0.1)
    repeated = [replace(pair, rate_a=pair.passed_a, rate_b=pair.passed_b) for pair in pairs]
    one, other = apr_difference(pairs), apr_difference(repeated)
    assert one is not None and other is not None
    assert (one.low, one.high, one.detectable, one.gained, one.lost) == (
        other.low, other.high, other.detectable, other.gained, other.lost,
    )  # fmt: skip


@pytest.mark.parametrize("repeats", [(3, 3), (5, 1)])
def test_equal_systems_with_repeats_are_called_different_no_more_often_than_stated(repeats: tuple[int, int]) -> None:
    """A test that took replies for independent conversations would raise far more alarms."""
    comparisons = 10_000 // 2
    random = np.random.default_rng(repeats)
    found = [apr_difference(repeated_pairs(random, 120, repeats)) for _ in range(comparisons)]
    alarms = sum(one is not None and one.p_value is not None and one.p_value < 0.05 for one in found)
    outside = sum(one is not None and not (one.low or 0) <= 0 <= (one.high or 0) for one in found)
    limit = stats.binom.ppf(0.99, comparisons, 0.05)
    assert max(alarms, outside) <= limit, (alarms, outside, limit)


@pytest.mark.parametrize(("between", "within", "expected"), [(0.0, 0.4, 13), (0.05, 0.2, None), (0.02, 0.1, 9)])
def test_repeats_needed(between: float, within: float, expected: int | None) -> None:
    """Repeats help only against what replies contribute; with one fewer the difference is not found."""
    n, difference = 100, 0.05
    found = repeats_needed(difference, n, between, within)
    quantile = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)

    def detectable(repeats: int) -> float:
        return float(quantile * np.sqrt((between + within / repeats) / n))

    assert found == expected
    if found is None:
        assert detectable(10**9) > difference
    else:
        assert detectable(found) <= difference < detectable(found - 1)


def test_a_detectable_difference_is_found_in_about_80_of_100_comparisons() -> None:
    random = np.random.default_rng(8)
    found, detectable = 0, []
    for _ in range(400):
        difference = ars_difference(random_pairs(random, 200, shift=-0.065))
        assert difference is not None and difference.p_value is not None and difference.detectable is not None
        found += difference.p_value < 0.05
        detectable.append((difference.detectable, -difference.value))
    stated, true = np.mean(detectable, axis=0)
    # The true shift is measured, and the power that the stated detectable difference promises at it follows.
    expected = stats.norm.cdf((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * true / stated - stats.norm.ppf(0.975))
    assert abs(found / 400 - expected) < 0.07, (found, expected)
