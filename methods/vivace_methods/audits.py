"""Audits of a recording: what makes its figures worthless, each found by name (after MLPerf's compliance tests)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vivace_methods.ratios import Estimate, median_interval, paired_ratio
from vivace_methods.stopwatch import Recording, Trial

Fault = Literal[
    "caches prompts",
    "prefetches during warm-up",
    "returns fewer tokens",
    "differs from the baseline",
    "is not the baseline's time",
    "works after the clock has stopped",
    "reports its own times",
    "drifts",
    "noisy machine",
]

SAVED = 0.8
"""Of the baseline's own gain on a prompt it has seen: an arm that saves more than a fifth of a repeated prompt's time
has kept something of it."""
BUSY = 0.5
"""Of a processor, after the clock has stopped. An idle process uses none; half a processor is no accident."""
DRIFT = 0.1
"""By which a first and a last quarter of a run may differ."""
NOISE = 0.25
"""Spread of an arm's ratio to its neighbour, as a quarter of the median, above which a machine is called noisy."""
_TIME_NAME = re.compile(r"(^|_)(s|ms|us|seconds?|time|latency|ttft|tpot|itl|throughput|tokens_per_s|speedup)$")


@dataclass(frozen=True)
class Finding:
    """Something that an audit has found."""

    arm: str
    """The arm, or the baseline where it is about the machine."""
    fault: Fault
    sentence: str


def audit(
    recording: Recording, *, identical: Sequence[str] = (), equal_lengths: Sequence[str] | None = None
) -> list[Finding]:
    """Everything that speaks against a recording.

    Args:
        identical: arms that must give the baseline's tokens and its time: the baseline under another name, or a
            method whose settings switch it off.
        equal_lengths: arms that must give as many tokens as the baseline does; None for all.
    """
    arms = list(dict.fromkeys(trial.arm for trial in recording.trials))
    others = [arm for arm in arms if arm != recording.baseline]
    findings: list[Finding] = []
    for arm in others:
        findings += _kept_prompts(recording, arm)
        if equal_lengths is None or arm in equal_lengths:
            findings += _lengths(recording, arm)
        if arm in identical:
            findings += _identity(recording, arm)
    for arm in arms:
        findings += _busy(recording, arm)
        findings += _own_times(recording, arm)
    return [*findings, *_drift(recording), *_noise(recording, others)]


def _kept_prompts(recording: Recording, arm: str) -> list[Finding]:
    """Whether a prompt that the arm has seen before takes it less time, beyond what it takes the baseline less."""
    fresh = [pair for pair in recording.pairs(arm) if pair[0].prompt not in recording.warmed]
    first = {mine.prompt: (mine, other) for mine, other in fresh if mine.repetition == 0}
    again = [
        (mine, other, *first[mine.prompt]) for mine, other in fresh if mine.repetition > 0 and mine.prompt in first
    ]
    gain = _gain(again)
    if gain is not None and gain.high is not None and gain.high < SAVED:
        return [
            Finding(
                arm, "caches prompts", f"A prompt it has answered before takes it {gain.value:.2f} of the first time."
            )
        ]
    warmed = {mine.prompt: mine.total_s / other.total_s for mine, other in recording.pairs(arm)
              if mine.prompt in recording.warmed and mine.repetition == 0}  # fmt: skip
    unseen = [mine.total_s / other.total_s for mine, other in first.values()]
    if len(warmed) >= 3 and len(unseen) >= 3:
        ratio = float(np.median(list(warmed.values())) / np.median(unseen))
        if ratio < SAVED:
            sentence = f"Prompts of the warm-up take it {ratio:.2f} of what new ones take."
            return [Finding(arm, "prefetches during warm-up", sentence)]
    return []


def _gain(again: Sequence[tuple[Trial, Trial, Trial, Trial]]) -> Estimate | None:
    if len(again) < 5:
        return None
    mine = [later.total_s / first.total_s for later, _, first, _ in again]
    others = [later.total_s / first.total_s for _, later, _, first in again]
    return paired_ratio(mine, others, [later.prompt for later, *_ in again])


def _lengths(recording: Recording, arm: str) -> list[Finding]:
    fewer = [(mine, other) for mine, other in recording.pairs(arm) if len(mine.tokens) < len(other.tokens)]
    if not fewer:
        return []
    mine, other = fewer[0]
    sentence = (
        f"In {len(fewer)} of {len(recording.pairs(arm))} answers it gives fewer tokens than the baseline "
        f"({len(mine.tokens)} for {len(other.tokens)} on '{mine.prompt}')."
    )
    return [Finding(arm, "returns fewer tokens", sentence)]


def _identity(recording: Recording, arm: str) -> list[Finding]:
    pairs = recording.pairs(arm)
    findings = []
    wrong = [mine.prompt for mine, other in pairs if mine.tokens != other.tokens]
    if wrong:
        sentence = f"It must give the baseline's tokens, and gives others in {len(wrong)} of {len(pairs)} answers."
        findings.append(Finding(arm, "differs from the baseline", sentence))
    ratio = total_ratio(recording, arm)
    if ratio is not None and not ratio.contains_one:
        sentence = (
            f"It must take the baseline's time, and takes {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]."
        )
        findings.append(Finding(arm, "is not the baseline's time", sentence))
    return findings


def total_ratio(recording: Recording, arm: str) -> Estimate | None:
    """The arm's whole time over the baseline's, paired; None where there are no pairs."""
    pairs = recording.pairs(arm)
    if not pairs:
        return None
    return paired_ratio(
        [mine.total_s for mine, _ in pairs], [other.total_s for _, other in pairs], [mine.prompt for mine, _ in pairs]
    )


def _busy(recording: Recording, arm: str) -> list[Finding]:
    share = recording.busy_after.get(arm, 0.0)
    if share < BUSY:
        return []
    sentence = f"After its last token the process went on using {share:.1f} processors."
    return [Finding(arm, "works after the clock has stopped", sentence)]


def _own_times(recording: Recording, arm: str) -> list[Finding]:
    names = sorted({name for trial in recording.of(arm) for name in trial.figures if _TIME_NAME.search(name)})
    if not names:
        return []
    sentence = f"Its trace holds times of its own ({', '.join(names)}); the stopwatch alone takes times."
    return [Finding(arm, "reports its own times", sentence)]


def _drift(recording: Recording) -> list[Finding]:
    """The baseline's first against its last quarter, prompt by prompt."""
    trials = recording.of(recording.baseline)
    quarter = len(trials) // 4
    by_prompt: dict[str, list[float]] = {}
    for trial in trials:
        by_prompt.setdefault(trial.prompt, []).append(trial.total_s)
    usual: Mapping[str, float] = {prompt: float(np.median(times)) for prompt, times in by_prompt.items()}
    if quarter < 5:
        return []
    early = median_interval([trial.total_s / usual[trial.prompt] for trial in trials[:quarter]])
    late = median_interval([trial.total_s / usual[trial.prompt] for trial in trials[-quarter:]])
    change = late.value / early.value - 1
    if abs(change) < DRIFT:
        return []
    sentence = f"The baseline's times have changed by {change:+.0%} from the first to the last quarter of the run."
    return [Finding(recording.baseline, "drifts", sentence)]


def _noise(recording: Recording, arms: Sequence[str]) -> list[Finding]:
    """The spread of neighbours' ratios: what even pairing does not take out."""
    for arm in arms:
        by_prompt: dict[str, list[float]] = {}
        for mine, other in recording.pairs(arm):
            by_prompt.setdefault(mine.prompt, []).append(mine.total_s / other.total_s)
        spreads = [
            float(np.subtract(*np.quantile(ratios, [0.75, 0.25])) / np.median(ratios))
            for ratios in by_prompt.values()
            if len(ratios) >= 3
        ]
        if spreads and float(np.median(spreads)) > NOISE:
            sentence = (
                f"Ratios of neighbouring trials scatter by {np.median(spreads):.0%}: something else works on this "
                "machine. Trust the intervals, or measure again."
            )
            return [Finding(recording.baseline, "noisy machine", sentence)]
    return []
