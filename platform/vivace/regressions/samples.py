"""What a run says of each conversation or prompt, figure by figure: the values that nights are compared by."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.statistics.regression import Sample
from vivace.store.tables import Arm, Attempt, Run, Trial
from vivace.store.verdicts import JudgedConversation, judged_conversations
from vivace.tracks.dialogue.judging.scores import Tallies

Logarithms = dict[tuple[str, int], float]
"""(prompt, repetition) → the logarithm of a speed."""


@dataclass(frozen=True)
class Figure:
    """One of the figures of a run that a job looks at. More of it is better."""

    metric: str
    """`apr`, `ars`, `quality`; `throughput`, `first_token`: the logarithm of a speed beside the baseline arm's;
    `machine`: the logarithm of the baseline arm's own throughput."""
    slice: str = ""
    """Empty for the whole, else the axis or the arm; of a speed also the arm that it is beside, which may be another
    one night where the fastest plain one is taken."""

    @property
    def gate(self) -> str:
        """The gate that it stands at."""
        speeds = {"throughput": "speed", "first_token": "speed", "machine": "machine"}
        return speeds.get(self.metric, "quality")

    @property
    def is_logarithm(self) -> bool:
        """Whether differences are of logarithms of speeds."""
        return self.gate != "quality"

    @property
    def flip(self) -> float:
        """What one value changes by where it comes out otherwise; speeds are measured, and never twice alike."""
        return 0.0 if self.is_logarithm else 1.0

    def tolerance(self, gates: Mapping[str, float]) -> float:
        """The worsening that a job does not mind, in the unit of the values."""
        given = float(gates.get(self.gate, 0.0))
        return -math.log1p(-given) if self.is_logarithm else given


@dataclass(frozen=True)
class RunSample:
    """A run as it is compared."""

    run: str
    judging: str | None
    dataset_id: int
    figures: Mapping[Figure, Sample]
    coverage: float
    """The share that is scored of what was planned."""
    unscored: str
    """Why the rest is not, in a clause; empty where nothing is unscored."""


def sample_of(session: Session, run_id: str, judging_id: str | None) -> RunSample:
    """Read what a run that has ended says."""
    run = session.get_one(Run, run_id)
    if judging_id is None:
        return _of_arms(session, run)
    conversations = judged_conversations(session, judging_id)
    planned = sum(len(reply) for one in conversations for reply in one.replies)
    scored = sum(met is not None for one in conversations for reply in one.replies for met in reply.values())
    return RunSample(
        run_id,
        judging_id,
        run.dataset_id,
        judged_figures(conversations),
        scored / planned if planned else 0.0,
        "" if scored == planned else _errors(session, run_id, planned - scored),
    )


def judged_figures(conversations: Sequence[JudgedConversation]) -> dict[Figure, Sample]:
    """APR and ARS of the whole and of each axis. Conversations without a wholly scored reply are in none.

    ARS of a conversation is the criteria it meets over the criteria of an average conversation, so that the mean over
    conversations is the pooled score.
    """
    axes: dict[str, list[JudgedConversation]] = defaultdict(list)
    for one in conversations:
        axes[one.axis].append(one)
    parts = {"": list(conversations), **(axes if len(axes) > 1 else {})}
    return {
        Figure(metric, name): values
        for name, members in parts.items()
        for metric, values in (("apr", _passes(members)), ("ars", _met(members)))
        if values
    }


def _passes(conversations: Sequence[JudgedConversation]) -> Sample:
    tallies = {one.id: Tallies.of(one) for one in conversations}
    return {key: tally.passes / tally.whole for key, tally in tallies.items() if tally.whole}


def _met(conversations: Sequence[JudgedConversation]) -> Sample:
    average = sum(len(one.replies[0]) for one in conversations) / len(conversations)
    found = {}
    for one in conversations:
        whole = [reply for reply in one.replies if reply and None not in reply.values()]
        if whole:
            met = sum(bool(met) for reply in whole for met in reply.values())
            found[one.id] = met / len(whole) / average
    return found


def _errors(session: Session, run_id: str, unscored: int) -> str:
    """Why verdicts are missing: the reasons of the failed calls, the most frequent first."""
    reasons = Counter(
        session.scalars(select(Attempt.error).where(Attempt.run_id == run_id, Attempt.error.is_not(None)))
    )
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    return f"{unscored} criteria are unscored" + (f"; failed calls: {told}" if told else "")


def spread_of_speeds(session: Session, run_id: str) -> dict[Figure, tuple[int, float | None]]:
    """Of each speed of a run of arms: prompts, and the variance of one prompt's value in one run, by chance.

    None where no prompt was timed twice, which tells nothing of it.
    """
    found: dict[Figure, tuple[int, float | None]] = {}
    for figure, values in _speeds(*_trials_of(session, session.get_one(Run, run_id))).items():
        groups = _grouped((prompt, value) for (prompt, _), value in values.items())
        freedom = sum(len(group) - 1 for group in groups.values())
        within = sum(statistics.variance(group) * (len(group) - 1) for group in groups.values() if len(group) > 1)
        # The median of three values or more varies by π / 2 as much as their mean, where they are normal.
        single = [math.pi / 2 / len(group) if len(group) > 2 else 1 / len(group) for group in groups.values()]
        found[figure] = len(groups), within / freedom * statistics.fmean(single) if freedom else None
    return found


def _trials_of(session: Session, run: Run) -> tuple[dict[str, Sequence[Trial]], str | None]:
    """Arm → its trials, and which of the arms is the baseline."""
    arms = session.scalars(select(Arm).where(Arm.run_id == run.id).order_by(Arm.position)).all()
    trials = {
        arm.name: session.scalars(select(Trial).where(Trial.arm_id == arm.id).order_by(Trial.repetition)).all()
        for arm in arms
    }
    return trials, next((arm.name for arm in arms if arm.baseline), None)


def _speeds(
    trials: Mapping[str, Sequence[Trial]], baseline: str | None
) -> dict[Figure, dict[tuple[str, int], float]]:
    """Each speed, with its value by prompt and repetition."""
    figures: dict[Figure, dict[tuple[str, int], float]] = {}
    for name, rows in trials.items() if baseline is not None else ():
        if name == baseline:
            figures[Figure("machine", name)] = _logarithms(rows, "throughput")
            continue
        for metric in ("throughput", "first_token"):
            theirs = _logarithms(trials[str(baseline)], metric)
            # Trial by trial: what slows the machine down for a while slows both of a pair.
            figures[Figure(metric, f"{name} over {baseline}")] = {
                key: value - theirs[key] for key, value in _logarithms(rows, metric).items() if key in theirs
            }
    return figures


def _of_arms(session: Session, run: Run) -> RunSample:
    trials, baseline = _trials_of(session, run)
    figures = {
        Figure("quality", name): _means(
            (row.prompt, float(row.measurements["quality"]))
            for row in rows
            if row.unscored_reason is None and row.measurements.get("quality") is not None
        )
        for name, rows in trials.items()
    }
    for figure, values in _speeds(trials, baseline).items():
        figures[figure] = _medians((prompt, value) for (prompt, _), value in values.items())
    planned = len(run.items) * run.repeats * len(trials)
    scored = sum(row.unscored_reason is None for rows in trials.values() for row in rows)
    reasons = Counter(str(row.unscored_reason) for rows in trials.values() for row in rows if row.unscored_reason)
    told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    return RunSample(
        run.id,
        None,
        run.dataset_id,
        {figure: values for figure, values in figures.items() if values},
        scored / planned if planned else 0.0,
        f"{planned - scored} trials have no result" + (f": {told}" if told else "") if scored < planned else "",
    )


def _logarithms(trials: Sequence[Trial], metric: str) -> Logarithms:
    """(prompt, repetition) → the logarithm of tokens per second, or of one over the time to the first token."""
    found = {}
    for trial in trials:
        tokens, seconds = (trial.output_tokens, trial.total_s) if metric == "throughput" else (1, trial.ttft_s)
        if trial.unscored_reason is None and tokens and seconds and seconds > 0:
            found[trial.prompt, trial.repetition] = math.log(tokens / seconds)
    return found


def _grouped(pairs: Any) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for unit, value in pairs:
        grouped[unit].append(value)
    return grouped


def _means(pairs: Any) -> Sample:
    return {unit: statistics.fmean(values) for unit, values in _grouped(pairs).items()}


def _medians(pairs: Any) -> Sample:
    return {unit: statistics.median(values) for unit, values in _grouped(pairs).items()}
