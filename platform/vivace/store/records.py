"""Writing rows so that doing the same work twice changes nothing: inserts that yield to what is there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import DateTime, Insert, func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.columns import now
from vivace.store.tables import Base, Event, Run

Row = TypeVar("Row", bound=Base)

ROWS_PER_STATEMENT = 500
"""Keeps a statement under SQLite's limit of bound parameters."""


def insert(session: Session, table: type[Base]) -> Any:
    """An INSERT of this database's dialect, which knows ON CONFLICT."""
    return _insert(session.get_bind().dialect.name, table)


def _insert(dialect: str, table: type[Base]) -> Any:
    # Of the plain table and not of its class: the mapper's part in an INSERT costs more than the INSERT.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table.__table__)  # type: ignore[arg-type]
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table.__table__)  # type: ignore[arg-type]


def insert_new(session: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, leaving out those whose natural key is there already."""
    statement: Insert = insert(session, table).on_conflict_do_nothing()
    connection = session.connection()
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        connection.execute(statement, list(rows[start : start + ROWS_PER_STATEMENT]))


def insert_or_mend(session: Session, table: type[Base], key: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row; one of the same key that is there stays, but where it is unscored it gives way to this one.

    Args:
        table: a table with the column `unscored_reason`.
        key: the columns of a natural key.
        values: every other column that is written.
    """
    dialect = session.get_bind().dialect.name
    session.connection().execute(_mending_insert(dialect, table, tuple(key), tuple(values)), {**key, **values})


@cache
def _mending_insert(dialect: str, table: type[Base], key: tuple[str, ...], values: tuple[str, ...]) -> Any:
    """Built once: there is one with every answer, and building it takes longer than executing it."""
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={name: statement.excluded[name] for name in values},
        where=table.__table__.c.unscored_reason.is_not(None),
    )


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


def run_ordinal(session: Session, identity: str, owner: str | None, force: bool, run_id: str | None) -> int:
    """Which of the runs of one identity is meant: the owner's newest, or with `force` one more.

    Args:
        owner: whose it is; nobody is given another's run for having asked for the same.
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
    newest = select(func.max(Run.ordinal)).where(Run.identity == identity)
    own = session.scalar(newest.where(Run.owner.is_not_distinct_from(owner)))
    if own is not None and not force:
        return own
    last = session.scalar(newest)
    return 0 if last is None else last + 1
