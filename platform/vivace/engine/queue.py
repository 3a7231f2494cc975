"""The durable queue (DBOS): a workflow for each submission and night, in SQLite beside ours or in PostgreSQL.

Our tables are the truth and DBOS carries the work. Submitting writes a row and nothing else; the workers give
each queued row a workflow, and a new one where it is gone: deleting DBOS's file loses nothing.
"""

from __future__ import annotations

import logging

from sqlalchemy import select, update

from vivace.files.paths import sqlite_url
from vivace.store.database import Database
from vivace.store.regression_tables import Night
from vivace.store.tables import Submission

WORKFLOW = "execute_submission"
APPLICATION = "vivace"


def system_database_url(database: Database) -> str:
    """Where DBOS keeps its own tables: a file beside ours, or a schema `dbos` in the same PostgreSQL."""
    path = database.path
    if path is not None:
        return sqlite_url(path.with_name(path.stem + "-queue.db"))
    return database.url


def quiet() -> None:
    """DBOS logs to the console; what users need to know is in our own tables."""
    logging.getLogger("dbos").setLevel(logging.CRITICAL)


class Queue:
    """The queue as a worker that has launched DBOS (and so made its tables) fills it."""

    def __init__(self, database: Database) -> None:
        from dbos import DBOSClient

        self._database = database
        self._client = DBOSClient(system_database_url=system_database_url(database))
        self._pending_before: set[str] = set()

    def ensure_enqueued(self, *ids: str) -> None:
        """Give queued submissions and nights a workflow each, unless they have one that will still be taken.

        A worker claims a submission as soon as it has taken its workflow. One that is found taken (`PENDING`)
        twice while its submission is still queued is therefore with a worker that is dead, frozen or busy, and
        another workflow offers the submission to the others. More workflows than needed do no harm: only the
        claim counts.
        """
        waiting: list[Submission | Night] = []
        with self._database.read() as session:
            for table in (Submission, Night):
                mine = (table.id.in_(ids), table.status == "queued", table.queue.is_not(None))
                waiting.extend(session.scalars(select(table).where(*mine)))
        waiting.sort(key=lambda one: one.created_at)
        states = self._states([submission.workflow_id for submission in waiting if submission.workflow_id])
        for submission in waiting:
            current = submission.workflow_id
            state = states.get(current) if current else None
            if state == "ENQUEUED" or (state == "PENDING" and current not in self._pending_before):
                continue
            if current is not None and state == "PENDING":
                self._client.cancel_workflow(current)
            self._enqueue(submission)
        self._pending_before = {workflow_id for workflow_id, state in states.items() if state == "PENDING"}

    def _states(self, workflow_ids: list[str]) -> dict[str, str]:
        if not workflow_ids:
            return {}
        found = self._client.list_workflows(workflow_ids=workflow_ids, load_input=False, load_output=False)
        return {workflow.workflow_id: workflow.status for workflow in found}

    def _enqueue(self, submission: Submission | Night) -> None:
        number = int(submission.workflow_id.rpartition(".")[2]) + 1 if submission.workflow_id else 1
        workflow_id = f"{submission.id}.{number}"
        table = type(submission)
        self._client.enqueue(
            {
                "queue_name": str(submission.queue),
                "workflow_name": WORKFLOW,
                "workflow_id": workflow_id,
                # What had its turn already comes before what has not (the lowest number goes first).
                "priority": 2 if number == 1 else 1,
            },
            submission.id,
        )
        with self._database.write() as session:
            session.execute(
                update(table)
                .where(table.id == submission.id, table.status == "queued")
                .values(workflow_id=workflow_id)
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()
