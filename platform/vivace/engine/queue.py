"""The durable queue (DBOS): a workflow for each shard and night, in SQLite beside ours or in PostgreSQL.

Our tables are the truth and DBOS carries the work. Submitting writes rows and nothing else; the workers give
each queued row a workflow, and a new one where it is gone: deleting DBOS's file loses nothing.

Submitters take turns: each has a partition of its own in a queue, and priority counts inside a partition alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from vivace.files.paths import sqlite_url
from vivace.store.database import Database
from vivace.store.tables import Night, Shard, Submission

WORKFLOW = "execute_shard"
APPLICATION = "vivace"
NIGHTS = "nights of jobs"
"""The partition of regression jobs."""
NOBODY = "nobody"
"""The partition of those who gave no name."""


def system_database_url(database: Database) -> str:
    """Where DBOS keeps its own tables: a file beside ours, or a schema `dbos` in the same PostgreSQL."""
    path = database.path
    if path is not None:
        return sqlite_url(path.with_name(path.stem + "-queue.db"))
    return database.url


def may_make_tables(database: Database) -> bool:
    """Whether DBOS may make or change its tables; a role that only works finds them as they are."""
    if database.is_sqlite:
        return True
    with database.read() as session:
        return bool(session.scalar(select(func.has_database_privilege(func.current_database(), "CREATE"))))


def quiet() -> None:
    """DBOS logs to the console; what users need to know is in our own tables."""
    logging.getLogger("dbos").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Waiting:
    """A row that needs a workflow."""

    table: type[Shard | Night]
    id: str
    workflow_id: str | None
    queue: str
    partition: str
    created_at: datetime


def _waiting(session: Session, ids: Sequence[str]) -> list[_Waiting]:
    """Those of these shards and nights that are queued, the oldest first."""
    found = [
        _Waiting(Shard, shard.id, shard.workflow_id, str(of.queue), of.submitter or NOBODY, of.created_at)
        for shard, of in session.execute(
            select(Shard, Submission)
            .join(Submission, Shard.submission_id == Submission.id)
            .where(Shard.id.in_(ids), Shard.status == "queued", Submission.queue.is_not(None))
            .order_by(Shard.submission_id, Shard.number)
        )
    ]
    nights = select(Night).where(Night.id.in_(ids), Night.status == "queued", Night.queue.is_not(None))
    found += [
        _Waiting(Night, night.id, night.workflow_id, str(night.queue), NIGHTS, night.created_at)
        for night in session.scalars(nights)
    ]
    return sorted(found, key=lambda one: one.created_at)


class Queue:
    """The queue as a worker that has launched DBOS (and so made its tables) fills it."""

    def __init__(self, database: Database) -> None:
        from dbos import DBOSClient

        self._database = database
        self._client = DBOSClient(system_database_url=system_database_url(database))
        self._pending_before: set[str] = set()

    def ensure_enqueued(self, *ids: str) -> None:
        """Give queued shards and nights a workflow each, unless they have one that will still be taken.

        A worker claims a shard as soon as it has taken its workflow. One that is found taken (`PENDING`)
        twice while its shard is still queued is therefore with a worker that is dead, frozen or busy, and
        another workflow offers the shard to the others. More workflows than needed do no harm: only the
        claim counts.
        """
        with self._database.read() as session:
            waiting = _waiting(session, ids)
        states = self._states([one.workflow_id for one in waiting if one.workflow_id])
        for one in waiting:
            current = one.workflow_id
            state = states.get(current) if current else None
            if state == "ENQUEUED" or (state == "PENDING" and current not in self._pending_before):
                continue
            if current is not None and state == "PENDING":
                self._client.cancel_workflow(current)
            self._enqueue(one)
        self._pending_before = {workflow_id for workflow_id, state in states.items() if state == "PENDING"}

    def _states(self, workflow_ids: list[str]) -> dict[str, str]:
        if not workflow_ids:
            return {}
        found = self._client.list_workflows(workflow_ids=workflow_ids, load_input=False, load_output=False)
        return {workflow.workflow_id: workflow.status for workflow in found}

    def _enqueue(self, one: _Waiting) -> None:
        number = int(one.workflow_id.rpartition(".")[2]) + 1 if one.workflow_id else 1
        # DBOS takes what came in one tick of its clock, on SQLite a second, in the order of these names.
        workflow_id = f"{time.time_ns():020d}-{one.id}.{number}"
        self._client.enqueue(
            {
                "queue_name": one.queue,
                "workflow_name": WORKFLOW,
                "workflow_id": workflow_id,
                "queue_partition_key": one.partition,
                # What had its turn already comes before what has not (the lowest number goes first).
                "priority": 2 if number == 1 else 1,
            },
            one.id,
        )
        with self._database.write() as session:
            session.execute(
                update(one.table)
                .where(one.table.id == one.id, one.table.status == "queued")
                .values(workflow_id=workflow_id)
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()
