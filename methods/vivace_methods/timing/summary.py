"""Figures of a recording: what each arm takes, beside the baseline, and how far it gives the baseline's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vivace_methods.timing.ratios import Estimate, median_interval, paired_ratio
from vivace_methods.timing.trials import Recording, Trial


@dataclass(frozen=True)
class Percentiles:
    """Of the latencies between steps, over all steps of all trials of an arm, in seconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Agreement:
    """How far an arm gives the baseline's greedy tokens, over the pairs.

    Attributes:
        n: pairs.
        same: the share whose tokens are the same to the end.
        first_divergence: the place, counted from 0, of the first token that differs: the median over those pairs in
            which one does; None where all are the same. An answer that ends sooner differs where it ends.
        before_divergence: the mean share of the longer answer that lies before it; 1 where all are the same.
    """

    n: int
    same: float
    first_divergence: float | None
    before_divergence: float


@dataclass(frozen=True)
class Comparison:
    """An arm beside the baseline: medians of arm / baseline over pairs; None where no pair tells.

    Times below 1 and throughput above 1 are in the arm's favour.
    """

    ttft_s: Estimate | None
    tpot_s: Estimate | None
    total_s: Estimate | None
    tokens_per_s: Estimate | None
    """Of the whole trial."""
    agreement: Agreement | None


@dataclass(frozen=True)
class ArmSummary:
    """One arm's figures. Medians have bootstrap intervals that draw whole prompts; None where nothing tells."""

    arm: str
    trials: int
    """That ended well; all figures are theirs."""
    failed: int
    failures: tuple[str, ...]
    """The different reasons of those that failed."""
    ttft_s: Estimate | None
    tpot_s: Estimate | None
    total_s: Estimate | None
    tokens_per_s: Estimate | None
    """Output tokens over the whole trial, the prefill included."""
    decode_tokens_per_s: Estimate | None
    """Output tokens after the first step, over the time after it."""
    itl_s: Percentiles | None
    peak_bytes: dict[str, int]
    """The most memory of any trial, by who counts it; empty on a CPU."""
    energy_j_per_token: float | None
    """Of all trials together: the counter's steps are longer than a short trial, and even out over many."""
    output_tokens: dict[str, float]
    """Prompt → tokens of its answer: the median over repetitions."""
    comparison: Comparison | None
    """None for the baseline itself."""

    def as_json(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        return asdict(self)


def summarise(recording: Recording) -> dict[str, ArmSummary]:
    """The figures of each arm of a recording, by its name, in the order in which arms were first timed.

    Audit trials do not count. `audits.audit` says whether the figures can be trusted.
    """
    return {arm: _summary(recording, arm) for arm in recording.arms}


def divergence(tokens: Sequence[int], other: Sequence[int]) -> int | None:
    """The place, counted from 0, where two answers first differ; None where they are the same."""
    if tuple(tokens) == tuple(other):
        return None
    pairs = zip(tokens, other, strict=False)
    shorter = min(len(tokens), len(other))
    return next((place for place, (one, two) in enumerate(pairs) if one != two), shorter)


def _summary(recording: Recording, arm: str) -> ArmSummary:
    trials = recording.of(arm)
    return ArmSummary(
        arm=arm,
        trials=len(trials),
        failed=sum(trial.arm == arm for trial in recording.trials) - len(trials),
        failures=tuple(recording.failures(arm)),
        ttft_s=_median(trials, lambda trial: trial.ttft_s),
        tpot_s=_median(trials, lambda trial: trial.tpot_s),
        total_s=_median(trials, lambda trial: trial.total_s),
        tokens_per_s=_median(trials, lambda trial: trial.tokens_per_s),
        decode_tokens_per_s=_median(trials, lambda trial: 1 / trial.tpot_s if trial.tpot_s else None),
        itl_s=_percentiles([latency for trial in trials for latency in trial.itl_s]),
        peak_bytes=_peaks(trials),
        energy_j_per_token=_energy_per_token(trials),
        output_tokens=_output_tokens(trials),
        comparison=None if arm == recording.baseline else _comparison(recording.pairs(arm)),
    )


def _median(trials: Sequence[Trial], figure: Callable[[Trial], float | None]) -> Estimate | None:
    told = [(value, trial.prompt) for trial in trials if (value := figure(trial)) is not None]
    if not told:
        return None
    return median_interval([value for value, _ in told], [prompt for _, prompt in told])


def _percentiles(latencies: Sequence[float]) -> Percentiles | None:
    return Percentiles(*map(float, np.percentile(latencies, [50, 90, 99]))) if latencies else None


def _peaks(trials: Sequence[Trial]) -> dict[str, int]:
    counters = dict.fromkeys(counter for trial in trials for counter in trial.observed.peak_bytes)
    return {
        counter: max(trial.observed.peak_bytes.get(counter, 0) for trial in trials) for counter in counters
    }  # fmt: skip


def _energy_per_token(trials: Sequence[Trial]) -> float | None:
    read = [(trial.observed.energy_j, len(trial.tokens)) for trial in trials if trial.observed.energy_j is not None]
    tokens = sum(count for _, count in read)
    return sum(energy for energy, _ in read) / tokens if tokens else None


def _output_tokens(trials: Sequence[Trial]) -> dict[str, float]:
    lengths: dict[str, list[int]] = {}
    for trial in trials:
        lengths.setdefault(trial.prompt, []).append(len(trial.tokens))
    return {prompt: float(np.median(each)) for prompt, each in lengths.items()}


def _comparison(pairs: Sequence[tuple[Trial, Trial]]) -> Comparison:
    return Comparison(
        ttft_s=_ratio(pairs, lambda trial: trial.ttft_s),
        tpot_s=_ratio(pairs, lambda trial: trial.tpot_s),
        total_s=_ratio(pairs, lambda trial: trial.total_s),
        tokens_per_s=_ratio(pairs, lambda trial: trial.tokens_per_s),
        agreement=_agreement(pairs),
    )


def _ratio(pairs: Sequence[tuple[Trial, Trial]], figure: Callable[[Trial], float | None]) -> Estimate | None:
    """Over those pairs in which both tell; an answer of one step, for instance, has no time per further token."""
    told = [
        (mine, other, trial.prompt)
        for trial, baseline in pairs
        if (mine := figure(trial)) and (other := figure(baseline))
    ]
    if not told:
        return None
    return paired_ratio(
        [mine for mine, _, _ in told], [other for _, other, _ in told], [group for _, _, group in told]
    )


def _agreement(pairs: Sequence[tuple[Trial, Trial]]) -> Agreement | None:
    if not pairs:
        return None
    places = [
        (divergence(mine.tokens, other.tokens), max(len(mine.tokens), len(other.tokens))) for mine, other in pairs
    ]
    differing = [place for place, _ in places if place is not None]
    before = [1.0 if place is None else place / longer for place, longer in places]
    return Agreement(
        n=len(pairs),
        same=1 - len(differing) / len(pairs),
        first_divergence=float(np.median(differing)) if differing else None,
        before_divergence=float(np.mean(before)),
    )
