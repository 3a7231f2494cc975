"""Why a job has become worse: the judge, the machine, the data, or what remains, which is the model or the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.analysis.judge_calibration import ask, open_instrument, recorded_verdicts
from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.machine.manifest import fingerprint
from vivace.regressions.samples import Figure, RunSample, judged_figures
from vivace.spec import DialogueSpec, RunSpec
from vivace.statistics.regression import Change, Sample, change, confirms, split
from vivace.store.database import Database
from vivace.store.queries.regressions import difference_text, title
from vivace.store.tables import Conversation, Criterion, Dataset, Model, Reply, Run, Turn
from vivace.store.verdicts import conversations_of

Part = tuple[str, Figure, Change, bool]
"""Stage (`judge`, `rest`, …), figure, what it has changed by, and whether that is shown to be worse."""


@dataclass
class Causes:
    """What was found, with the figures that show it."""

    names: list[str] = field(default_factory=list)
    """`model`, `judge`, `machine`, `data`; empty where none could be told from the others."""
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences for people."""

    def name(self, cause: str) -> None:
        """Note a cause, once."""
        if cause not in self.names:
            self.names.append(cause)


@dataclass(frozen=True)
class _Frozen:
    """The replies of a run of the baseline, as they were judged and as they are judged tonight."""

    run: str
    before: dict[Figure, Sample]
    now: dict[Figure, Sample]


def find_causes(
    database: Database,
    spec: RunSpec,
    confirmed: Sequence[Figure],
    tonight: Sequence[RunSample],
    baseline: Sequence[RunSample],
    tolerances: dict[Figure, float],
) -> Causes:
    """Tell apart what has made some figures worse.

    Args:
        confirmed: the figures, the surest first.
        tonight: the fresh runs.
        baseline: the runs that they were held against, the newest first.
        tolerances: of the figures.
    """
    causes = Causes()
    changed = _changed_units(database, tonight[-1], baseline, causes)
    frozen = _judged_again(database, spec, baseline, causes) if isinstance(spec, DialogueSpec) else None
    for figure in confirmed:
        ours, theirs = _values(tonight, figure), _values(baseline, figure)
        tolerance = tolerances[figure]
        if changed is not None:
            ours, theirs, is_done = _without_changed(figure, ours, theirs, changed, tolerance, causes)
            if is_done:
                continue
        if figure.metric == "machine":
            causes.name("machine")
            _note_machine(figure, ours, theirs, tolerance, causes)
        elif frozen is None or figure not in frozen.now:
            if not isinstance(spec, DialogueSpec):
                causes.name("model")
        else:
            _split_judge(figure, ours, theirs, frozen, tolerance, causes)
    if "machine" not in causes.names and any(figure.metric in ("throughput", "first_token") for figure in confirmed):
        _note_machine_as_it_was(tonight, baseline, causes)
    if "model" in causes.names:
        _note_what_differs(database, tonight[-1], baseline[0], causes)
    return causes


def _values(runs: Sequence[RunSample], figure: Figure) -> list[Sample]:
    return [run.figures[figure] for run in runs if figure in run.figures]


def _told(figure: Figure, found: Change) -> str:
    text = difference_text(figure.metric, found.difference, found.low, found.high)
    return f"{text}, p {found.p_value:.2g}, {found.worse} worse and {found.better} better of {found.n}"


# The judge


def _judged_again(
    database: Database, spec: DialogueSpec, baseline: Sequence[RunSample], causes: Causes
) -> _Frozen | None:
    """The newest run of the baseline under tonight's judge; None where it cannot be judged again."""
    judging = baseline[0].judging
    try:
        recorded = recorded_verdicts(database, str(judging))
        instrument = open_instrument(spec, recorded.judge.prompt)
        verdicts = ask(instrument, [question for question, _ in recorded.questions.values()], spec.concurrency)
    except (UsageError, UnreachableError, VivaceError) as error:
        causes.notes.append(
            f"The frozen replies could not be judged again, so that the judge may be the cause: {error}"
        )
        return None
    if instrument.card.fingerprint != recorded.judge.fingerprint:
        causes.notes.append(
            f"The judge is another one: {recorded.judge.name} {recorded.judge.fingerprint[:6]} before, "
            f"{instrument.card.name} {instrument.card.fingerprint[:6]} now."
        )
    now = {key: verdict.met for key, verdict in zip(recorded.questions, verdicts, strict=True)}
    before = {key: met for key, (_, met) in recorded.questions.items()}
    whole = []
    for one in conversations_of(database, recorded.judging):
        keys = [(one.id, number) for number in one.replies[0]]
        if keys and all(now.get(key) is not None for key in keys):
            whole.append((one, keys))
    if not whole:
        causes.notes.append("The judge gave no verdict on the frozen replies, so that it may be the cause.")
        return None
    return _Frozen(
        recorded.run,
        *(
            judged_figures([replace(one, replies=({key[1]: of[key] for key in keys},)) for one, keys in whole])
            for of in (before, now)
        ),
    )


def _split_judge(
    figure: Figure,
    tonight: Sequence[Sample],
    baseline: Sequence[Sample],
    frozen: _Frozen,
    tolerance: float,
    causes: Causes,
) -> None:
    parts = split(tonight, baseline, frozen.now[figure], frozen.before[figure], tolerance)
    if parts is None:
        return
    judge, rest = parts.causes
    causes.parts += [("judge", figure, parts.instrument, judge), ("rest", figure, parts.rest, rest)]
    first = not any(part[0] == "judge" and part[1] != figure for part in causes.parts)
    if judge:
        causes.name("judge")
    if rest:
        causes.name("model")
    if first:
        causes.notes.append(
            f"The frozen replies of run {frozen.run} judged again, {title(figure.metric, figure.slice)}: "
            f"{_told(figure, parts.instrument)}; without that the nights' own change is {_told(figure, parts.rest)}."
        )


# The machine


def _note_machine(
    figure: Figure, tonight: Sequence[Sample], baseline: Sequence[Sample], tolerance: float, causes: Causes
) -> None:
    found = change(tonight, baseline, tolerance, flip=figure.flip)
    if found is not None:
        causes.parts.append(("machine", figure, found, True))
        causes.notes.append(
            f"The baseline arm, which is there to measure the machine, is slower itself: {_told(figure, found)}."
        )


def _note_machine_as_it_was(tonight: Sequence[RunSample], baseline: Sequence[RunSample], causes: Causes) -> None:
    """What rules the machine out where an arm has become slower beside the baseline arm."""
    for figure in tonight[-1].figures:
        ours, theirs = _values(tonight, figure), _values(baseline, figure)
        if figure.metric == "machine" and (found := change(ours, theirs, flip=figure.flip)) is not None:
            causes.parts.append(("machine", figure, found, False))
            causes.notes.append(f"The baseline arm itself, measured in the same runs: {_told(figure, found)}.")


# The data


def _changed_units(
    database: Database, tonight: RunSample, baseline: Sequence[RunSample], causes: Causes
) -> set[str] | None:
    """The conversations or prompts that are not what they were; None where the data are the same."""
    others = {run.dataset_id for run in baseline} - {tonight.dataset_id}
    if not others:
        return None
    with database.read() as session:
        now = session.get_one(Dataset, tonight.dataset_id)
        then = session.get_one(Dataset, next(iter(others)))
        ours = _contents(session, now.id)
        changed = {
            unit
            for other in others
            for unit, content in _contents(session, other).items()
            if ours.get(unit, content) != content
        }
    how = f"{len(changed)} of {len(ours)} conversations read differently"
    if not ours:
        changed = {unit for sample in tonight.figures.values() for unit in sample}
        how = "of prompts only the names are kept, so that any of them may be another"
    causes.notes.append(
        f"The data are at another revision: {then.revision[:8]} before, {now.revision[:8]} now; {how}."
    )
    return changed


def _contents(session: Session, dataset_id: int) -> dict[str, str]:
    """Conversation → a hash of its turns and its rubric."""
    rows: dict[int, list[Any]] = {}
    names = {
        row.id: row.external_id
        for row in session.scalars(select(Conversation).where(Conversation.dataset_id == dataset_id))
    }
    turns = select(Turn).join(Conversation).where(Conversation.dataset_id == dataset_id).order_by(Turn.id)
    for turn in session.scalars(turns):
        said = [turn.number, turn.role, turn.transcript, turn.audio_sha256]
        rows.setdefault(turn.conversation_id, []).append(said)
    criteria = select(Criterion).join(Conversation).where(Conversation.dataset_id == dataset_id)
    for criterion in session.scalars(criteria.order_by(Criterion.conversation_id, Criterion.number)):
        rows.setdefault(criterion.conversation_id, []).append([criterion.text, criterion.machine_check])
    for content in rows.values():
        content.sort(key=str)
    return {names[key]: fingerprint(content) for key, content in rows.items()}


def _without_changed(
    figure: Figure,
    tonight: list[Sample],
    baseline: list[Sample],
    changed: set[str],
    tolerance: float,
    causes: Causes,
) -> tuple[list[Sample], list[Sample], bool]:
    """The values of what reads as it did, and whether the data explain the whole."""
    of_changed = change([_only(run, changed, True) for run in tonight], baseline, tolerance, flip=figure.flip)
    kept = [_only(run, changed, False) for run in tonight]
    of_kept = change(kept, baseline, tolerance, flip=figure.flip)
    is_shown = of_kept is not None and confirms(of_kept.p_value)
    explains = of_changed is not None and (confirms(of_changed.p_value) or not is_shown) and of_changed.difference < 0
    if of_changed is not None:
        causes.parts.append(("data", figure, of_changed, explains))
    if of_kept is not None:
        causes.parts.append(("same-data", figure, of_kept, is_shown))
    if explains:
        assert of_changed is not None
        if "data" not in causes.names:  # of the surest figure; the parts have all of them
            untouched = "" if of_kept is None else f"; of what reads as before, {_told(figure, of_kept)}"
            named = title(figure.metric, figure.slice)
            causes.notes.append(f"Of what changed, {named}: {_told(figure, of_changed)}{untouched}.")
        causes.name("data")
    return kept, baseline, not is_shown and explains


def _only(run: Sample, units: set[str], inside: bool) -> Sample:
    return {unit: value for unit, value in run.items() if (unit in units) is inside}


# What remains


def _note_what_differs(database: Database, tonight: RunSample, before: RunSample, causes: Causes) -> None:
    """What is known to be another: replies, the model that the server names, code and packages."""
    with database.read() as session:
        now, then = session.get_one(Run, tonight.run), session.get_one(Run, before.run)
        models = [session.get_one(Model, run.model_id) for run in (then, now)]
        if models[0].fingerprint != models[1].fingerprint:
            named = [f"{model.name} {model.fingerprint[:6]}" for model in models]
            causes.notes.append(f"The model is another one: {named[0]} before, {named[1]} now.")
        texts = [_replies(session, run.id) for run in (now, then)]
        common = texts[0].keys() & texts[1].keys()
        if common:
            different = sum(texts[0][key][0] != texts[1][key][0] for key in common)
            causes.notes.append(f"{different} of {len(common)} replies read differently.")
            snapshots = [{snapshot for _, snapshot in one.values() if snapshot} for one in texts]
            if snapshots[0] != snapshots[1] and all(snapshots):
                named = [", ".join(sorted(one))[:80] for one in snapshots]
                causes.notes.append(f"The server names another model: {named[1]} before, {named[0]} now.")
    told = []
    code = [(run.manifest.get("code") or {}).get("commit") for run in (then, now)]
    if code[0] != code[1] and all(code):
        told.append(f"Vivace's code {str(code[0])[:8]} → {str(code[1])[:8]}")
    packages = [dict(run.manifest.get("packages") or {}) for run in (then, now)]
    for name in sorted(packages[0].keys() | packages[1].keys()):
        if packages[0].get(name) != packages[1].get(name):
            told.append(f"{name} {packages[0].get(name)} → {packages[1].get(name)}")
    if told:
        causes.notes.append(f"Also different: {', '.join(told[:6])}.")


def _replies(session: Session, run: str) -> dict[tuple[str, int], tuple[str | None, str | None]]:
    query = (
        select(Conversation.external_id, Reply.repeat, Reply.text, Reply.model_snapshot)
        .join(Conversation, Reply.conversation_id == Conversation.id)
        .where(Reply.run_id == run)
    )
    return {(unit, repeat): (text, snapshot) for unit, repeat, text, snapshot in session.execute(query)}
