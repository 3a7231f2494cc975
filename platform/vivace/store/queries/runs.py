"""What readers ask about runs themselves: which there are, who works on them, what failed, and what made them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.output.short_names import bare_address
from vivace.store.database import Database
from vivace.store.identifiers import SHORT
from vivace.store.records import clock
from vivace.store.tables import (
    RUN_IN_SHORT,
    Arm,
    Attempt,
    Dataset,
    Hardware,
    Judging,
    Model,
    Reply,
    Run,
    Submission,
    Trial,
    Worker,
)

MOST_RUNS = 200
"""The newest; older ones are found by their boards."""
LONG_GONE_S = 86_400.0
"""Workers that stopped, or fell silent, longer ago than this are no longer told of."""

Health = Literal["alive", "silent", "stopped"]


@dataclass(frozen=True)
class RunView:
    """A run with what was made of it."""

    run: str
    track: str
    model: str
    method: str | None
    data: str
    owner: str | None
    private: bool
    imported: bool
    status: str
    """Of its newest submission; where none was made, whether all of its replies are recorded."""
    message: str | None
    queue: str | None
    created_at: datetime
    official: bool
    why_not: dict[str, list[str]]
    """Judging or arm → why it is not official; empty where all are, and where none has ended."""
    retracted: str | None

    @property
    def short(self) -> str:
        """The beginning of its id."""
        return self.run[:SHORT]


@dataclass(frozen=True)
class WorkerView:
    """A process that executes runs."""

    worker: str
    queues: list[str]
    health: Health
    heartbeat_age_s: float
    started_at: datetime
    works_on: list[str]
    """Runs, by their ids, of those that the reader may see."""


@dataclass(frozen=True)
class Failure:
    """Failed calls, replies or trials of a run that have one reason."""

    stage: str
    reason: str
    count: int
    detail: str | None
    """What the newest of them says."""


def runs(database: Database, limit: int = MOST_RUNS) -> list[RunView]:
    """The newest runs, the newest first."""
    query = (
        select(Run, Model, Dataset)
        .join(Model, Run.model_id == Model.id)
        .join(Dataset, Run.dataset_id == Dataset.id)
        .order_by(Run.created_at.desc(), Run.id)
        .limit(limit)
        .options(*RUN_IN_SHORT)
    )
    with database.read() as session:
        joined = session.execute(query).all()
        ids = [run.id for run, _, _ in joined]
        newest = _newest_submissions(session, ids)
        reasons, ended = _unofficial(session, ids)
    return [_run_view(run, model, data, newest.get(run.id), reasons[run.id], ended[run.id])
            for run, model, data in joined]  # fmt: skip


def _newest_submissions(session: Session, ids: list[str]) -> dict[str, Submission]:
    query = select(Submission).where(Submission.run_id.in_(ids)).order_by(Submission.created_at, Submission.id)
    return {submission.run_id: submission for submission in session.scalars(query)}


def _unofficial(session: Session, ids: list[str]) -> tuple[dict[str, dict[str, list[str]]], dict[str, int]]:
    """Run → judging or arm that has ended → why it is not official; and how many have ended."""
    reasons: dict[str, dict[str, list[str]]] = defaultdict(dict)
    ended: dict[str, int] = defaultdict(int)
    judgings = select(Judging.run_id, Judging.id, Judging.unofficial_reasons).where(Judging.status == "ended")
    arms = (
        select(Arm.run_id, Arm.name, Arm.unofficial_reasons).where(Arm.ended_at.is_not(None)).order_by(Arm.position)
    )
    for query in (judgings.where(Judging.run_id.in_(ids)), arms.where(Arm.run_id.in_(ids))):
        for run, name, why in session.execute(query):
            ended[run] += 1
            if why:
                reasons[run][name] = why
    return reasons, ended


def _run_view(
    run: Run, model: Model, data: Dataset, newest: Submission | None, why_not: dict[str, list[str]], ended: int
) -> RunView:
    return RunView(
        run=run.id,
        track=run.track,
        model=model.name,
        method=run.method,
        data=data.name,
        owner=run.owner,
        private=run.private_since is not None,
        imported=run.imported,
        status=run.status if newest is None else newest.status,
        message=None if newest is None else newest.message,
        queue=None if newest is None else newest.queue,
        created_at=run.created_at,
        official=ended > 0 and not why_not,
        why_not=why_not,
        retracted=run.retraction_reason,
    )


def workers(database: Database) -> list[WorkerView]:
    """The workers that live, and those that have stopped or fallen silent lately; those that live first.

    Processes that executed a run of their own, and served no queue, are told of until they have stopped.
    """
    with database.read() as session:
        present = clock(session)
        busy: dict[str, list[str]] = defaultdict(list)
        for worker, run in session.execute(
            select(Submission.worker_id, Submission.run_id).where(Submission.status == "running")
        ):
            busy[worker or ""].append(run)
        found = [_worker_view(worker, present, busy[worker.id]) for worker in session.scalars(select(Worker))]
    order = ("alive", "silent", "stopped")
    recent = [
        one
        for one in found
        if one.health == "alive" or (one.heartbeat_age_s < LONG_GONE_S and (one.queues or one.health == "silent"))
    ]
    return sorted(recent, key=lambda one: (order.index(one.health), one.heartbeat_age_s, one.worker))


def _worker_view(worker: Worker, present: datetime, busy: list[str]) -> WorkerView:
    age = (present - worker.heartbeat_at).total_seconds()
    health: Health = "alive"
    if worker.stopped_at is not None:
        health = "stopped"
    elif age > worker.lease_seconds:
        health = "silent"
    works_on = busy if health != "stopped" else []
    return WorkerView(worker.id, worker.queues, health, max(0.0, age), worker.started_at, works_on)


def failures(database: Database, run: str) -> list[Failure]:
    """What failed in a run, by stage and reason, the most frequent first: calls, replies left without one, trials."""
    calls = (
        select(Attempt.stage, Attempt.error, func.count(), func.max(Attempt.id))
        .where(Attempt.run_id == run, Attempt.error.is_not(None))
        .group_by(Attempt.stage, Attempt.error)
    )
    replies = (
        select(Reply.unscored_reason, func.count(), func.max(Reply.id))
        .where(Reply.run_id == run, Reply.unscored_reason.is_not(None))
        .group_by(Reply.unscored_reason)
    )
    trials = (
        select(Trial.unscored_reason, func.count())
        .join(Arm, Trial.arm_id == Arm.id)
        .where(Arm.run_id == run, Trial.unscored_reason.is_not(None))
        .group_by(Trial.unscored_reason)
    )
    with database.read() as session:
        found = [
            Failure(f"calls: {stage}", str(error), count, _detail(session.get(Attempt, newest)))
            for stage, error, count, newest in session.execute(calls)
        ]
        found += [
            Failure("replies", str(reason), count, _detail(session.get(Reply, newest)))
            for reason, count, newest in session.execute(replies)
        ]
        found += [Failure("trials", str(reason), count, None) for reason, count in session.execute(trials)]
    return sorted(found, key=lambda one: (-one.count, one.stage, one.reason))


def _detail(row: Attempt | Reply | None) -> str | None:
    return None if row is None else row.detail


def manifest(database: Database, run: str) -> dict[str, str]:
    """What made a run, flat: its settings, code, packages, machine and data; empty for an unknown run."""
    with database.read() as session:
        row = session.get(Run, run)
        if row is None:
            return {}
        model, data = session.get(Model, row.model_id), session.get(Dataset, row.dataset_id)
        machine = None if row.hardware_id is None else session.get(Hardware, row.hardware_id)
        told: dict[str, Any] = {
            "track": row.track,
            "data": {} if data is None else {"name": data.name, "revision": data.revision},
            "items": f"{len(row.items)} of the set" if row.limited else f"all {len(row.items)}",
            "input": row.input_form,
            "output": row.output_form,
            "repeats": row.repeats,
            "method": row.method,
            "model": {} if model is None else {
                "name": model.name, "adapter": model.adapter, "parameters": model.parameters,
                "server": None if model.address is None else bare_address(model.address),
            },
            **row.manifest,
            "hardware": {} if machine is None else machine.details,
        }  # fmt: skip
    return dict(_flat(told))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        elif inner is not None:
            yield prefix + str(key), str(inner)
