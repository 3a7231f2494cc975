"""95 % intervals of rates and of their paired differences, by conversation: score intervals at an effective size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL_Z = 1.959963984540054
"""The standard normal quantile of a two-sided 95 % interval."""
SHARED = 0.2
"""How alike criteria of one conversation are taken to fall out (as a correlation) until enough of them are seen."""
PRIOR_WEIGHT = 3
"""What an expected design effect counts, beside the square of the conversations that tell of the true one."""
LEAST_EFFECT = 1 / 3
"""No design effect is believed to be smaller: no spread seen is not no spread."""
_HALVINGS = 60
"""Of an interval of length 1: far beyond the precision of a float."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, inside 0 to 1."""

    low: float
    high: float


def student(degrees: int, level: float = 0.975) -> float:
    """The quantile of Student's t: by default of a two-sided 95 % interval."""
    from scipy import special

    return float(special.stdtrit(degrees, level))


def wilson(successes: float, n: float, quantile: float = LEVEL_Z) -> Interval | None:
    """The Wilson score interval of successes/n (Wilson 1927); None for n = 0.

    Both are counts, or effective counts: whole numbers scaled by a design effect. Where that was estimated from few
    conversations, Student's t stands in the normal's place as quantile.
    """
    if n == 0:
        return None
    p = successes / n
    z2 = quantile**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = quantile / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(
        0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half)
    )


def design_effect(seen: float, telling: int, expected: float) -> float:
    """How many times more conversations spread than criteria that are independent would (Kish 1965).

    What is seen of few conversations is hardly known, and of none not at all, so that it is held toward what is
    expected: telling² · seen + 3 · expected, over telling² + 3.

    Args:
        seen: the variance linearised by conversation, over that of independent criteria.
        telling: the conversations that it is known from: those that have the rarer outcome.
        expected: what is taken for granted before any is seen.
    """
    weight = telling**2
    return max(LEAST_EFFECT, (weight * seen + PRIOR_WEIGHT * expected) / (weight + PRIOR_WEIGHT))


def clustered_proportion(clusters: Sequence[tuple[int, int]]) -> Interval | None:
    """The interval of the mean pass rate of conversations, each of them tried once or several times.

    Conversations are the clusters and count alike, however often each was tried: `clustered_ratio` of their rates.
    Where all tries of each conversation agree, they are as one try, and the interval is Wilson's own, exactly. None
    where nothing was tried.

    Args:
        clusters: (passes, tries) of each conversation; those without a try do not count.
    """
    rates = [passes / tries for passes, tries in clusters if tries > 0]
    if len(rates) < 2 or all(rate in (0.0, 1.0) for rate in rates):
        return wilson(sum(rates), len(rates))
    return clustered_ratio([(rate, 1.0) for rate in rates])


def clustered_ratio(clusters: Sequence[tuple[float, float]]) -> Interval | None:
    """The interval of Σ met / Σ scored over conversations, whose criteria are not independent.

    Wilson's interval at the effective number of criteria (Korn & Graubard 1998; Dean & Pagano 2015), which is the
    number of criteria over their design effect, with Student's t of k − 1 degrees of freedom over the k conversations
    that have scored criteria. The effect seen is the variance of the ratio estimator linearised by conversation
    (Cochran 1977, section 6.3), Var(r) = k/(k−1) · Σ e_i² / (Σ scored_i)² with residuals e_i = met_i − r·scored_i,
    over r(1 − r) / Σ scored_i. None for fewer than two such conversations.

    Args:
        clusters: (criteria met, criteria scored) of each conversation; with several replies to each, the means over
            them, so that replies which are all alike count as one.
    """
    scored = [(met, size) for met, size in clusters if size > 0]
    k = len(scored)
    if k < 2:
        return None
    total = sum(size for _, size in scored)
    ratio = min(1.0, max(0.0, sum(met for met, _ in scored) / total))
    squares = sum((met - ratio * size) ** 2 for met, size in scored)
    independent = ratio * (1 - ratio) * total
    seen = k / (k - 1) * squares / independent if independent else 0.0
    telling = min(sum(met > 0 for met, _ in scored), sum(met < size for met, size in scored))
    alike = sum(size**2 for _, size in scored) / total
    effective = total / design_effect(seen, telling, 1 + SHARED * (alike - 1))
    return wilson(ratio * effective, effective, student(k - 1))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a mean, with Student's t; None of fewer than two values, and of values that are all alike.

    No spread seen is not no spread, and so tells no interval.
    """
    if len(values) < 2 or (spread := statistics.stdev(values)) == 0:
        return None
    half = student(len(values) - 1) * spread / math.sqrt(len(values))
    mean = math.fsum(values) / len(values)
    return Interval(mean - half, mean + half)


def tango_interval(gained: float, lost: float, n: float, quantile: float = LEVEL_Z) -> tuple[float, float]:
    """Tango's 95 % score interval of the difference of two paired shares (Tango 1998).

    Statistics in Medicine 17, 891-908.

    Args:
        gained: samples where only the second is right, or an effective count of them.
        lost: samples where only the first is right.
        n: all samples.
        quantile: of the statistic; Student's t where the counts are effective ones.
    """
    value = (gained - lost) / n
    low = _edge(gained, lost, n, quantile, inside=value)
    return low, -_edge(lost, gained, n, quantile, inside=-value)


def _edge(gained: float, lost: float, n: float, quantile: float, *, inside: float) -> float:
    """The smallest difference that the score test does not reject, by bisection: the statistic is monotone."""
    outside = -1.0
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if score_statistic(gained, lost, n, middle) <= quantile:
            inside = middle
        else:
            outside = middle
    return inside


def score_statistic(gained: float, lost: float, n: float, difference: float) -> float:
    """Tango's statistic of a true difference (his equation 2.4, the loss's share at its restricted maximum)."""
    above = gained - lost - n * difference
    a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above) if above else 0.0


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a median, from the order of the values alone; None of fewer than six.

    Its ends are the values that at most 2.5 % of samples have their median beyond, whatever the distribution
    (Hollander, Wolfe, Chicken 2014, section 3.6).
    """
    import numpy as np
    from scipy import special

    n = len(values)
    rank = int(np.searchsorted(special.bdtr(np.arange(n), n, 0.5), 0.025)) if n else 0
    ordered = sorted(values)
    return (ordered[rank - 1], ordered[n - rank]) if rank else None
