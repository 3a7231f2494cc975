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


def wilson(successes: int, n: int) -> Interval | None:
    """The Wilson score interval of successes/n (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    p = successes / n
    z2 = LEVEL_Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = LEVEL_Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(
        0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half)
    )


def clustered_ratio(clusters: Sequence[tuple[int, int]]) -> Interval | None:
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
