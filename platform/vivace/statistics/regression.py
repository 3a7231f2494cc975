"""Has a nightly run become worse? A gate that is wide, fresh runs that confirm, and the steps of a long series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.statistics.paired import ROUNDING, benjamini_hochberg

WINDOW = 7
"""Accepted nights whose mean a night is held against: one run alone would lend its own luck to every night."""
GATE_RATE = 0.20
"""The share of false alarms among a job's metrics (Benjamini and Hochberg) at which a night is looked at again."""
CONFIRMATIONS = 2
"""Fresh runs of a night that the gate has flagged; they are pooled, and the night's first run is not among them."""
CONFIRM_LEVEL = 0.01
"""Of the one-sided test of the pooled fresh runs, for each metric that the gate has flagged."""
INTERVAL_LEVEL = 0.95
FEWEST_FOR_NOISE = 3
"""Nights of a baseline from which what chance does is known."""
MOST_OF_IT = 2 / 3
STILL = math.sqrt(ROUNDING)
"""Differences below this are what sums of fractions leave."""

Floats = NDArray[np.float64]
Sample = Mapping[str, float]
"""What is compared one by one (a conversation, a prompt) → its value in one run; more is better."""


@dataclass(frozen=True)
class Change:
    """How far a night lies from its baseline, over what both have; values are such that more is better."""

    n: int
    """Conversations or prompts compared."""
    baseline: float
    tonight: float
    low: float | None
    """Of a two-sided 95 % interval of the difference; None where n is too small to say."""
    high: float | None
    p_value: float
    """One-sided, of a worsening beyond the tolerance."""
    worse: int
    """Conversations or prompts that came out worse."""
    better: int

    @property
    def difference(self) -> float:
        """Tonight less the baseline: below zero is worse."""
        return self.tonight - self.baseline


def mean_sample(runs: Sequence[Sample]) -> dict[str, float]:
    """The mean of several runs, each conversation or prompt over the runs that have it."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for unit, value in run.items():
            found.setdefault(unit, []).append(value)
    return {unit: sum(values) / len(values) for unit, values in found.items()}


def change(
    tonight: Sequence[Sample], baseline: Sequence[Sample], tolerance: float = 0.0, *, flip: float = 1.0
) -> Change | None:
    """Runs of a night against those of the baseline, paired; None where they have nothing in common.

    What chance does is known from the baseline's own nights where there are three of them or more: a drop in some
    conversations spreads the differences, and would hide itself in their spread. With fewer nights that is all there
    is.

    Args:
        tonight: one run, or several that are pooled.
        baseline: the nights of the window.
        tolerance: the worsening that nobody minds, in the unit of the values.
        flip: what one value changes by where it comes out otherwise; 0 of what is measured, and is never twice alike.
    """
    from scipy import special

    ours, theirs = mean_sample(tonight), mean_sample(baseline)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    now, before = (np.array([values[unit] for unit in common]) for values in (ours, theirs))
    noise = None
    if len(baseline) >= FEWEST_FOR_NOISE:
        seen = [[run[unit] for run in baseline if unit in run] for unit in common]
        noise = known_noise(sum(np.var(values, ddof=1) for values in seen if len(values) > 1), len(baseline), flip)
    n, differences = len(common), now - before
    changed = np.abs(differences) > STILL
    share = 1 / len(tonight) + 1 / len(baseline)
    by_chance = variance(n, differences, noise, share)
    fewest = None if noise is not None else changed.sum()
    p_value = worsening_p(n, differences.sum(), by_chance, fewest, tolerance)
    low = high = None
    if n > 1:
        error = math.sqrt(float(variance(n, differences, None, share)) / n)
        reach = float(special.stdtrit(n - 1, (1 + INTERVAL_LEVEL) / 2)) * error
        middle, furthest = float(differences.mean()), flip or math.inf
        low, high = max(-furthest, middle - reach), min(furthest, middle + reach)
    return Change(
        n=n,
        baseline=float(before.mean()),
        tonight=float(now.mean()),
        low=low,
        high=high,
        p_value=float(p_value),
        worse=int((changed & (differences < 0)).sum()),
        better=int((changed & (differences > 0)).sum()),
    )


def known_noise(seen: Any, nights: int, flip: float = 1.0) -> Any:
    """The variance of a run's total by chance, from what nights of a baseline show of it; numbers or arrays.

    No spread seen is not no spread: one flip more than was seen is expected in so many nights.

    Args:
        seen: the sum over conversations of the variances of single values.
        nights: of the baseline.
        flip: what one value changes by where it comes out otherwise.
    """
    return np.asarray(seen, float) + flip**2 / nights


def variance(n: int, differences: Floats, noise: Any, share: float) -> Any:
    """Of one difference, by chance; differences lie along the last axis.

    Args:
        n: conversations or prompts, of which those that never change may be left out of the differences.
        differences: of a night from its baseline.
        noise: of a run's total, by chance; None where the baseline's nights are too few to tell, and the differences'
            own spread has to do.
        share: of a value's variance in a difference: 1 / runs of the night + 1 / nights of the baseline.
    """
    if noise is not None:
        return np.asarray(noise, float) * share / n
    squares, total = (differences**2).sum(-1), differences.sum(-1)
    return np.maximum(squares - total**2 / n, 0.0) / max(n - 1, 1)


def worsening_p(n: int, total: Any, variance: Any, changed: Any = None, tolerance: float = 0.0) -> Any:
    """The one-sided p-value of a worsening beyond a tolerance, of paired differences; numbers or arrays.

    A paired t test.

    Args:
        n: differences.
        total: their sum.
        variance: of one of them, by chance.
        changed: where that is only known by the differences' own spread, how many of them are not zero. The p-value
            is then never below what as many fair coins give that all fall alike: one that flips shows nothing,
            however still the others are.
        tolerance: what the mean may fall by.
    """
    from scipy import special

    distance = np.asarray(total, float) / n + tolerance
    spread = np.asarray(variance, float)
    still = spread <= STILL**2
    error = np.sqrt(np.where(still, 1.0, spread) / n)
    by_spread = special.stdtr(max(n - 1, 1), distance / error)
    p_value = np.where(still, np.where(distance < 0, 0.0, 1.0), by_spread)
    if n < 2:
        return np.ones_like(p_value)
    return p_value if changed is None else np.maximum(p_value, 0.5 ** np.asarray(changed, float))


def gate(p_values: Sequence[float]) -> list[bool]:
    """Which of a night's metrics are looked at again."""
    return [adjusted <= GATE_RATE for adjusted in benjamini_hochberg(p_values)]


def confirms(p_value: float) -> bool:
    """Whether fresh runs, pooled, show the worsening of a metric that the gate has flagged."""
    return p_value <= CONFIRM_LEVEL


@dataclass(frozen=True)
class Split:
    """A change in two parts: what the instrument did to what was frozen, and what remains of it.

    Attributes:
        instrument: the frozen replies as they are judged tonight against how they were judged, or the reference arm's
            speed tonight against what it was.
        rest: the whole change less the instrument's, conversation by conversation.
    """

    instrument: Change
    rest: Change

    @property
    def causes(self) -> tuple[bool, bool]:
        """Whether the instrument, and whether the rest has a part in a change that is confirmed as a whole.

        Each part that is shown; where so few changed that neither can be, the one that is two thirds of it or more.
        """
        shown = confirms(self.instrument.p_value), confirms(self.rest.p_value)
        total = self.instrument.difference + self.rest.difference
        if any(shown) or total >= 0:
            return shown
        return self.instrument.difference / total >= MOST_OF_IT, self.rest.difference / total >= MOST_OF_IT


def split(
    tonight: Sequence[Sample],
    baseline: Sequence[Sample],
    frozen_now: Sample,
    frozen_before: Sample,
    tolerance: float = 0.0,
) -> Split | None:
    """Part a change by what became of something that did not change itself; None where nothing is in common.

    The spread of the differences themselves is what chance does here: that of the frozen adds to the nights' own.
    """
    drift = {unit: value - frozen_before[unit] for unit, value in frozen_now.items() if unit in frozen_before}
    instrument = change([frozen_now], [frozen_before], tolerance)
    mended = [{unit: value - drift[unit] for unit, value in run.items() if unit in drift} for run in tonight]
    rest = change(mended, [mean_sample(baseline)], tolerance)
    return None if instrument is None or rest is None else Split(instrument, rest)


# The trend


FEWEST_NIGHTS = 3
"""On each side of a step."""
PENALTY = 4.0
"""Times variance and the logarithm of the nights: what a step has to save. Quiet series of 1,000 nights then have
steps in fewer than one case of ten (`benchmarks/regressions.py` counts them)."""


def steps(series: Sequence[float]) -> list[int]:
    """Where the level of a series changes for good: the place of the first night after each step.

    Least squares with a price for each step (Killick, Fearnhead and Eckley 2012; the search is ruptures'). The
    spread is that of differences of neighbours, which a step does not widen.
    """
    n = len(series)
    if n < 2 * FEWEST_NIGHTS:
        return []
    values = np.asarray(series, float)
    spread = float(np.median(np.abs(np.diff(values)))) * 1.4826 / math.sqrt(2)
    if spread <= STILL:
        spread = float(np.abs(np.diff(values)).mean()) / math.sqrt(2)  # most nights are alike to the last digit
    if spread <= STILL:
        return []
    from ruptures import KernelCPD

    search = KernelCPD(kernel="linear", min_size=FEWEST_NIGHTS).fit((values / spread)[:, None])
    return [int(place) for place in search.predict(pen=PENALTY * math.log(n))[:-1]]


# What can be noticed


def chance_to_notice(
    drop: float,
    n: int,
    noise: float,
    metrics: int,
    *,
    window: int = WINDOW,
    tolerance: float = 0.0,
    flip: float = 1.0,
) -> float:
    """How likely a true drop of one metric is confirmed within two nights.

    All runs are held against the same window, whose own luck is averaged over; a first night that was not noticed is
    in the window of the second.

    Args:
        drop: of the metric, in its unit.
        n: conversations or prompts.
        noise: the variance of one value of one run, by chance: half the share of conversations that flip.
        metrics: of the job, among which the gate looks for false alarms.
        window: nights of the baseline.
        tolerance: of the job.
        flip: what one value changes by where it comes out otherwise; 0 of what is measured.
    """
    from scipy import special

    if n < 2:
        return 0.0
    spread = max(STILL, math.sqrt((noise + flip**2 / (window * n)) / n))
    luck = np.linspace(-4, 4, 81)
    weights = np.exp(-(luck**2) / 2)
    missed = np.ones_like(luck)
    for seen in (drop, drop * (1 - 1 / window)):
        shown = np.ones_like(luck)
        for runs, level in ((1, GATE_RATE / metrics), (CONFIRMATIONS, CONFIRM_LEVEL)):
            limit = tolerance - special.stdtrit(n - 1, level) * spread * math.sqrt(1 / runs + 1 / window)
            distance = seen + luck * spread / math.sqrt(window) - limit
            shown *= special.ndtr(distance / (spread / math.sqrt(runs)))
        missed *= 1 - shown
    return float(1 - (missed * weights).sum() / weights.sum())


def noticeable(
    n: int,
    noise: float,
    metrics: int,
    *,
    window: int = WINDOW,
    tolerance: float = 0.0,
    flip: float = 1.0,
    chance: float = 0.95,
) -> float | None:
    """The smallest drop that is confirmed within two nights with this chance; None where not even all of it is."""

    def is_noticed(drop: float) -> bool:
        found = chance_to_notice(drop, n, noise, metrics, window=window, tolerance=tolerance, flip=flip)
        return found >= chance

    low, high = tolerance, 1.0
    if not is_noticed(high):
        return None
    for _ in range(30):
        middle = (low + high) / 2
        if is_noticed(middle):
            high = middle
        else:
            low = middle
    if window >= FEWEST_FOR_NOISE:
        return high
    fewest = math.ceil(-math.log2(min(CONFIRM_LEVEL, GATE_RATE / metrics))) / n
    return max(high, fewest * flip) if fewest <= 1 else None
