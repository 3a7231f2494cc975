"""The durable queue (DBOS): one workflow for each submission, on SQLite beside the database or inside PostgreSQL.

Our tables are the truth and DBOS carries the work: deleting its file loses no result, and a submission
whose workflow is gone gets a new one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import update

from vivace.store.database import Database
from vivace.store.tables import Submission

DEFAULT_QUEUE = "default"
WORKFLOW = "execute_submission"
APPLICATION = "vivace"
LIVE_STATES = ("ENQUEUED", "PENDING", "DELAYED")


def system_database_url(database: Database) -> str:
    """Where DBOS keeps its own tables: a file beside ours, or a schema `dbos` in the same PostgreSQL."""
    path = database.path
    if path is not None:
        return f"sqlite:///{path.with_name(path.stem + '-queue.db')}"
    return database.url


def quiet() -> None:
    """DBOS logs to the console; what users need to know is in our own tables."""
    logging.getLogger("dbos").setLevel(logging.CRITICAL)


class Queue:
    """The queue as a client sees it: submissions go in, and can be taken out again."""

    def __init__(self, database: Database) -> None:
        from dbos import DBOSClient

        quiet()
        self._database = database
        path = database.path
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._client = DBOSClient(system_database_url=system_database_url(database))

    def ensure_enqueued(self, submission_id: str) -> None:
        """Give a queued submission a workflow, unless it has one that is still alive. Doing it twice is harmless."""
        with self._database.read() as session:
            submission = session.get_one(Submission, submission_id)
        if submission.status != "queued" or submission.queue is None:
            return
        current = submission.workflow_id
        if current is not None:
            found = self._client.list_workflows(workflow_ids=[current], load_input=False, load_output=False)
            if found and found[0].status == "ENQUEUED":
                return
            if found and found[0].status in LIVE_STATES:
                # Its worker is dead, or frozen and about to find its lease gone: this workflow is over.
                self._client.cancel_workflow(current)
        number = int(current.rpartition(".")[2]) + 1 if current else 1
        workflow_id = f"{submission_id}.{number}"
        self._client.enqueue(
            {"queue_name": submission.queue, "workflow_name": WORKFLOW, "workflow_id": workflow_id},
            submission_id,
        )
        with self._database.write() as session:
            session.execute(
                update(Submission)
                .where(Submission.id == submission_id, Submission.status == "queued")
                .values(workflow_id=workflow_id)
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()
