"""Audits of a recording: what makes its figures worthless, each found by name (after MLPerf's compliance tests).

They catch accidents. An arm shares its process with the clock, so that whoever means to deceive it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vivace_methods.timing.ratios import Estimate, median_interval, paired_ratio, signed_rank_interval
from vivace_methods.timing.trials import Kind, Recording, Trial, TrialKey

Fault = Literal[
    "caches prompts",
    "prefetches during warm-up",
    "returns fewer tokens",
    "returns more tokens",
    "hands tokens over in bunches",
    "differs from the baseline",
    "is not the baseline's time",
    "writes other tokens",
    "works after the clock has stopped",
    "reports its own times",
    "changes the process",
    "answers before the prompt is read",
    "takes less than its floor",
    "drifts",
    "noisy machine",
]

SAVED, SHOWN = 0.9, 0.95
"""Of what the baseline takes for a prompt it has met, beside a new one: an arm that saves a tenth, and beyond
doubt a twentieth, has kept something of it. The audit's pairs show a saving of a fifth."""
SAVED_OF_OTHER = 0.8
"""The same of whole answers to prompts of other words, beyond doubt: how long they take depends on what they say too,
with drafts more than with others, and the words of a twin are harder to guess."""
FEW, SAVED_OF_FEW = 8, 0.5
"""Of fewer pairs it must have saved half: all of five lie to one side by chance now and then."""
EARLY = 3.0
"""Times the usual latency that a second token takes which had to wait for the prompt that the first did not."""
BELOW = 0.8
"""Of a floor: a rate that a probe found is the best that it tried, and a good kernel may be somewhat better."""
CERTAIN = 0.99
"""Level of the intervals on which an arm is accused: an accusation needs more than an estimate does."""
BUSY = 0.5
"""Of a processor, after the clock has stopped. An idle process uses none; half a processor is no accident."""
OFTEN = 0.1
"""Share of an arm's trials after which it must have been busy."""
IDENTICAL = 0.02
"""By which the baseline under another name may differ from it, beyond doubt, before it is said."""
BUNCHED = 0.02
"""Of the baseline's time for a step: what follows this close was computed before, and held back."""
UNDISTURBED = 0.1
"""Quantile of the trials' means that is taken for what a step takes undisturbed."""
HELD = 0.1
"""Share of an arm's steps that may follow so close."""
ROUNDED = 1e-3
"""Of a figure, by which it may change for the same answer because sums were taken in another order."""
DRIFT = 0.1
"""By which a first and a last quarter of a run may differ."""
NOISE = 0.25
"""Spread of an arm's ratio to its neighbour, as a quarter of the median, above which a machine is called noisy."""

_TIMES = re.compile(
    r"s|ms|us|ns|secs?|seconds?|millis|milliseconds|minutes|times?|timings?|latency|latencies|durations?|elapsed|wall|"
    r"clock|ttft|tpot|itl|e2el?|throughput|tps|toks?|speed|speedup|fps|hz|stamps?|timestamps?"
)
_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class Finding:
    """Something that an audit has found."""

    arm: str
    """The arm, or the baseline where it is about the machine."""
    fault: Fault
    sentence: str


@dataclass(frozen=True)
class Least:
    """The times below which a device cannot do what a trial says it did, in seconds."""

    first_s: float
    """Until the first token: to read the prompt as far as the method reads it."""
    total_s: float
    """Of the whole answer."""


def audit(
    recording: Recording,
    *,
    identical: Sequence[str] = (),
    equal_lengths: Sequence[str] | None = None,
    least: Mapping[TrialKey, Least] | None = None,
) -> list[Finding]:
    """Everything that speaks against a recording.

    Args:
        identical: arms that must give the baseline's tokens and its time: the baseline under another name, or a
            method whose settings switch it off.
        equal_lengths: arms that must give as many tokens as the baseline does; None for all. Every arm must give as
            many as it was asked for, or end its answer.
        least: the floors of trials, as far as they are known.
    """
    others = [arm for arm in recording.arms if arm != recording.baseline]
    findings: list[Finding] = []
    for arm in others:
        findings += _kept_prompts(recording, arm)
        findings += _lengths(recording, arm, equal_lengths is None or arm in equal_lengths)
        if arm in identical:
            findings += _identity(recording, arm)
    for arm in recording.arms:
        findings += _bunches(recording, arm)
        findings += _busy(recording, arm)
        findings += _own_times(recording, arm)
        findings += _process(recording, arm)
        findings += _too_early(recording, arm, least or {})
        findings += _below_floor(recording, arm, least or {})
    return [*findings, *_drift(recording), *_noise(recording, others)]


_KEPT: Sequence[tuple[Kind, bool, Fault, str]] = (
    ("twin again", False, "caches prompts", "A prompt it has just answered takes it {:.2f} of a new one."),
    ("first", True, "prefetches during warm-up", "Prompts of the warm-up take it {:.2f} of new ones."),
    ("again", False, "caches prompts", "A prompt it has answered before takes it {:.2f} of a new one."),
)
"""What is compared with a twin, whether of the warm-up's prompts alone, and what it means if it takes less time."""


def _kept_prompts(recording: Recording, arm: str) -> list[Finding]:
    """Whether an arm takes less time for a prompt it has met than for its twin, where the baseline does not."""
    for later, warmed, fault, sentence in _KEPT:
        saved = {time: _saving(recording, arm, later, "twin", time, warmed) for time in ("ttft_s", "total_s")}
        found = [
            estimate
            for time, estimate in saved.items()
            if estimate is not None and _is_saving(estimate, same_work=time == "ttft_s" or later == "twin again")
        ]
        if found:
            least = min(estimate.value for estimate in found)
            return [Finding(arm, fault, sentence.format(least))]
    return []


def _is_saving(estimate: Estimate, same_work: bool) -> bool:
    """Whether a share of a time leaves no doubt that something was kept.

    Args:
        estimate: of the share.
        same_work: whether both prompts take the same work: they are as long, and their answers are of the same words
            or are left out.
    """
    if estimate.high is None:
        return False
    if estimate.n < FEW or not same_work:
        return estimate.high < (SAVED_OF_FEW if estimate.n < FEW else SAVED_OF_OTHER)
    return estimate.value < SAVED and estimate.high < SHOWN


def _saving(recording: Recording, arm: str, later: Kind, sooner: Kind, time: str, warmed: bool) -> Estimate | None:
    """How much less one kind of audit trial takes an arm than another, beside the baseline."""

    def shares(of: str) -> dict[tuple[str, int], float]:
        times = {
            (each.trial.session, each.trial.repetition, each.kind): getattr(each.trial, time)
            for each in recording.audits
            if each.trial.arm == of and each.trial.failure is None and (each.trial.warmed or not warmed)
        }
        return {
            (session, number): times[session, number, later] / times[session, number, sooner]
            for session, number, kind in times
            if kind == later and times.get((session, number, later)) and times.get((session, number, sooner))
        }

    mine, other = shares(arm), shares(recording.baseline)
    both = [key for key in mine if key in other]
    if not both:
        return None
    times, usual = [mine[key] for key in both], [other[key] for key in both]
    if len(both) < FEW:
        return paired_ratio(times, usual, both, level=CERTAIN)
    # What a prompt that was met spares the baseline, as warm memory does, speaks for an arm, and never against it.
    own, beside = signed_rank_interval(times, level=CERTAIN), min(1.0, signed_rank_interval(usual).value)
    assert own.low is not None and own.high is not None
    return Estimate(own.value / beside, own.low / beside, own.high / beside, own.n)


def _lengths(recording: Recording, arm: str, equal: bool) -> list[Finding]:
    trials = recording.of(arm)
    fewer = [trial for trial in trials if len(trial.tokens) < trial.most_tokens and not trial.ended]
    if fewer:
        first = fewer[0]
        asked = f"{len(first.tokens)} of {first.most_tokens} on '{first.prompt}'"
        sentence = f"{len(fewer)} of {len(trials)} answers stop before they end or are as long as asked ({asked})."
        return [Finding(arm, "returns fewer tokens", sentence)]
    more = [trial for trial in trials if len(trial.tokens) > trial.most_tokens]
    if more:
        sentence = f"{len(more)} of {len(trials)} answers are longer than asked."
        return [Finding(arm, "returns more tokens", sentence)]
    pairs = recording.pairs(arm)
    shorter = [(mine, other) for mine, other in pairs if equal and len(mine.tokens) < len(other.tokens)]
    if not shorter:
        return []
    mine, other = shorter[0]
    sentence = (
        f"In {len(shorter)} of {len(pairs)} answers it gives fewer tokens than the baseline "
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
    ratio = total_ratio(recording, arm, level=CERTAIN)
    if ratio is not None and not ratio.contains_one and abs(ratio.value - 1) > IDENTICAL:
        sentence = (
            f"It must take the baseline's time, and takes {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]."
        )
        findings.append(Finding(arm, "is not the baseline's time", sentence))
    return findings


def total_ratio(recording: Recording, arm: str, *, level: float = 0.95) -> Estimate | None:
    """The arm's whole time over the baseline's, paired; None where there are no pairs."""
    pairs = recording.pairs(arm)
    if not pairs:
        return None
    mine, other = [mine.total_s for mine, _ in pairs], [other.total_s for _, other in pairs]
    return paired_ratio(mine, other, [mine.prompt for mine, _ in pairs], level=level)


def _bunches(recording: Recording, arm: str) -> list[Finding]:
    """Steps that follow each other faster than any could be computed: their tokens were held back.

    What comes before the first token is no measure of a step: long prompts are read in a hundred times the time.
    """
    usual = _usual_step(recording.of(recording.baseline)) or _usual_step(recording.of(arm))
    latencies = [latency for trial in recording.of(arm) for latency in trial.itl_s]
    if usual is None or not latencies:
        return []
    held = sum(latency < BUNCHED * usual for latency in latencies) / len(latencies)
    if held <= HELD:
        return []
    sentence = f"{held:.0%} of its steps arrive right behind others: their tokens were known before, and held back."
    return [Finding(arm, "hands tokens over in bunches", sentence)]


def _usual_step(trials: Sequence[Trial]) -> float | None:
    """The mean time of a step in trials that little disturbed; None where all answers are of one step.

    On a machine that others use, most trials are interrupted somewhere, and beside them honest steps look short.
    """
    means = [float(np.mean(trial.itl_s)) for trial in trials if trial.itl_s]
    return float(np.quantile(means, UNDISTURBED)) if means else None


def _busy(recording: Recording, arm: str) -> list[Finding]:
    trials = [*recording.of(arm), *(each.trial for each in recording.audits if each.trial.arm == arm)]
    shares = [trial.observed.busy_after for trial in trials if trial.observed.busy_after >= BUSY]
    if len(shares) < _often(len(trials)):
        return []
    sentence = (
        f"After {len(shares)} of {len(trials)} answers it went on working, with up to {max(shares):.1f} processors."
    )
    return [Finding(arm, "works after the clock has stopped", sentence)]


def _own_times(recording: Recording, arm: str) -> list[Finding]:
    trials = recording.of(arm)
    replaced = sorted({name for trial in trials for name in trial.observed.tampered})
    if replaced:
        return [Finding(arm, "reports its own times", f"It has replaced the clock ({', '.join(replaced)}).")]
    names = sorted({name for trial in trials for name, _ in _named(trial.figures) if _is_time(name)})
    names = names or _changing(trials)
    if not names:
        return []
    sentence = f"Its trace holds times of its own ({', '.join(names)}); the stopwatch alone takes times."
    return [Finding(arm, "reports its own times", sentence)]


def _process(recording: Recording, arm: str) -> list[Finding]:
    trials = [*recording.of(arm), *(each.trial for each in recording.audits if each.trial.arm == arm)]
    changed = [trial.observed.changed for trial in trials if trial.observed.changed]
    if not changed:
        return []
    names = ", ".join(sorted({name for names in changed for name in names}))
    sentence = (
        f"In {len(changed)} of {len(trials)} answers it changes what all arms share ({names}); it was put back each "
        "time."
    )
    return [Finding(arm, "changes the process", sentence)]


def _too_early(recording: Recording, arm: str, least: Mapping[TrialKey, Least]) -> list[Finding]:
    """A first token that cannot come of the prompt: it came before that was read.

    Either the time is less than reading takes at the least; or the prompt was read between the first token and the
    second, which then is as late as a first should be.
    """
    trials = recording.of(arm)
    first = {trial.key: trial.ttft_s / least[trial.key].first_s for trial in trials
             if trial.ttft_s and trial.key in least and least[trial.key].first_s > 0}  # fmt: skip
    fast = [share for share in first.values() if share < BELOW]
    long = [trial for trial in trials if len(trial.itl_s) >= 3]
    late = [
        trial
        for trial in long
        if trial.itl_s[0] > (trial.ttft_s or 0.0) and trial.itl_s[0] > EARLY * float(np.median(trial.itl_s[1:]))
    ]
    if len(fast) >= _often(len(first)):
        sentence = (
            f"In {len(fast)} of {len(first)} answers the first token comes in {min(fast):.2f} of the time that this "
            "device needs to read so much of a prompt."
        )
    elif len(late) >= max(2, len(long) / 2):
        sentence = (
            f"In {len(late)} of {len(long)} answers the second token takes longer than the first, and {EARLY:.0f} "
            "times what later ones take: the prompt was read after the first."
        )
    else:
        return []
    return [Finding(arm, "answers before the prompt is read", sentence)]


def _below_floor(recording: Recording, arm: str, least: Mapping[TrialKey, Least]) -> list[Finding]:
    known = [trial for trial in recording.of(arm) if trial.key in least and least[trial.key].total_s > 0]
    below = [share for trial in known if (share := trial.total_s / least[trial.key].total_s) < BELOW]
    if len(below) < _often(len(known)):
        return []
    sentence = (
        f"{len(below)} of {len(known)} answers took less than this device needs for what they read and compute "
        f"({min(below):.2f} of their floor): the clock, the count or the probe is wrong."
    )
    return [Finding(arm, "takes less than its floor", sentence)]


def _often(trials: int) -> float:
    """How many trials of an arm must show something before it is said."""
    return max(min(2, trials), OFTEN * trials, 1)


def _named(figures: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All figures with the names that lead to them, also those inside others."""
    if isinstance(figures, Mapping):
        for key, value in figures.items():
            yield from _named(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, figures


def _is_time(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(map(_TIMES.fullmatch, words)) or "per_s" in name or "tok_per" in name


def _changing(trials: Sequence[Trial]) -> list[str]:
    """Figures that are never the same twice for the same answer: what is counted stays, what is timed changes."""
    seen: dict[str, dict[tuple[Any, ...], list[float]]] = {}
    for trial in trials:
        for name, value in _named(trial.figures):
            numbers = value if isinstance(value, list | tuple) else [value]
            if numbers and all(isinstance(each, float) for each in numbers):
                seen.setdefault(name, {}).setdefault((trial.prompt, trial.tokens), []).append(float(np.sum(numbers)))
    return sorted(name for name, answers in seen.items() if _never_the_same(list(answers.values())))


def _never_the_same(answers: Sequence[Sequence[float]]) -> bool:
    repeated = [values for values in answers if len(values) >= 2]
    changed = [values for values in repeated if len(set(values)) == len(values)]
    much = [values for values in changed if np.ptp(values) > ROUNDED * max(values)]  # by chance two times are alike
    return len(repeated) >= 3 and 10 * len(changed) >= 9 * len(repeated) and 2 * len(much) > len(repeated)


def _drift(recording: Recording) -> list[Finding]:
    """The baseline's first against its last quarter, prompt by prompt."""
    trials = recording.of(recording.baseline)
    quarter = len(trials) // 4
    if quarter < 5:
        return []
    by_prompt: dict[str, list[float]] = {}
    for trial in trials:
        by_prompt.setdefault(trial.prompt, []).append(trial.total_s)
    usual: Mapping[str, float] = {prompt: float(np.median(times)) for prompt, times in by_prompt.items()}
    early = median_interval([trial.total_s / usual[trial.prompt] for trial in trials[:quarter]])
    late = median_interval([trial.total_s / usual[trial.prompt] for trial in trials[-quarter:]])
    change = late.value / early.value - 1
    if abs(change) < DRIFT or _overlap(early, late):
        return []
    sentence = f"The baseline's times have changed by {change:+.0%} from the first to the last quarter of the run."
    return [Finding(recording.baseline, "drifts", sentence)]


def _overlap(one: Estimate, other: Estimate) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def _noise(recording: Recording, arms: Sequence[str]) -> list[Finding]:
    """The spread of neighbours' ratios, which even pairing does not take out; without other arms, of the baseline."""
    spreads = [_spread([(mine.prompt, mine.total_s / other.total_s) for mine, other in recording.pairs(arm)])
               for arm in arms] or [
        _spread([(trial.prompt, trial.total_s) for trial in recording.of(recording.baseline)])
    ]  # fmt: skip
    worst = max(spreads, default=0.0)
    if worst <= NOISE:
        return []
    sentence = (
        f"Ratios of neighbouring trials scatter by {worst:.0%}: something else works on this "
        "machine. Trust the intervals, or measure again."
    )
    return [Finding(recording.baseline, "noisy machine", sentence)]


def _spread(values: Sequence[tuple[str, float]]) -> float:
    """The distance of the quartiles over the median, prompt by prompt; 0 where too few were measured."""
    by_prompt: dict[str, list[float]] = {}
    for prompt, value in values:
        by_prompt.setdefault(prompt, []).append(value)
    spreads = [
        float(np.subtract(*np.quantile(each, [0.75, 0.25])) / np.median(each))
        for each in by_prompt.values()
        if len(each) >= 3
    ]
    return float(np.median(spreads)) if spreads else 0.0
