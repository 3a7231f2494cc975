"""Submissions as those who made them see them: where they stand in the queue, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import false, func, select
from sqlalchemy.orm import Session

from vivace.machine.offers import unmet
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import find, submitted
from vivace.store.records import clock
from vivace.store.tables import (
    Arm,
    Attempt,
    Conversation,
    Criterion,
    Model,
    Reply,
    Run,
    Shard,
    Submission,
    Trial,
    Verdict,
    Worker,
)


@dataclass(frozen=True)
class SubmissionView:
    """A submission's life as its owner sees it."""

    id: str
    status: str
    model: str
    track: str
    run: str
    judging: str | None
    queue: str | None
    position: int | None
    """Place in its queue, from 1; None once it runs."""
    parts: int
    """How many it is divided into."""
    parts_done: int
    workers: int
    """How many work on it now."""
    worker: str | None
    """Of several the one that was heard of last."""
    heartbeat_age_s: float | None
    unit: str
    """What its items are: `replies`, or `trials` of arms."""
    items_done: int
    items_planned: int
    verdicts_done: int
    verdicts_planned: int
    errors: int
    """Failed calls so far, retried ones included."""
    seconds_left: float | None
    """By the pace so far; None before there is one."""
    message: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The fields with times in ISO 8601."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def submissions(database: Database, identifier: str | None = None, *, live: bool = False) -> list[SubmissionView]:
    """Submissions, the newest first; one of them by its id, or those of a run or of a judging by theirs.

    Args:
        database: to read from.
        identifier: of a submission, run or judging; None for all.
        live: only those that wait or are worked on.
    """
    with database.read() as session:
        query = (
            select(Submission, Run, Model)
            .join(Run, Submission.run_id == Run.id)
            .join(Model, Run.model_id == Model.id)
            .order_by(Submission.created_at.desc(), Submission.id)
        )
        if live:
            query = query.where(Submission.status.in_(("queued", "running")))
        if identifier is not None:
            meant = find(session, identifier)
            query = query.where(false() if meant is None else submitted(meant))
        return [_submission_view(session, *row) for row in session.execute(query)]


def silent_worker(database: Database, host: str, pid: int) -> tuple[str, float] | None:
    """The worker that a process of a machine is, and the seconds since its last sign of life."""
    with database.read() as session:
        query = select(Worker).where(Worker.host == host, Worker.pid == pid, Worker.stopped_at.is_(None))
        worker = session.scalars(query.order_by(Worker.started_at.desc()).limit(1)).first()
        if worker is None:
            return None
        return worker.id, max(0.0, (clock(session) - worker.heartbeat_at).total_seconds())


def _submission_view(session: Session, submission: Submission, run: Run, model: Model) -> SubmissionView:
    position = None
    if submission.status == "queued" and submission.queue is not None:
        ahead = session.scalar(
            select(func.count())
            .select_from(Submission)
            .where(
                Submission.queue == submission.queue,
                Submission.status == "queued",
                Submission.created_at < submission.created_at,
            )
        )
        position = 1 + (ahead or 0)
    shards = session.scalars(select(Shard).where(Shard.submission_id == submission.id)).all()
    worker, workers = _worker(session, submission, shards)
    heartbeat_age = max(0.0, (clock(session) - worker.heartbeat_at).total_seconds()) if worker else None
    message = submission.message
    silent = worker is None or heartbeat_age is None or heartbeat_age > worker.lease_seconds
    if submission.status == "running" and silent:
        message = "its worker no longer answers; another one, or the same command, goes on where it stopped"
    if submission.status == "queued" and shards and (lacking := _unmet(session, submission, shards[0].needs)):
        message = f"no worker of the queue '{submission.queue}' has what it needs: {lacking}"
    progress = _trials(session, submission, run) or _replies_and_verdicts(session, submission, run)
    return SubmissionView(
        id=submission.id,
        status=submission.status,
        model=model.name,
        track=run.track,
        run=run.id,
        judging=submission.judging_id,
        queue=submission.queue,
        position=position,
        parts=max(1, len(shards)),
        parts_done=sum(shard.status == "complete" for shard in shards),
        workers=workers,
        worker=worker.id if worker is not None else submission.worker_id,
        heartbeat_age_s=heartbeat_age,
        **progress,
        message=message,
        created_at=submission.created_at,
        started_at=submission.started_at,
        ended_at=submission.ended_at,
    )


def _worker(session: Session, submission: Submission, shards: Sequence[Shard]) -> tuple[Worker | None, int]:
    """Who works on a submission, of several the one that was heard of last, and how many they are."""
    ids = {shard.worker_id for shard in shards if shard.status == "running"}
    found = session.scalars(select(Worker).where(Worker.id.in_(ids)).order_by(Worker.heartbeat_at.desc())).all()
    if found or submission.worker_id is None:
        return (found[0] if found else None), len(found)
    return session.get(Worker, submission.worker_id), 0


def _unmet(session: Session, submission: Submission, needs: list[str]) -> str:
    """What a submission needs and no worker of its queue has; empty where one has it all."""
    if not needs:
        return ""
    offers = [
        worker.offers or {}
        for worker in session.scalars(select(Worker).where(Worker.stopped_at.is_(None)))
        if submission.queue in worker.queues
    ]
    lacking: list[str] = min([unmet(needs, each) for each in offers] or [needs], key=len)
    return ", ".join(lacking)


def _trials(session: Session, submission: Submission, run: Run) -> dict[str, Any] | None:
    """How far a run of arms is; None where it has none."""
    arms = session.scalar(select(func.count()).select_from(Arm).where(Arm.run_id == run.id)) or 0
    if not arms:
        return None
    recorded = select(func.count()).select_from(Trial).join(Arm).where(Arm.run_id == run.id)
    done = session.scalar(recorded) or 0
    planned = len(run.items) * run.repeats * arms
    left = None
    if submission.status == "running" and submission.started_at is not None:
        fresh = select(func.count(), func.min(Trial.created_at)).join(Arm).where(Arm.run_id == run.id)
        count, first = session.execute(fresh.where(Trial.created_at >= submission.started_at)).one()
        # From the first trial on: loading the model and warming up come once.
        left = (now() - first).total_seconds() / (count - 1) * (planned - done) if count > 1 else None
    return {
        "unit": "trials",
        "items_done": done,
        "items_planned": planned,
        "verdicts_done": 0,
        "verdicts_planned": 0,
        "errors": session.scalar(recorded.where(Trial.unscored_reason.is_not(None))) or 0,
        "seconds_left": left,
    }


def _replies_and_verdicts(session: Session, submission: Submission, run: Run) -> dict[str, Any]:
    """How far a run of conversations is."""
    replies = session.scalar(select(func.count()).select_from(Reply).where(Reply.run_id == run.id)) or 0
    given = select(func.count()).select_from(Verdict)
    given = given.where(Verdict.judging_id == submission.judging_id, Verdict.vote == 0)
    verdicts = session.scalar(given) or 0
    criteria = _planned_criteria(session, run)
    failed = select(func.count()).select_from(Attempt).where(Attempt.run_id == run.id, Attempt.error.is_not(None))
    return {
        "unit": "replies",
        "items_done": replies,
        "items_planned": len(run.items) * run.repeats,
        "verdicts_done": verdicts,
        "verdicts_planned": criteria * run.repeats if submission.judging_id else 0,
        "errors": session.scalar(failed) or 0,
        "seconds_left": _seconds_left(session, submission, verdicts, criteria * run.repeats),
    }


def _planned_criteria(session: Session, run: Run) -> int:
    # The items are sorted out here: as parameters of a statement they would be too many for SQLite.
    query = (
        select(Conversation.external_id, func.count())
        .join(Criterion, Criterion.conversation_id == Conversation.id)
        .where(Conversation.dataset_id == run.dataset_id)
        .group_by(Conversation.id)
    )
    planned = set(run.items)
    return sum(count for external_id, count in session.execute(query) if external_id in planned)


def _seconds_left(session: Session, submission: Submission, done: int, planned: int) -> float | None:
    if submission.status != "running" or submission.started_at is None or submission.judging_id is None:
        return None
    fresh = session.scalar(
        select(func.count())
        .select_from(Verdict)
        .where(
            Verdict.judging_id == submission.judging_id,
            Verdict.vote == 0,
            Verdict.created_at >= submission.started_at,
        )
    )
    elapsed = max(0.0, (now() - submission.started_at).total_seconds())  # a clock may have been set back
    return elapsed / fresh * (planned - done) if fresh else None
