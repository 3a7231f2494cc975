"""A run's log: its events and its failed calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from vivace.store.database import Database
from vivace.store.tables import (
    Attempt,
    Conversation,
    Criterion,
    Event,
)


@dataclass(frozen=True)
class LogLine:
    """One line of a run's log."""

    at: datetime
    level: str
    message: str


def log(database: Database, run_id: str, newest: int | None = None) -> list[LogLine]:
    """What happened to a run, the oldest first: events, and failed calls.

    Args:
        database: to read from.
        run_id: the run.
        newest: how many lines, the last ones; None for all.
    """
    with database.read() as session:
        events = [
            LogLine(event.created_at, event.level, event.message)
            for event in session.scalars(
                select(Event).where(Event.run_id == run_id).order_by(Event.id.desc()).limit(newest)
            )
        ]
        failed = session.execute(
            select(Attempt, Conversation.external_id, Criterion.number)
            .outerjoin(Conversation, Attempt.conversation_id == Conversation.id)
            .outerjoin(Criterion, Attempt.criterion_id == Criterion.id)
            .where(Attempt.run_id == run_id, Attempt.error.is_not(None))
            .order_by(Attempt.id.desc())
            .limit(newest)
        )
        calls = []
        for attempt, conversation_id, number in failed:
            # Questions of the hearing check are of no conversation.
            of = "" if conversation_id is None else f" {conversation_id}"
            what = attempt.stage + of + (f" criterion {number}" if number is not None else "")
            why = f"{attempt.error} ({attempt.detail})" if attempt.detail else attempt.error
            calls.append(LogLine(attempt.created_at, "warning", f"{what}: {why}"))
    ordered = sorted([*reversed(events), *reversed(calls)], key=lambda line: line.at)
    return ordered if newest is None else ordered[-newest:]
