"""Is one system better than another on the same conversations? Paired differences, tests, and what n can show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.statistics.intervals import LEVEL_Z, design_effect, score_statistic, student, tango_interval

LEVEL = 0.05
"""Of a test: the share of false alarms that is allowed."""
POWER = 0.8
"""The share of true differences of the detectable size that are found."""
POWER_Z = 0.8416212335729143
"""Its standard normal quantile."""
ROUNDING = 1e-18
"""Squares below this share are what sums of fractions leave where there is no spread."""


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
    """The true difference that a comparison of this size finds in 80 of 100 cases, at the 5 % level.

    None also where it would be larger than any difference can be: so few conversations cannot find one.
    """
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
    paired t test on the conversations' differences, each of which is one observation however many replies
    are behind it. Interval: `rate_difference`'s.
    """
    whole = [pair for pair in pairs if pair.whole]
    once = all(pair.rate_a is None and pair.rate_b is None for pair in whole)
    return rate_difference([(pair.passed_a, pair.passed_b) for pair in whole], exact_flips if once else _paired_t)


def rate_difference(
    rates: Sequence[tuple[float, float]], test: Callable[[Sequence[float]], float | None]
) -> Difference | None:
    """The difference of two systems' mean rates on the same samples; None where there is no sample.

    Interval: Wald with ½ added to each of the four outcomes of a sample (Agresti & Min 2005), which keeps its level
    also when few differ: Σd and Σd² over n + 2 samples, of which one more has gained or lost; with Student's t. It
    holds 0 wherever the test does not reject that.

    Args:
        rates: of both systems on each sample, from 0 to 1.
        test: gives the p-value of the samples' differences d.
    """
    n = len(rates)
    if n == 0:
        return None
    differences = [b - a for a, b in rates]
    squares, total = sum(one * one for one in differences), sum(differences)
    low = high = detectable = None
    p_value = test(differences)
    if n > 1:
        adjusted, quantile = total / (n + 2), student(n - 1)
        error = math.sqrt((squares + 1) - total**2 / (n + 2)) / (n + 2)
        low, high = max(-1.0, adjusted - quantile * error), min(1.0, adjusted + quantile * error)
        detectable = _detectable(error, n)
        if p_value is not None and p_value >= LEVEL:
            low, high = min(low, 0.0), max(high, 0.0)
    return Difference(
        a=sum(a for a, _ in rates) / n,
        b=sum(b for _, b in rates) / n,
        low=low,
        high=high,
        p_value=p_value,
        detectable=detectable,
        n=n,
        gained=sum(one > 0 for one in differences),
        lost=sum(one < 0 for one in differences),
    )


def mean_difference(
    values: Sequence[tuple[float, float]], test: Callable[[Sequence[float]], float | None]
) -> Difference | None:
    """The difference of two systems' mean values on the same samples, whatever their range; None without a sample.

    Interval: mean ± Student's t of the differences; None where all differences are the same, for no spread seen is
    not no spread. It holds 0 wherever the test does not reject that.

    Args:
        values: of both systems on each sample.
        test: gives the p-value of the samples' differences.
    """
    n = len(values)
    if n == 0:
        return None
    differences = [b - a for a, b in values]
    mean = sum(differences) / n
    squares = sum((one - mean) ** 2 for one in differences)
    low = high = detectable = None
    p_value = test(differences)
    if n > 1 and squares > ROUNDING * max(1.0, mean**2):
        error = math.sqrt(squares / (n - 1) / n)
        low, high = mean - student(n - 1) * error, mean + student(n - 1) * error
        detectable = (student(n - 1) + student(n - 1, POWER)) * error
        if p_value is not None and p_value >= LEVEL:
            low, high = min(low, 0.0), max(high, 0.0)
    return Difference(
        a=sum(a for a, _ in values) / n,
        b=sum(b for _, b in values) / n,
        low=low,
        high=high,
        p_value=p_value,
        detectable=detectable,
        n=n,
        gained=sum(one > 0 for one in differences),
        lost=sum(one < 0 for one in differences),
    )


def exact_flips(differences: Sequence[float]) -> float:
    """The p-value of `exact_mcnemar`, from differences of which only the sign counts."""
    return exact_mcnemar(sum(one > 0 for one in differences), sum(one < 0 for one in differences))


def _paired_t(differences: Sequence[float]) -> float | None:
    """The p-value of a paired t test; None for fewer than two differences.

    Where all differences are the same size, no spread tells how far chance reaches: then so many fair coins, as many
    as conversations differ, that all fall alike.
    """
    from scipy import special

    n = len(differences)
    if n < 2:
        return None
    mean = sum(differences) / n
    squares = sum((one - mean) ** 2 for one in differences)
    if squares <= ROUNDING * mean**2:
        return exact_mcnemar(sum(one != 0 for one in differences), 0)
    return float(2 * special.stdtr(n - 1, -abs(mean) / math.sqrt(squares / (n - 1) / n)))


def _detectable(error: float, n: int) -> float | None:
    """What n conversations find in 80 of 100 cases; None where no difference is as large."""
    found = (student(n - 1) + student(n - 1, POWER)) * error
    return found if found < 1 else None


def ars_difference(pairs: Sequence[Pair]) -> Difference | None:
    """The difference of pooled rubric scores; None where no criterion is scored in both.

    Tango's score interval and test of paired shares (Tango 1998) at the effective number of criteria: a conversation
    gains or loses so many criteria as the second system meets more or fewer of. That number is the criteria scored
    over their design effect; the effect seen is the variance of the difference of two ratios over the same criteria,
    linearised by conversation (Miller 2024, arXiv 2411.00640, on clustered evals), Var(Δ) = k/(k−1) · Σ e_i² /
    (Σ scored)² with residuals e_i = (met_b − met_a)_i − Δ·scored_i, over that of independent criteria which gain and
    lose as often. What a conversation does to both systems alike is not in their difference, so that an effect of 1
    is expected until enough conversations differ. Student's t with k − 1 degrees of freedom over the k conversations
    decides on interval and p alike: 0 lies outside the interval exactly where p < 0.05.
    """
    from scipy import special

    common = [pair for pair in pairs if pair.scored]
    k = len(common)
    total = sum(pair.scored for pair in common)
    if total == 0:
        return None
    differences = [pair.met_b - pair.met_a for pair in common]
    value = sum(differences) / total
    gained, lost = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    low = high = p_value = detectable = None
    if k > 1:
        more, fewer = (sum(max(sign * one, 0.0) for one in differences) for sign in (1, -1))
        squares = sum((one - value * pair.scored) ** 2 for one, pair in zip(differences, common, strict=True))
        independent = more + fewer - value**2 * total
        seen = k / (k - 1) * squares / independent if independent > 0 else 0.0
        effect = design_effect(seen, gained + lost, 1.0)
        counts = more / effect, fewer / effect, total / effect
        quantile = student(k - 1)
        low, high = tango_interval(*counts, quantile)
        p_value = float(2 * special.stdtr(k - 1, -abs(score_statistic(*counts, 0.0))))
        detectable = _detectable((high - low) / 2 / quantile, k)
    return Difference(
        a=sum(pair.met_a for pair in common) / total,
        b=sum(pair.met_b for pair in common) / total,
        low=low,
        high=high,
        p_value=p_value,
        detectable=detectable,
        n=k,
        gained=gained,
        lost=lost,
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
