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


def log(database: Database, run_id: str) -> list[LogLine]:
    """Everything that happened to a run, the oldest first: events, and failed calls."""
    with database.read() as session:
        lines = [
            LogLine(event.created_at, event.level, event.message)
            for event in session.scalars(select(Event).where(Event.run_id == run_id).order_by(Event.id))
        ]
        failed = session.execute(
            select(Attempt, Conversation.external_id, Criterion.number)
            .outerjoin(Conversation, Attempt.conversation_id == Conversation.id)
            .outerjoin(Criterion, Attempt.criterion_id == Criterion.id)
            .where(Attempt.run_id == run_id, Attempt.error.is_not(None))
            .order_by(Attempt.id)
        )
        for attempt, conversation_id, number in failed:
            # Questions of the hearing check are of no conversation.
            of = "" if conversation_id is None else f" {conversation_id}"
            what = attempt.stage + of + (f" criterion {number}" if number is not None else "")
            why = f"{attempt.error} ({attempt.detail})" if attempt.detail else attempt.error
            lines.append(LogLine(attempt.created_at, "warning", f"{what}: {why}"))
    return sorted(lines, key=lambda line: line.at)
