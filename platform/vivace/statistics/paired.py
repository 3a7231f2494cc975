"""Is one system better than another on the same conversations? Paired differences, tests, and what n can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vivace.statistics.intervals import LEVEL_Z

POWER_Z = 0.8416212335729143
"""The standard normal quantile of 80 % power."""


@dataclass(frozen=True)
class Pair:
    """One conversation under two judgings, on the criteria scored in both.

    Where a system has replied several times, its criteria count as the mean over those replies.
    """

    conversation: str
    axis: str
    whole: bool
    """Whether every criterion of a reply is scored in both; only such conversations count for APR."""
    scored: int
    met_a: float
    met_b: float
    rate_a: float | None = None
    """The share of the first system's wholly scored replies that pass; None where both replied just once."""
    rate_b: float | None = None

    @property
    def passed_a(self) -> float:
        """How often the first system passes: 0 or 1 for one reply, a share for several."""
        return float(self.met_a == self.scored) if self.rate_a is None else self.rate_a

    @property
    def passed_b(self) -> float:
        """How often the second system passes."""
        return float(self.met_b == self.scored) if self.rate_b is None else self.rate_b


@dataclass(frozen=True)
class Difference:
    """The second system's rate less the first's, on the same conversations; rates are fractions.

    Interval, p-value and detectable difference are None where n is too small to say.
    """

    a: float
    b: float
    low: float | None
    high: float | None
    p_value: float | None
    detectable: float | None
    """The true difference that a comparison of this size finds in 80 of 100 cases, at the 5 % level."""
    n: int
    """Conversations compared."""
    gained: int
    """Conversations that come out better for the second system."""
    lost: int
    """Conversations that come out worse."""

    @property
    def value(self) -> float:
        """b − a."""
        return self.b - self.a


def apr_difference(pairs: Sequence[Pair]) -> Difference | None:
    """The difference of pass rates; None where no conversation is wholly scored in both.

    p: exact McNemar test on the conversations that flipped, where both systems replied once; with repeats a
    paired t test on the conversations' differences d, each of which is one observation however many replies
    are behind it. Interval: Wald with ½ added to each of the four outcomes of a conversation (Agresti & Min
    2005), which keeps its level also when few flip: Σd and Σd² over n + 2 conversations, of which one more
    has gained or lost.
    """
    whole = [pair for pair in pairs if pair.whole]
    n = len(whole)
    if n == 0:
        return None
    differences = [pair.passed_b - pair.passed_a for pair in whole]
    squares, total = sum(one * one for one in differences), sum(differences)
    gained, lost = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    once = all(pair.rate_a is None and pair.rate_b is None for pair in whole)
    adjusted = total / (n + 2)
    error = math.sqrt((squares + 1) - total**2 / (n + 2)) / (n + 2)
    return Difference(
        a=sum(pair.passed_a for pair in whole) / n,
        b=sum(pair.passed_b for pair in whole) / n,
        low=max(-1.0, adjusted - LEVEL_Z * error),
        high=min(1.0, adjusted + LEVEL_Z * error),
        p_value=exact_mcnemar(gained, lost) if once else _paired_t(differences),
        detectable=(LEVEL_Z + POWER_Z) * error,
        n=n,
        gained=gained,
        lost=lost,
    )


def _paired_t(differences: Sequence[float]) -> float | None:
    """The p-value of a paired t test; None for fewer than two differences."""
    from scipy import stats

    n = len(differences)
    if n < 2:
        return None
    mean = sum(differences) / n
    error = math.sqrt(sum((one - mean) ** 2 for one in differences) / (n - 1) / n)
    return float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)


def ars_difference(pairs: Sequence[Pair]) -> Difference | None:
    """The difference of pooled rubric scores; None where no criterion is scored in both.

    The difference of two ratios over the same criteria, linearised by conversation: with residuals
    e_i = (met_b − met_a)_i − Δ·scored_i, Var(Δ) = k/(k−1) · Σ e_i² / (Σ scored)², and Student's t with
    k − 1 degrees of freedom over the k conversations (Miller 2024, arXiv 2411.00640, on clustered evals).
    """
    from scipy import stats

    common = [pair for pair in pairs if pair.scored]
    k = len(common)
    total = sum(pair.scored for pair in common)
    if total == 0:
        return None
    a, b = sum(pair.met_a for pair in common) / total, sum(pair.met_b for pair in common) / total
    value = b - a
    low = high = p_value = detectable = None
    if k > 1:
        squares = sum((pair.met_b - pair.met_a - value * pair.scored) ** 2 for pair in common)
        error = math.sqrt(k / (k - 1) * squares) / total
        quantile = float(stats.t.ppf(0.975, k - 1))
        low, high = max(-1.0, value - quantile * error), min(1.0, value + quantile * error)
        p_value = float(2 * stats.t.sf(abs(value) / error, k - 1)) if error else float(value == 0)
        detectable = (quantile + float(stats.t.ppf(0.8, k - 1))) * error
    return Difference(
        a=a,
        b=b,
        low=low,
        high=high,
        p_value=p_value,
        detectable=detectable,
        n=k,
        gained=sum(pair.met_b > pair.met_a for pair in common),
        lost=sum(pair.met_b < pair.met_a for pair in common),
    )


def exact_mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of McNemar's test: a fair coin for each conversation that flipped."""
    flips = gained + lost
    tail = sum(math.comb(flips, count) for count in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << flips))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false alarm in the family stays below the level (Holm 1979)."""
    m = len(p_values)
    adjusted = [0.0] * m
    highest = 0.0
    for rank, place in enumerate(sorted(range(m), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that few of the alarms are false, in expectation (Benjamini & Hochberg 1995)."""
    m = len(p_values)
    adjusted = [0.0] * m
    lowest = 1.0
    for rank, place in reversed(list(enumerate(sorted(range(m), key=lambda place: p_values[place]), start=1))):
        lowest = min(lowest, p_values[place] * m / rank)
        adjusted[place] = lowest
    return adjusted


def conversations_needed(difference: float, spread: float) -> int:
    """How many conversations show a true difference in 80 of 100 comparisons at the 5 % level.

    Args:
        difference: b − a, a fraction.
        spread: the standard deviation, over conversations, of what one contributes to the difference.
    """
    return math.ceil(((LEVEL_Z + POWER_Z) * spread / difference) ** 2)


def repeats_needed(difference: float, conversations: int, between: float, within: float) -> int | None:
    """How many replies to each of so many conversations show a true difference as `conversations_needed` says.

    The variance of the mean difference is (between + within / repeats) / conversations.

    Args:
        difference: b − a, a fraction.
        conversations: how many there are.
        between: the variance of the conversations' own differences.
        within: the variance of one reply's difference around its conversation's.

    Returns:
        The repeats; None where no number is enough, since conversations alone spread too far.
    """
    room = conversations * (difference / (LEVEL_Z + POWER_Z)) ** 2 - between
    return max(1, math.ceil(within / room)) if room > 0 else None
