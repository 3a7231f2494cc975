"""What may go from a database: runs that are old and that nothing shows, compares with, or has given a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import is_alive
from vivace.store.database import Database
from vivace.store.records import clock
from vivace.store.tables import (
    Arm,
    Attempt,
    HumanLabel,
    Judging,
    Model,
    Night,
    Reply,
    Run,
    RunLabel,
    Schedule,
    Shard,
    Submission,
    Trial,
    Worker,
)

KEPT_DAYS = 30.0
"""Days for which everything stays."""


@dataclass(frozen=True)
class Prunable:
    """A run that may go."""

    run: str
    model: str
    track: str
    why: str
    """`retracted`, or `unfinished`: nothing of it has ever come onto a board."""
    submission: str | None
    """How its newest submission ended."""
    replies: int
    trials: int
    calls: int
    last_used: datetime
    """When it was made, or its newest submission ended."""

    def as_json(self) -> dict[str, Any]:
        """The fields, the time in ISO 8601."""
        return {**vars(self), "last_used": self.last_used.isoformat()}


def prunable(database: Database, days: float = KEPT_DAYS, *, retracted: bool = False) -> list[Prunable]:
    """The runs that `prune` would remove, the oldest first.

    Never one that a board shows, that a night of a regression job made or was held against, that a job's baseline
    names, that bears a label, whose replies people have labelled, or that is queued or executed.

    Args:
        days: since when nothing may have been done with it.
        retracted: whether runs that were retracted may go, too; else the reason stays on record.
    """
    with database.read() as session:
        return list(_prunable(session, days, retracted))


def prune(database: Database, days: float = KEPT_DAYS, *, retracted: bool = False) -> list[Prunable]:
    """Remove these runs with all that is recorded of them, each looked at again in the transaction that removes it.

    Workers that stopped, or died, that long ago go, too: nothing refers to them but names in logs.
    """
    gone = []
    for one in prunable(database, days, retracted=retracted):
        with database.write() as session:
            session.scalars(select(Run).where(Run.id == one.run).with_for_update()).one_or_none()
            again = next(_prunable(session, days, retracted, Run.id == one.run), None)
            if again is not None:
                session.execute(delete(Run).where(Run.id == one.run))
                gone.append(again)
    with database.write() as session:
        before = clock(session) - timedelta(days=days)
        session.execute(delete(Worker).where(Worker.stopped_at < before))
        silent = session.scalars(
            select(Worker.id).where(Worker.stopped_at.is_(None), Worker.heartbeat_at < before)
        ).all()
        dead = [worker for worker in silent if not is_alive(session, worker)]
        session.execute(delete(Worker).where(Worker.id.in_(dead)))
    return gone


def _prunable(session: Session, days: float, retracted: bool, *more: ColumnElement[bool]) -> Iterator[Prunable]:
    time_now = clock(session)
    before = time_now - timedelta(days=days)
    ended = exists().where(Judging.run_id == Run.id, Judging.status == "ended")
    may_go = ~ended & ~exists().where(Arm.run_id == Run.id, Arm.ended_at.is_not(None))
    if retracted:
        may_go = may_go | Run.retracted_at.is_not(None)
    last = select(func.max(func.coalesce(Submission.ended_at, Submission.created_at)))
    query = (
        select(Run, Model.name, last.where(Submission.run_id == Run.id).scalar_subquery())
        .join(Model, Run.model_id == Model.id)
        .where(may_go, Run.created_at < before, *more)
        .where(~exists().where(Submission.run_id == Run.id, Submission.status.in_(("queued", "running"))))
        .where(~exists().where(RunLabel.run_id == Run.id))
        .where(~exists().where(Reply.run_id == Run.id, HumanLabel.reply_id == Reply.id))
        .order_by(Run.created_at)
    )
    referred = _referred(session)
    for run, model, used in session.execute(query).all():
        last_used = max(run.created_at, used or run.created_at)
        if run.id in referred or last_used >= before or _is_executed(session, run.id):
            continue
        yield _described(session, run, model, last_used)


def _is_executed(session: Session, run: str) -> bool:
    owners = (
        select(Shard.lease_owner).join(Submission).where(Submission.run_id == run, Shard.lease_owner.is_not(None))
    )
    return any(is_alive(session, owner) for owner in session.scalars(owners))


def _described(session: Session, run: Run, model: str, last_used: datetime) -> Prunable:
    newest = select(Submission.status).where(Submission.run_id == run.id).order_by(Submission.created_at.desc())
    return Prunable(
        run=run.id,
        model=model,
        track=run.track,
        why="retracted" if run.retracted_at is not None else "unfinished",
        submission=session.scalar(newest.limit(1)),
        replies=session.scalar(select(func.count()).where(Reply.run_id == run.id)) or 0,
        trials=session.scalar(select(func.count()).select_from(Trial).join(Arm).where(Arm.run_id == run.id)) or 0,
        calls=session.scalar(select(func.count()).where(Attempt.run_id == run.id)) or 0,
        last_used=last_used,
    )


def _referred(session: Session) -> set[str]:
    """The runs that regression jobs made, were held against, or name in any text of their rows."""
    found: set[str] = set()
    for night in session.execute(select(Night.runs, Night.baseline)):
        found.update(_texts(list(night)))
    for job in session.execute(select(Schedule.baseline, Schedule.spec)):
        found.update(_texts(list(job)))
    # A baseline may be written as a judging's id, or by how an id begins.
    begun = {text for text in found if len(text) >= 4}
    return {
        run
        for run in session.scalars(select(Run.id))
        if any(run.startswith(text) or text.startswith(run) for text in begun)
    }


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from value.split(":")[1:]
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
