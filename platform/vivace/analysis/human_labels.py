"""What people say of a run's replies, criterion by criterion: read from files, recorded, and set beside verdicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.files.text import json_rows
from vivace.statistics.agreement import RaterAgreement, agreement, confusion
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.records import add_event
from vivace.store.tables import Conversation, Criterion, HumanLabel, Judging, Reply, Verdict
from vivace.store.verdicts import JudgingCard, judging_card, verdicts
from vivace.tracks.dialogue.taking_in.exported_items import LONGEST_LABELER, is_labeler
from vivace_rubrics.texts import storable, without_thoughts

Answers = Mapping[str, Sequence[bool | None]]
"""Conversation → met, not met or None for each criterion of its rubric."""
UNNAMED = "labels"
"""The labeler of rows that name none."""
_NAMED = 3
"""Changed labels that the run's log names."""


@dataclass(frozen=True)
class Labelled:
    """What became of a file of labels.

    Attributes:
        run: whose replies were labelled.
        labelers: who did.
        new: labels that were not there before; those that say nothing count.
        changed: labels that took the place of others.
        known: labels that were there already.
    """

    run: str
    labelers: Sequence[str]
    new: int
    changed: int
    known: int


def record_labels(database: Database, identifier: str, file: Path, *, replace: bool = False) -> Labelled:
    """Record people's labels of a run's replies, all or none; the same file again changes nothing.

    Args:
        database: to write to.
        identifier: an ended judging, or a run that has one.
        file: as `read_labels` takes it.
        replace: whether a label takes the place of another one by the same person; the run's log names these.

    Raises:
        UsageError: there is no such judging, the labels are not of it, or a person's label is there and differs.
    """
    card = judging_card(database, identifier)
    given = read_labels(database, card, file)
    with database.write() as session:
        cells = _cells(session, card.run)
        there = {(one.reply_id, one.criterion_id, one.labeler): one for one in _labels_of(session, card.run)}
        new, known, changed = 0, 0, []
        for labeler, answers in given.items():
            for key, criteria in answers.items():
                for number, met in enumerate(criteria):
                    reply, criterion = cells[key, number]
                    label = there.get((reply, criterion, labeler))
                    if label is None:
                        new += 1
                        session.add(HumanLabel(reply_id=reply, criterion_id=criterion, labeler=labeler, met=met))
                    elif label.met is met:
                        known += 1
                    else:
                        changed.append(f"{key} #{number + 1} by {labeler}: {_said_of(label.met)} → {_said_of(met)}")
                        label.met, label.created_at = met, now()
        if changed and not replace:
            raise UsageError(
                f"'{file}' says something else than what is recorded ({changed[0]}"
                + (f", and {len(changed) - 1} more" if len(changed) > 1 else "")
                + "); give --replace to have the new ones, and nothing was changed."
            )
        if new or changed:
            shown = ", ".join(changed[:_NAMED]) + (" …" if len(changed) > _NAMED else "")
            said = f"{new} labels of {', '.join(given)}" + (f", {len(changed)} changed: {shown}" if changed else "")
            add_event(session, said, run_id=card.run)
    return Labelled(card.run, list(given), new, len(changed), known)


def _said_of(met: bool | None) -> str:
    return "says nothing" if met is None else "met" if met else "not met"


def read_labels(database: Database, card: JudgingCard, file: Path) -> dict[str, dict[str, Sequence[bool | None]]]:
    """Labeler → labels, all of them checked against a judging.

    Args:
        database: with the judging.
        card: the judging's.
        file: JSON lines of `id`, `criteria_met` (true, false or null for each criterion) and, where there is
            more than one, `labeler`; a `response`, where given, must be the recorded reply.

    Raises:
        UsageError: the file cannot be read, or its labels are not of this judging.
    """
    judged = {key: len(met) for key, (_, met) in verdicts(database, card).items()}
    replies = _reply_texts(database, card)
    by_labeler: dict[str, dict[str, Sequence[bool | None]]] = {}
    for where, row in json_rows(file, "file of labels"):
        key, given, labeler = row.get("id"), row.get("criteria_met"), row.get("labeler", UNNAMED)
        labeler = labeler.strip() if isinstance(labeler, str) else labeler
        if not isinstance(key, str) or key not in judged:
            raise UsageError(f"{where}: the judging {card.judging} has no conversation {key!r}.")
        if not isinstance(given, list) or not all(met is None or isinstance(met, bool) for met in given):
            raise UsageError(f'{where}: "criteria_met" must be a list of true, false or null.')
        if len(given) != judged[key]:
            raise UsageError(f"{where}: {len(given)} labels for the {judged[key]} criteria of '{key}'.")
        if not is_labeler(labeler):
            raise UsageError(f'{where}: "labeler" must be a name of at most {LONGEST_LABELER} characters.')
        if key in by_labeler.setdefault(labeler, {}):
            raise UsageError(f"{where}: '{labeler}' labels '{key}' a second time.")
        if isinstance(row.get("response"), str) and _said(row["response"]) != _said(replies.get(key) or ""):
            raise UsageError(f"{where}: its response to '{key}' is not the reply that {card.judging} has judged.")
        by_labeler[labeler][key] = given
    return by_labeler


def _said(text: str) -> str:
    """A reply as it is judged, but for blanks around it."""
    return without_thoughts(storable(text)).strip()


def _reply_texts(database: Database, card: JudgingCard) -> dict[str, str | None]:
    with database.read() as session:
        query = (
            select(Conversation.external_id, Reply.text)
            .join(Reply, Reply.conversation_id == Conversation.id)
            .where(Reply.run_id == card.run, Reply.repeat == 0)
        )
        return dict(session.execute(query).all())


def _cells(session: Session, run: str) -> dict[tuple[str, int], tuple[int, int]]:
    """Conversation and place in the rubric → the rows of the first reply and of the criterion."""
    query = (
        select(Conversation.external_id, Criterion.number, Reply.id, Criterion.id)
        .join(Reply, Reply.conversation_id == Conversation.id)
        .join(Criterion, Criterion.conversation_id == Conversation.id)
        .where(Reply.run_id == run, Reply.repeat == 0)
    )
    return {(key, number): (reply, criterion) for key, number, reply, criterion in session.execute(query)}


def _labels_of(session: Session, run: str) -> Sequence[HumanLabel]:
    return session.scalars(
        select(HumanLabel).join(Reply, Reply.id == HumanLabel.reply_id).where(Reply.run_id == run)
    ).all()


def recorded_labels(database: Database, card: JudgingCard) -> dict[str, dict[str, Sequence[bool | None]]]:
    """Labeler → recorded labels of a run's first replies, as `read_labels` gives them.

    Raises:
        UsageError: none are recorded.
    """
    lengths = {key: len(met) for key, (_, met) in verdicts(database, card).items()}
    query = (
        select(HumanLabel.labeler, Conversation.external_id, Criterion.number, HumanLabel.met)
        .join(Reply, Reply.id == HumanLabel.reply_id)
        .join(Conversation, Conversation.id == Reply.conversation_id)
        .join(Criterion, Criterion.id == HumanLabel.criterion_id)
        .where(Reply.run_id == card.run, Reply.repeat == 0)
        .order_by(HumanLabel.labeler, Conversation.position)
    )
    found: dict[str, dict[str, list[bool | None]]] = defaultdict(dict)
    with database.read() as session:
        for labeler, key, number, met in session.execute(query):
            found[labeler].setdefault(key, [None] * lengths[key])[number] = met
    if not found:
        raise UsageError(
            f"No labels of run {card.run} are recorded; name a file with --labels, or record it with `vivace judge "
            f"label {card.run} --labels FILE`."
        )
    return {labeler: dict(answers) for labeler, answers in found.items()}


def majority_of(given: Sequence[bool | None]) -> bool | None:
    """What most people say of one criterion; a tie says nothing."""
    balance = given.count(True) - given.count(False)
    return None if balance == 0 else balance > 0


def majority(labelers: Sequence[Answers]) -> dict[str, list[bool | None]]:
    """Conversation → what most labelers say of each criterion."""
    result: dict[str, list[bool | None]] = {}
    for key in {key: None for labels in labelers for key in labels}:
        given = zip(*(labels[key] for labels in labelers if key in labels), strict=True)
        result[key] = [majority_of(answers) for answers in given]
    return result


def labels_version(database: Database, judging: str) -> str:
    """A text that changes whenever the labels of a judging's replies do; empty while there are none."""
    query = (
        select(func.count(HumanLabel.id), func.max(HumanLabel.created_at))
        .join(Reply, Reply.id == HumanLabel.reply_id)
        .join(Judging, Judging.run_id == Reply.run_id)
        .where(Judging.id == judging)
    )
    with database.read() as session:
        count, newest = session.execute(query).one()
    return f"{count}/{newest}" if count else ""


def agreement_with_labels(database: Database, judging: str) -> RaterAgreement:
    """How a judging's verdicts agree with what most people say of the same replies, wherever both say something.

    Args:
        database: with the judging.
        judging: its id.
    """
    query: Any = (
        select(Reply.conversation_id, HumanLabel.criterion_id, HumanLabel.met, Verdict.met)
        .join(Reply, Reply.id == HumanLabel.reply_id)
        .join(Judging, Judging.run_id == Reply.run_id)
        .join(
            Verdict,
            (Verdict.judging_id == Judging.id)
            & (Verdict.reply_id == HumanLabel.reply_id)
            & (Verdict.criterion_id == HumanLabel.criterion_id)
            & (Verdict.vote == 0),
        )
        .where(Judging.id == judging, Reply.repeat == 0)
    )
    said: dict[int, dict[int, tuple[bool | None, list[bool | None]]]] = defaultdict(dict)
    with database.read() as session:
        for conversation, criterion, label, verdict in session.execute(query):
            said[conversation].setdefault(criterion, (verdict, []))[1].append(label)
    return agreement(
        [confusion([(met, majority_of(labels)) for met, labels in each.values()]) for each in said.values()]
    )
