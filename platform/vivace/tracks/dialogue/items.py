"""The work items of a run: one generation for one conversation, with what is not recorded of it yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.store import tables
from vivace.store.records import ROWS_PER_STATEMENT
from vivace.tracks.base import Registered
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.data.conversations import Conversation
from vivace_rubrics.criteria import Unscored, Verdict

RETRYABLE = frozenset(reason.value for reason in Unscored if reason not in (Unscored.NO_CHECK, Unscored.NO_MAJORITY))
"""What `--retry-errors` tries again; of votes without a majority, those that were not given."""

DECISION = 0
"""The vote that counts: the only one, or what the votes from 1 on have come to."""


@dataclass(frozen=True)
class OpenCriterion:
    """One criterion that lacks its verdict."""

    number: int
    """Its place in the rubric."""
    row_id: int
    votes: dict[int, Verdict]
    """The votes recorded already, by their numbers from 1; empty where only one is asked for."""


@dataclass(frozen=True)
class DialogueItem:
    """One generation for one conversation, with what is not recorded of it yet."""

    conversation: Conversation
    row_id: int
    repeat: int
    reply_id: int | None
    """The recorded reply; None where it has to be generated."""
    reply_text: str | None
    criteria: tuple[OpenCriterion, ...]


def open_items(
    session: Session, registered: Registered, chosen: Sequence[Conversation], repeats: int, *, retry_errors: bool
) -> list[DialogueItem]:
    """What lacks a reply or a verdict, repeat by repeat, each in the order of the conversations.

    Args:
        session: of the store.
        registered: the run and its judging.
        chosen: the conversations of the run.
        repeats: replies to each of them.
        retry_errors: whether what is unscored counts as lacking, where another try may mend it.
    """
    again = RETRYABLE if retry_errors else frozenset()
    run = session.get_one(tables.Run, registered.run_id)
    row_ids = ingest.conversation_ids(session, run.dataset_id)
    # Of a small part only its own rows are read: otherwise each of a run's parts would read the whole run.
    only = [row_ids[one.id] for one in chosen] if len(chosen) <= ROWS_PER_STATEMENT else None
    query = select(tables.Reply).where(tables.Reply.run_id == run.id)
    if only is not None:
        query = query.where(tables.Reply.conversation_id.in_(only))
    replies = {
        (reply.conversation_id, reply.repeat): reply
        for reply in session.scalars(query)
        if reply.unscored_reason not in again
    }
    votes = _recorded_votes(session, registered, only)
    criteria = _criteria(session, run.dataset_id, only)
    items = []
    for repeat in range(repeats):
        for conversation in chosen:
            row_id = row_ids[conversation.id]
            reply = replies.get((row_id, repeat))
            missing = tuple(
                OpenCriterion(number, criterion_id, left)
                for number, criterion_id in criteria[row_id]
                if (left := _left_open(votes.get((reply.id, criterion_id), {}) if reply else {}, again)) is not None
            )
            if reply is None or missing:
                reply_id, text = (reply.id, reply.text) if reply else (None, None)
                items.append(DialogueItem(conversation, row_id, repeat, reply_id, text, missing))
    return items


def _criteria(session: Session, dataset_id: int, only: Sequence[int] | None) -> dict[int, list[tuple[int, int]]]:
    """The row of a conversation → its criteria as (number, row), in the rubric's order."""
    criteria: dict[int, list[tuple[int, int]]] = defaultdict(list)
    query = (
        select(tables.Criterion.conversation_id, tables.Criterion.number, tables.Criterion.id)
        .join(tables.Conversation)
        .where(tables.Conversation.dataset_id == dataset_id)
        .order_by(tables.Criterion.number)
    )
    if only is not None:
        query = query.where(tables.Criterion.conversation_id.in_(only))
    for row_id, number, criterion_id in session.execute(query):
        criteria[row_id].append((number, criterion_id))
    return criteria


def _recorded_votes(
    session: Session, registered: Registered, only: Sequence[int] | None
) -> dict[tuple[int, int], dict[int, Verdict]]:
    """(reply, criterion) → the verdicts recorded of it, by the number of the vote."""
    votes: dict[tuple[int, int], dict[int, Verdict]] = defaultdict(dict)
    table = tables.Verdict
    query = select(
        table.reply_id, table.criterion_id, table.vote, table.met, table.explanation, table.unscored_reason
    ).where(table.judging_id == registered.judging_id)
    if only is not None:
        query = query.join(tables.Reply).where(tables.Reply.conversation_id.in_(only))
    for reply_id, criterion_id, vote, met, explanation, reason in session.execute(query):
        verdict = Verdict(met, explanation or "", Unscored(reason) if reason else None)
        votes[reply_id, criterion_id][vote] = verdict
    return votes


def _left_open(recorded: dict[int, Verdict], again: Set[str]) -> dict[int, Verdict] | None:
    """The votes that a criterion keeps while it is judged; None where nothing is left to do for it."""
    kept = {number: verdict for number, verdict in recorded.items() if verdict.unscored not in again}
    if DECISION in recorded and len(kept) == len(recorded):
        return None
    return {number: verdict for number, verdict in kept.items() if number != DECISION}
