"""`vivace worker`: takes submissions and nights of jobs from queues, executes them, and takes over dead workers'."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from vivace.engine.execution import StopSignal
from vivace.engine.leases import Heartbeat, register_worker
from vivace.engine.queue import APPLICATION, WORKFLOW, Queue, quiet, system_database_url
from vivace.engine.submissions import execute_submission, give_back, settle_dead_submissions
from vivace.errors import LeaseLostError, VivaceError
from vivace.settings import Settings
from vivace.store.database import Database, DatabaseReplacedError, DatabaseUnavailableError
from vivace.store.migrate import head, open_for_writing
from vivace.store.queries.submissions import submissions
from vivace.store.regression_tables import Night, is_night
from vivace.store.tables import Submission

POLL_S = 1.0
"""How often a worker looks for dead workers and for submissions without a workflow."""
QUEUE_POLL_S = 0.5
"""How often DBOS looks into a queue."""


class Nights(Protocol):
    """What makes the nights of regression jobs, which stands above the engine."""

    def look_after(self, database: Database, queues: list[str], worker_id: str) -> list[str]:
        """Fire what is due, and free dead workers' nights; the ids of nights that need a workflow."""
        ...

    def make(
        self,
        database: Database,
        settings: Settings,
        night_id: str,
        heartbeat: Heartbeat,
        stop: StopSignal,
        say: Callable[[str], None],
    ) -> str:
        """Conduct a night that was taken from a queue; its outcome."""
        ...

    def give_back(self, database: Database, night_id: str, worker_id: str) -> None:
        """Have a night of this worker's taken again, by it or another."""
        ...


def serve(
    settings: Settings,
    queues: list[str],
    stop: StopSignal,
    nights: Nights,
    *,
    until_empty: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> None:
    """Work until stopped, one submission at a time.

    Args:
        queues: the queues to take from.
        nights: of regression jobs.
        until_empty: end when nothing is queued or running in them any more.
        say: told about each submission that starts and ends.
    """
    database = open_for_writing(settings)
    worker_id = register_worker(database, queues, settings.lease_seconds)
    with Heartbeat(database, worker_id, settings.lease_seconds) as heartbeat:
        say(f"worker {worker_id} serves {', '.join(queues)}")
        _Worker(database, settings, heartbeat, stop, nights, say).serve(queues, until_empty)
    database.close()


class _Worker:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        heartbeat: Heartbeat,
        stop: StopSignal,
        nights: Nights,
        say: Callable[[str], None],
    ) -> None:
        self._nights = nights
        self._database = database
        self._settings = settings
        self._heartbeat = heartbeat
        self._stop = stop
        self._say = say
        # DBOS bounds what it starts by queue; a worker of several queues still does one thing at a time.
        self._alone = threading.Lock()

    def serve(self, queues: list[str], until_empty: bool) -> None:
        from dbos import DBOS

        quiet()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": system_database_url(self._database),
                # Own ids: with the default, a second process would re-run the first one's live workflow.
                "executor_id": self._heartbeat.worker_id,
                # By default DBOS hashes the code, and a new release would leave old submissions pending.
                "application_version": head(),
                "log_level": "CRITICAL",
                "run_migrations": True,
            }
        )

        @DBOS.workflow(name=WORKFLOW)
        def workflow(submission_id: str) -> str:  # DBOS writes attributes on it, which a bound method has not
            return self.execute(submission_id)

        DBOS.listen_queues(queues)
        DBOS.launch()
        try:
            for name in queues:
                DBOS.register_queue(
                    name, worker_concurrency=1, polling_interval_sec=QUEUE_POLL_S, on_conflict="always_update"
                )
            with closing(Queue(self._database)) as queue:
                self._look_after(queues, queue, until_empty)
        finally:
            self._stop.request()
            while self._alone.locked():
                time.sleep(0.05)
            DBOS.destroy(workflow_completion_timeout_sec=5)

    def _look_after(self, queues: list[str], queue: Queue, until_empty: bool) -> None:
        """Bring dead workers' submissions back into the queue, until stopped."""
        trouble = ""
        while not self._stop.requested:
            self._heartbeat.check()
            try:
                waiting = settle_dead_submissions(self._database, queues, self._heartbeat.worker_id)
                waiting += self._nights.look_after(self._database, queues, self._heartbeat.worker_id)
                queue.ensure_enqueued(*waiting)
                if until_empty and not self._any_left(queues):
                    return
                trouble = ""
            except DatabaseReplacedError:
                raise
            except (DatabaseUnavailableError, SQLAlchemyError) as error:
                # A worker outlives a restart of the server or a full disk; it only says so, once.
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(trouble)
            self._pause(POLL_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.requested:
            time.sleep(0.05)

    def _any_left(self, queues: list[str]) -> bool:
        with self._database.read() as session:
            return any(
                session.scalar(
                    select(table.id).where(table.queue.in_(queues), table.status.in_(("queued", "running"))).limit(1)
                )
                for table in (Submission, Night)
            )

    def execute(self, submission_id: str) -> str:
        """The workflow: execute one submission, unless it is no longer to be executed."""
        while not self._alone.acquire(timeout=POLL_S):
            if not self._is_queued(submission_id):
                return "skipped"
        try:
            return self._execute(submission_id)
        finally:
            self._alone.release()

    def _is_queued(self, submission_id: str) -> bool:
        with self._database.read() as session:
            submission = session.get(Submission, submission_id) or session.get(Night, submission_id)
        return not self._stop.requested and submission is not None and submission.status == "queued"

    def _execute(self, submission_id: str) -> str:
        if not self._is_queued(submission_id):
            return "skipped"
        self._say(f"{submission_id} started: {self._described(submission_id)}")
        try:
            if is_night(submission_id):
                return self._nights.make(
                    self._database, self._settings, submission_id, self._heartbeat, self._stop, self._say
                )
            outcome = execute_submission(submission_id, self._database, self._settings, self._heartbeat, self._stop)
        except LeaseLostError as error:
            self._say(f"{submission_id}: {error}")
            return "taken over"
        except DatabaseReplacedError as error:
            self._say(f"{submission_id} stops: {error}")
            return "stopped"
        except DatabaseUnavailableError as error:
            self._say(f"{submission_id} goes back into the queue: {error}")
            self._give_back(submission_id)
            return "given back"
        except VivaceError as error:
            self._say(f"{submission_id} failed: {error}")
            return "failed"
        except (Exception, SystemExit) as error:
            self._say(f"{submission_id} failed: {type(error).__name__}: {error}")
            return "failed"
        self._say(f"{submission_id} {outcome.status}: {outcome.message}")
        return outcome.status

    def _described(self, submission_id: str) -> str:
        """What a submission asks for, in words."""
        if is_night(submission_id):
            return "a night of a regression job"
        view = submissions(self._database, submission_id)[0]
        return f"{view.model} on {view.track}"

    def _give_back(self, submission_id: str) -> None:
        """As soon as the database can be written again; if the worker ends before, it counts as dead."""
        while not self._stop.requested:
            try:
                back = self._nights.give_back if is_night(submission_id) else give_back
                back(self._database, submission_id, self._heartbeat.worker_id)
                return
            except DatabaseUnavailableError:
                self._pause(POLL_S)
