"""95 % intervals of rates: Wilson for a share of conversations, linearised by conversation for pooled criteria."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL_Z = 1.959963984540054
"""The standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, inside 0 to 1."""

    low: float
    high: float


def wilson(successes: float, n: float) -> Interval | None:
    """The Wilson score interval of successes/n (Wilson 1927); None for n = 0.

    Both are counts, or effective counts: whole numbers scaled by a design effect.
    """
    if n == 0:
        return None
    p = successes / n
    z2 = LEVEL_Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = LEVEL_Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(
        0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half)
    )


def clustered_proportion(clusters: Sequence[tuple[int, int]]) -> Interval | None:
    """The interval of the mean pass rate of conversations, each of them tried once or several times.

    Conversations are the clusters and count alike, however often each was tried. Wilson's interval at the
    effective sample size n* = p(1 − p) / Var(p) with Var(p) = Σ (p_i − p)² / n², so that tries of one
    conversation count as what they are worth (Dean & Pacheco 2015, "Evaluating coverage rates …", after Korn &
    Graubard 1998). n* lies between the conversations and the tries; with one try each it is Wilson's own
    interval, exactly. None where nothing was tried.

    Args:
        clusters: (passes, tries) of each conversation; those without a try do not count.
    """
    tried = [(passes, tries) for passes, tries in clusters if tries > 0]
    n, every = len(tried), sum(tries for _, tries in tried)
    if every == n:
        return wilson(sum(passes for passes, _ in tried), n)
    rates = [passes / tries for passes, tries in tried]
    rate = sum(rates) / n
    squares = sum((one - rate) ** 2 for one in rates)
    if rate in (0.0, 1.0):
        return wilson(rate * n, n)  # no spread is seen, so that tries may all be worth nothing
    effective = min(float(every), rate * (1 - rate) * n * n / squares) if squares else float(every)
    return wilson(rate * effective, effective)


def clustered_ratio(clusters: Sequence[tuple[float, float]]) -> Interval | None:
    """The interval of Σ met / Σ scored over conversations, whose criteria are not independent.

    The ratio estimator linearised by cluster (Cochran 1977, section 6.3): with residuals
    e_i = met_i − r·scored_i over the k clusters that have scored criteria,
    Var(r) = k/(k−1) · Σ e_i² / (Σ scored_i)². None for fewer than two such clusters.

    Args:
        clusters: (criteria met, criteria scored) of each conversation.
    """
    scored = [(met, total) for met, total in clusters if total > 0]
    k = len(scored)
    if k < 2:
        return None
    total = sum(size for _, size in scored)
    ratio = sum(met for met, _ in scored) / total
    squares = sum((met - ratio * size) ** 2 for met, size in scored)
    half = LEVEL_Z * math.sqrt(k / (k - 1) * squares) / total
    return Interval(max(0.0, ratio - half), min(1.0, ratio + half))
