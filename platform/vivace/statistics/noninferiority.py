"""Is a faster method as good as the baseline? Only where the same samples show that it loses less than a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vivace.statistics.intervals import tango_interval


@dataclass(frozen=True)
class NonInferiority:
    """A method's mean score less the baseline's on the same samples, with its 95 % interval.

    Attributes:
        value: the difference; below 0 where the method is worse.
        low: the interval's lower end.
        high: its upper end.
        n: samples.
        margin: the loss that was allowed.
    """

    value: float
    low: float
    high: float
    n: int
    margin: float

    @property
    def comparable(self) -> bool:
        """Whether a loss as large as the margin is ruled out, at a one-sided level of 2.5 %."""
        return self.low > -self.margin


def finding(comparable: bool, high: float | None) -> str:
    """What a comparison has shown, in the words of every table.

    Args:
        comparable: whether a loss as large as the margin is ruled out.
        high: the upper end of the difference's interval; None where there is none.
    """
    if comparable:
        return "comparable"
    return "worse" if high is not None and high < 0 else "not shown"


def non_inferiority(baseline: Sequence[float], method: Sequence[float], margin: float) -> NonInferiority:
    """Compare scores from 0 to 1 on the same samples.

    The interval is Tango's score interval for paired shares (Tango 1998, Statistics in Medicine 17, 891-908), which
    keeps its level where hardly anything is gained or lost; a Wald interval does not. Scores between 0 and 1 count
    as parts of a gain or a loss: of all differences with the same mean gain and mean loss, whole ones spread most,
    so that the interval is then wider than it need be, never narrower.

    Args:
        baseline: its score on each sample.
        method: the method's on the same samples, in the same order.
        margin: the loss that still counts as none, above 0 and below 1.

    Raises:
        ValueError: nothing to compare, lengths that differ, or a score or margin out of its bounds.
    """
    if not baseline or len(baseline) != len(method):
        raise ValueError("non-inferiority needs a score of both on every sample")
    if not all(0.0 <= score <= 1.0 for score in (*baseline, *method)):
        raise ValueError("non-inferiority needs scores from 0 to 1")
    if not 0.0 < margin < 1.0:
        raise ValueError("a margin lies between 0 and 1")
    differences = [its - other for its, other in zip(method, baseline, strict=True)]
    gained = math.fsum(max(one, 0.0) for one in differences)
    lost = math.fsum(max(-one, 0.0) for one in differences)
    n = len(differences)
    low, high = tango_interval(gained, lost, n)
    return NonInferiority((gained - lost) / n, low, high, n, margin)
