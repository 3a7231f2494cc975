"""`vivace worker`: takes shards of submissions and nights of jobs from queues, and takes over dead workers'."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from vivace.engine.claims.leases import Heartbeat, is_alive, register_worker
from vivace.engine.execution import StopSignal
from vivace.engine.queue import APPLICATION, WORKFLOW, Queue, may_make_tables, quiet, system_database_url
from vivace.engine.shards import give_back, part_in_words, settle_dead
from vivace.engine.work import LOOK_S, Workplace
from vivace.errors import LeaseLostError, VivaceError
from vivace.machine.offers import unmet
from vivace.settings import Settings
from vivace.store.database import Database, DatabaseReplacedError, DatabaseUnavailableError
from vivace.store.migrate import head, open_for_writing
from vivace.store.queries.submissions import submissions
from vivace.store.records import clock
from vivace.store.tables import Night, Shard, Submission, Worker, is_night

POLL_S = 1.0
"""How often a worker looks for dead workers and for shards without a workflow."""
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
    offers: dict[str, Any],
    until_empty: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> None:
    """Work until stopped, one shard at a time.

    Args:
        settings: of this process.
        queues: the queues to take from.
        stop: ends it gently.
        nights: of regression jobs.
        offers: what this machine has that runs may need, besides what is found here.
        until_empty: end when nothing is queued or running in them any more.
        say: told about each shard that starts and ends.
    """
    database = open_for_writing(settings)
    worker_id = register_worker(database, queues, settings.lease_seconds, offers)
    with Heartbeat(database, worker_id, settings.lease_seconds) as heartbeat:
        say(f"worker {worker_id} serves {', '.join(queues)}")
        _Worker(database, settings, heartbeat, stop, nights, offers, say).serve(queues, until_empty)
    database.close()


class _Worker:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        heartbeat: Heartbeat,
        stop: StopSignal,
        nights: Nights,
        offers: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._nights = nights
        self._offers = offers
        self._database = database
        self._settings = settings
        self._heartbeat = heartbeat
        self._stop = stop
        self._say = say
        self._place = Workplace(database, settings, heartbeat, stop, say, keeps_runs=True)
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
                "run_migrations": may_make_tables(self._database),
            }
        )

        @DBOS.workflow(name=WORKFLOW)
        def workflow(shard_id: str) -> str:  # DBOS writes attributes on it, which a bound method has not
            return self.execute(shard_id)

        def begin(shard_id: str) -> None:
            DBOS.start_workflow(workflow, shard_id)

        DBOS.listen_queues(queues)
        DBOS.launch()
        try:
            for name in queues:
                # Fair to submitters, each a partition, and leaves no worker idle where one of them is alone.
                DBOS.register_queue(
                    name,
                    worker_concurrency=1,
                    partition_worker_concurrency=1,
                    polling_interval_sec=QUEUE_POLL_S,
                    on_conflict="always_update",
                )
            with closing(Queue(self._database)) as queue:
                self._look_after(queues, queue, until_empty, begin)
        finally:
            self._stop.request()
            while self._alone.locked():
                time.sleep(0.05)
            self._place.close()
            DBOS.destroy(workflow_completion_timeout_sec=5)

    def _look_after(self, queues: list[str], queue: Queue, until_empty: bool, begin: Callable[[str], None]) -> None:
        """Bring dead workers' shards back into the queue, until stopped.

        A queue hands its work to whoever looks first. What needs a machine of some kind goes through none, therefore:
        a worker that has such a machine, and nothing to do, begins it by itself.
        """
        trouble = ""
        while not self._stop.requested:
            self._heartbeat.check()
            if self._heartbeat.drain_asked and not self._alone.locked():
                self._say("drained: it was asked to end")
                return
            try:
                waiting = settle_dead(self._database, queues, self._heartbeat.worker_id)
                needs = self._needs(waiting)
                waiting = [key for key in waiting if key not in needs]
                waiting += self._nights.look_after(self._database, queues, self._heartbeat.worker_id)
                queue.ensure_enqueued(*waiting)
                fitting = next((key for key, needed in needs.items() if not unmet(needed, self._offers)), None)
                if fitting is not None and not self._alone.locked():
                    begin(fitting)
                if until_empty and not self._any_left(queues):
                    return
                trouble = ""
            except DatabaseReplacedError:
                raise
            except (DatabaseUnavailableError, SQLAlchemyError) as error:
                # A worker outlives a restart of the server or a full disk; it only says so, once.
                first = str(error).splitlines()[0]  # a driver's error goes on with its statement
                said = str(error) if isinstance(error, DatabaseUnavailableError) else f"The queue waits: {first}"
                if said != trouble:
                    trouble = said
                    self._say(trouble)
            self._pause(POLL_S)

    def _needs(self, ids: list[str]) -> dict[str, list[str]]:
        """Those of these shards that need something → what, in the same order."""
        with self._database.read() as session:
            rows = session.execute(select(Shard.id, Shard.needs).where(Shard.id.in_(ids)))
            found = {key: needs for key, needs in rows if needs}
        return {key: found[key] for key in ids if key in found}

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

    def execute(self, shard_id: str) -> str:
        """The workflow: execute one shard or night, unless it is no longer to be executed."""
        while not self._alone.acquire(timeout=POLL_S):
            if not self._is_queued(shard_id):
                return "skipped"
        try:
            return self._execute(shard_id)
        finally:
            self._alone.release()

    def _is_queued(self, shard_id: str) -> bool:
        with self._database.read() as session:
            row = session.get(Shard, shard_id) or session.get(Night, shard_id)
        is_free = not self._stop.requested and not self._heartbeat.drain_asked
        return is_free and row is not None and row.status == "queued"

    def _execute(self, shard_id: str) -> str:
        if not self._is_queued(shard_id):
            return "skipped"
        name, described = self._described(shard_id)
        self._say(f"{name} started: {described}")
        try:
            if is_night(shard_id):
                return self._nights.make(
                    self._database, self._settings, shard_id, self._heartbeat, self._stop, self._say
                )
            outcome = self._place.execute(shard_id)
            if outcome.status == "busy":
                self._say(f"{name} waits: {outcome.message}")
            while outcome.status == "busy" and self._is_queued(shard_id):
                self._pause(LOOK_S)
                outcome = self._place.execute(shard_id)
        except LeaseLostError as error:
            self._say(f"{name}: {error}")
            return "taken over"
        except DatabaseReplacedError as error:
            self._say(f"{name} stops: {error}")
            return "stopped"
        except DatabaseUnavailableError as error:
            self._say(f"{name} goes back into the queue: {error}")
            self._give_back(shard_id)
            return "given back"
        except VivaceError as error:
            self._say(f"{name} failed: {error}")
            return "failed"
        except (Exception, SystemExit) as error:
            self._say(f"{name} failed: {type(error).__name__}: {error}")
            return "failed"
        self._say(f"{name} {outcome.status}: {outcome.message}")
        return outcome.status

    def _described(self, shard_id: str) -> tuple[str, str]:
        """How a shard or night is called in talk, and what it asks for, in words."""
        if is_night(shard_id):
            return shard_id, "a night of a regression job"
        with self._database.read() as session:
            shard = session.get_one(Shard, shard_id)
            part = part_in_words(session, shard)
        view = submissions(self._database, shard.submission_id)[0]
        return f"{view.id} {part}".rstrip(": "), f"{view.model} on {view.track}"

    def _give_back(self, shard_id: str) -> None:
        """As soon as the database can be written again; if the worker ends before, it counts as dead."""
        while not self._stop.requested:
            try:
                back = self._nights.give_back if is_night(shard_id) else give_back
                back(self._database, shard_id, self._heartbeat.worker_id)
                return
            except DatabaseUnavailableError:
                self._pause(POLL_S)


def drain(database: Database, queues: list[str]) -> list[str]:
    """Ask the workers of some queues to end once what they execute has ended; the ids of those that live."""
    with database.write() as session:
        asked = [
            worker
            for worker in session.scalars(select(Worker).where(Worker.stopped_at.is_(None)))
            if set(worker.queues) & set(queues) and is_alive(session, worker.id)
        ]
        for worker in asked:
            worker.drain_asked_at = worker.drain_asked_at or clock(session)
        return [worker.id for worker in asked]


def wait_for_drained(
    settings: Settings, queues: list[str], stop: StopSignal, say: Callable[[str], None] = lambda message: None
) -> None:
    """Drain the workers of some queues, and wait until none of them works any more, or until stopped."""
    database = open_for_writing(settings)
    left = drain(database, queues)
    say(f"{len(left)} workers of {', '.join(queues)} are asked to end" if left else "no worker serves these queues")
    while left and not stop.requested:
        time.sleep(LOOK_S)
        with database.read() as session:
            for key in [key for key in left if not is_alive(session, key)]:
                left.remove(key)
                say(f"{key} has ended")
    database.close()
