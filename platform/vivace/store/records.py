"""Writing rows so that doing the same work twice changes nothing: inserts that yield to what is there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import DateTime, Insert, func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.tables import Base, Event, Run, now

Row = TypeVar("Row", bound=Base)

ROWS_PER_STATEMENT = 500
"""Keeps a statement under SQLite's limit of bound parameters."""


def insert(session: Session, table: type[Base]) -> Any:
    """An INSERT of this database's dialect, which knows ON CONFLICT."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def insert_new(session: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, leaving out those whose natural key is there already."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        statement: Insert = insert(session, table).on_conflict_do_nothing()
        session.execute(statement, list(rows[start : start + ROWS_PER_STATEMENT]))


def ensure(session: Session, table: type[Row], key: dict[str, Any], values: dict[str, Any]) -> Row:
    """The row with this natural key, made from `values` where there is none yet."""
    insert_new(session, table, [{**key, **values}])
    return session.scalars(select(table).filter_by(**key)).one()


def clock(session: Session) -> datetime:
    """The time by the clock that all processes on this database share: the server's, or this machine's own.

    Signs of life are compared across machines, whose own clocks may differ by more than a lease.
    """
    if session.get_bind().dialect.name == "sqlite":
        return now()
    return session.execute(select(func.clock_timestamp(type_=DateTime(timezone=True)))).scalar_one()


def add_event(
    session: Session,
    message: str,
    *,
    run_id: str | None = None,
    submission_id: str | None = None,
    worker_id: str | None = None,
    level: str = "info",
) -> None:
    """One line in a run's log."""
    session.add(Event(run_id=run_id, submission_id=submission_id, worker_id=worker_id, level=level, message=message))


def run_ordinal(session: Session, identity: str, force: bool, run_id: str | None) -> int:
    """Which of the runs of one identity is meant: the newest, or with `force` one more.

    Args:
        run_id: the run it must turn out to be, when it was submitted earlier.

    Raises:
        UsageError: it is not the one that was submitted.
    """
    if run_id is not None:
        submitted = session.get(Run, run_id)
        if submitted is None or submitted.identity != identity:
            raise UsageError(
                "A file that this run reads (data, replies, or card) has changed since it was submitted; "
                "submit it again."
            )
        return submitted.ordinal
    newest = session.scalar(select(func.max(Run.ordinal)).where(Run.identity == identity))
    if newest is None:
        return 0
    return newest + 1 if force else newest
