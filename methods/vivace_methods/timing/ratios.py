"""Paired ratios of noisy times, with intervals: what one arm takes of the other on a machine that is not quiet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 4000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, at the 95 % level unless another is asked for.

    The interval is None where n is too small to give one.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def contains_one(self) -> bool:
        """Whether the interval holds 1: no difference was shown."""
        return self.low is None or self.high is None or self.low <= 1.0 <= self.high


def paired_ratio(
    arm: Sequence[float],
    baseline: Sequence[float],
    groups: Sequence[object],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """The median of arm / baseline over pairs, with a bootstrap interval.

    Whole groups (prompts) are drawn, then pairs inside each: pairs of one prompt are no independent witnesses of
    how an arm does on prompts at large. With a single group, pairs are drawn.

    Args:
        arm: a positive time of the arm for each pair.
        baseline: the baseline's, measured next to it.
        groups: what each pair belongs to.
        level: of the interval.

    Raises:
        ValueError: nothing to compare, lengths that differ, or a time that is not positive.
    """
    ratios = _ratios(arm, baseline)
    if len(groups) != len(ratios):
        raise ValueError("every pair needs its group")
    value = float(np.median(ratios))
    if len(ratios) < 5:
        return Estimate(value, None, None, len(ratios))
    medians = _resampled_medians(np.log(ratios), groups, np.random.default_rng(seed))
    low, high = np.exp(np.quantile(medians, [(1 - level) / 2, (1 + level) / 2]))
    return Estimate(value, float(low), float(high), len(ratios))


def signed_rank_interval(ratios: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """The middle of some ratios that are independent of each other, with an exact interval.

    The estimate is Hodges and Lehmann's, the interval that of Wilcoxon's signed ranks (Hollander and Wolfe,
    "Nonparametric Statistical Methods", section 3.3): of a dozen noisy ratios they tell more than a median does, and
    what disturbs a few matters as little. Their logarithms are taken to lie evenly about the middle.

    Args:
        ratios: positive.
        level: of the interval; where the ratios are too few for it (below eight at 99 %), there is none.

    Raises:
        ValueError: there are none, or one is not positive.
    """
    logs = np.log(_ratios(ratios, [1.0] * len(ratios)))
    n = len(logs)
    one, other = np.triu_indices(n)
    means = np.sort((logs[one] + logs[other]) / 2)
    counts = np.ones(1)
    for rank in range(1, n + 1):  # in how many ways signs of the ranks 1 to n sum to each total
        counts = np.convolve(counts, np.eye(1, rank + 1, 0)[0] + np.eye(1, rank + 1, rank)[0])
    left_out = int(np.searchsorted(np.cumsum(counts) / 2.0**n, (1 - level) / 2, side="right"))
    value = float(np.exp(np.median(means)))
    if left_out == 0:
        return Estimate(value, None, None, n)
    return Estimate(value, float(np.exp(means[left_out - 1])), float(np.exp(means[-left_out])), n)


def _ratios(arm: Sequence[float], baseline: Sequence[float]) -> Floats:
    above, below = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if len(above) == 0 or len(above) != len(below):
        raise ValueError("a paired ratio needs pairs")
    if not (np.all(np.isfinite(above)) and np.all(np.isfinite(below)) and np.all(above > 0) and np.all(below > 0)):
        raise ValueError("a paired ratio needs positive times")
    return above / below


def _resampled_medians(values: Floats, groups: Sequence[object], source: np.random.Generator) -> Floats:
    names = list(dict.fromkeys(groups))
    members = [values[[place for place, group in enumerate(groups) if group == name]] for name in names]
    sizes = {len(member) for member in members}
    if len(members) == 1:
        drawn = source.integers(0, len(values), (RESAMPLES, len(values)))
        return np.asarray(np.median(values[drawn], axis=1), dtype=np.float64)
    if len(sizes) == 1:  # the usual case, all at once
        table, (size,) = np.stack(members), sizes
        chosen = source.integers(0, len(members), (RESAMPLES, len(members), 1))
        within = source.integers(0, size, (RESAMPLES, len(members), size))
        return np.asarray(np.median(table[chosen, within], axis=(1, 2)), dtype=np.float64)
    lengths = np.array([len(member) for member in members])
    table = np.full((len(members), lengths.max()), np.inf)
    for place, member in enumerate(members):
        table[place, : len(member)] = member
    chosen = source.integers(0, len(members), (RESAMPLES, len(members)))
    counts = lengths[chosen][..., None]
    within = source.integers(0, counts, (*chosen.shape, table.shape[1]))
    drawn = np.where(np.arange(table.shape[1]) < counts, table[chosen[..., None], within], np.inf)
    drawn = np.sort(drawn.reshape(RESAMPLES, -1), axis=1)  # what a group has not lies behind all that was drawn
    total, rows = counts.sum(axis=(1, 2)), np.arange(RESAMPLES)
    return np.asarray((drawn[rows, (total - 1) // 2] + drawn[rows, total // 2]) / 2, dtype=np.float64)


def median_interval(values: Sequence[float], groups: Sequence[object] | None = None, *, seed: int = 0) -> Estimate:
    """The median of some values with a bootstrap interval.

    Args:
        groups: what each value belongs to, drawn whole as in `paired_ratio`; None where values stand for themselves.

    Raises:
        ValueError: there are no values, or one has no group.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) == 0:
        raise ValueError("a median needs values")
    if groups is not None and len(groups) != len(numbers):
        raise ValueError("every value needs its group")
    value = float(np.median(numbers))
    if len(numbers) < 5:
        return Estimate(value, None, None, len(numbers))
    medians = _resampled_medians(numbers, groups or [None] * len(numbers), np.random.default_rng(seed))
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), len(numbers))
