"""Executing a shard: claimed, under a lease, to its end, which is recorded with a word."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.engine import shards
from vivace.engine.claims.leases import Heartbeat, Lease, try_lease
from vivace.engine.claims.quotas import SharedQuotas
from vivace.engine.execution import RunLimits, StopSignal, execute
from vivace.engine.submissions import prepare_run
from vivace.errors import IncompleteError, LeaseLostError, UnreachableError, UsageError, VivaceError
from vivace.models.client.cache import ResponseCache
from vivace.settings import Settings
from vivace.spec import RunSpec, parse_spec
from vivace.store.artifacts import Artifacts, open_artifacts
from vivace.store.database import Database, DatabaseFullError, DatabaseUnavailableError
from vivace.store.tables import Shard, Submission
from vivace.tracks.base import PreparedRun, Registered

LOOK_S = 0.5
"""How often what has to wait looks whether it still has to."""

TRIES_TO_REACH = 3
TRIES_WHERE_LATE = 24
"""Where something is there and has not answered in time: some minutes, as a machine with too much to do takes."""
PAUSE_BEFORE_TRYING_S = 2.0
"""Before a worker looks again whether a model or judge answers, which ends a submission where it does not."""


@dataclass(frozen=True)
class ExecutionOutcome:
    """How an execution ended."""

    status: str
    """`complete`, `incomplete`, `cancelled`, `interrupted`, or `skipped` where it was not to be executed, and
    `busy` where this machine has no place for it now."""
    message: str
    """What else there is to say; it does not say the status again."""
    unscored: int = 0


@dataclass
class OpenRun:
    """A run as it was prepared, with the one event loop from first contact to the last connection closed."""

    submission_id: str
    spec: RunSpec
    prepared: PreparedRun
    registered: Registered
    artifacts: Artifacts
    loop: asyncio.Runner

    def close(self) -> None:
        """Close connections and loop: clients belong to their loop."""
        try:
            self.loop.run(self.prepared.close())
        finally:
            self.loop.close()


class Workplace:
    """Where one process executes shards, one after the other.

    What a run takes to be opened (its data, its model) stays open from one shard to the next one of the same run.

    Args:
        database: of the results.
        settings: of this process.
        heartbeat: of this worker.
        stop: ends what is executed.
        say: told what whoever watches should know.
        keeps_runs: whether what was opened for a shard waits for the next one.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        heartbeat: Heartbeat,
        stop: StopSignal,
        say: Callable[[str], None] = lambda message: None,
        *,
        keeps_runs: bool = False,
    ) -> None:
        self._database, self._settings = database, settings
        self._heartbeat, self._stop, self._say = heartbeat, stop, say
        self._keeps_runs = keeps_runs
        self._open: OpenRun | None = None

    def execute(
        self, shard_id: str, *, run: PreparedRun | None = None, retry_errors: bool = False
    ) -> ExecutionOutcome:
        """Execute a shard to its end, and record how it ended.

        Args:
            shard_id: the shard.
            run: the run, where this process has prepared it already.
            retry_errors: try again what is recorded as unscored.

        Raises:
            VivaceError: it failed; the submission says so too.
        """
        database, worker_id = self._database, self._heartbeat.worker_id
        claimed = shards.claim(database, shard_id, worker_id)
        submission = claimed.submission
        if claimed.refusal is not None:
            return ExecutionOutcome("busy", claimed.refusal)
        if submission.queue is not None and not claimed.is_mine:
            return ExecutionOutcome("skipped", "it is no longer queued")
        paused = "queued" if submission.queue else "incomplete"
        try:
            outcome = self._execute(claimed.shard, submission, run, retry_errors)
        except DatabaseFullError as error:
            self._shut()
            shards.give_back(database, shard_id, worker_id, str(error))
            raise
        except (LeaseLostError, DatabaseUnavailableError) as error:
            # A lost lease says that the run is another's now; the shard may still be ours (if it was another
            # submission for the same run that took the lease), and must not look as if it ran.
            self._shut()
            shards.end(database, shard_id, paused, str(error), worker_id)
            raise
        except (Exception, SystemExit) as error:
            self._shut()
            status = "incomplete" if isinstance(error, IncompleteError) else "failed"
            message = str(error) if isinstance(error, VivaceError) else f"{type(error).__name__}: {error}"
            shards.end(database, shard_id, status, message, worker_id)
            raise
        if outcome.status == "interrupted":
            shards.end(database, shard_id, paused, f"interrupted; {outcome.message}", worker_id)
        elif outcome.status == "cancelled":
            shards.end(database, shard_id, "cancelled", outcome.message, worker_id)
        if self._open is not None and not shards.are_left(database, submission.id):
            self.close()
        return outcome

    def close(self) -> None:
        """Close what is still open of a run."""
        closing = self._open
        self._open = None
        if closing is not None:
            closing.close()

    def _shut(self) -> None:
        """As `close`, after something went wrong: that counts, and not what comes of closing."""
        with suppress(Exception):
            self.close()

    def _opened(self, submission: Submission, run: PreparedRun | None) -> OpenRun:
        """The run of a submission, prepared and registered, or as it was left open."""
        if self._open is not None and self._open.submission_id == submission.id:
            return self._open
        self.close()
        spec = parse_spec(submission.spec, "the submission")
        artifacts = open_artifacts(self._settings)
        prepared = run or prepare_run(spec, self._settings, self._database)
        loop = asyncio.Runner()
        try:
            if run is None:
                self._look_ahead(loop, prepared)
            registered = prepared.register(self._database, artifacts, run_id=submission.run_id)
            if registered.judging_id != submission.judging_id:
                raise UsageError("The judge's prompt has changed since this was submitted; submit it again.")
        except BaseException:
            loop.run(prepared.close())
            loop.close()
            raise
        self._open = OpenRun(submission.id, spec, prepared, registered, artifacts, loop)
        return self._open

    def _look_ahead(self, loop: asyncio.Runner, prepared: PreparedRun) -> None:
        """See that model and judge answer; a machine that just then is busy is given some time.

        Raises:
            UsageError: a key is missing or refused.
            UnreachableError: nothing answers, again and again.
        """
        for tries in itertools.count(1):
            try:
                loop.run(prepared.preflight())
                return
            except UnreachableError as error:
                most = TRIES_WHERE_LATE if error.is_late else TRIES_TO_REACH
                if tries >= most or self._stop.requested:
                    raise
                time.sleep(PAUSE_BEFORE_TRYING_S)

    def _execute(
        self, shard: Shard, submission: Submission, run: PreparedRun | None, retry_errors: bool
    ) -> ExecutionOutcome:
        opened = self._opened(submission, run)
        lease: Lease | ExecutionOutcome | None = None
        try:
            lease = self._wait_for_lease(shard, submission)
            if isinstance(lease, ExecutionOutcome):
                return lease
            self._heartbeat.watch(lease)
            try:
                ended = opened.loop.run(_until_aborted(self._work(opened, shard, submission, lease, retry_errors)))
            finally:
                self._heartbeat.watch(None)
                if not lease.lost:
                    lease.release()
        finally:
            if not self._keeps_runs or shard.first is None:
                self.close()
        if ended is not None:
            return ended
        if lease.cancel_requested:
            return ExecutionOutcome("cancelled", "what is recorded stays")
        return ExecutionOutcome("interrupted", "what is recorded stays, the same command goes on")

    async def _work(
        self, opened: OpenRun, shard: Shard, submission: Submission, lease: Lease, retry_errors: bool
    ) -> ExecutionOutcome | None:
        """Do what the shard lacks; None where it was stopped."""
        how = opened.spec.execution
        unscored = 0

        def conclude(session: Session) -> tuple[str, str]:
            nonlocal unscored
            if not opened.prepared.is_scored(session, opened.registered):
                opened.prepared.score(session, opened.registered)
                session.flush()
            ending = opened.prepared.ending(session, opened.registered)
            unscored = ending.unscored
            return "complete" if ending.complete else "incomplete", ending.message

        part = None if shard.first is None else slice(shard.first, shard.last)
        shared = None if part is None else SharedQuotas(self._database, submission.run_id, lease.worker_id)
        try:
            is_whole = await execute(
                opened.prepared,
                opened.registered,
                self._database,
                opened.artifacts,
                lease,
                part=part,
                is_opened=part is not None and submission.opened_at is not None,
                concurrency=how.concurrency,
                retry_errors=retry_errors,
                stop=self._stop,
                limits=RunLimits(how.max_cost, how.max_errors),
                say=self._say,
                cache=ResponseCache(self._settings.home / "cache") if how.cache else None,
                shared=shared,
            )
        finally:
            if shared is not None:
                with suppress(DatabaseUnavailableError):  # what is reserved expires by itself
                    await asyncio.to_thread(shared.close)
        if not is_whole:
            return None
        status, message = await asyncio.to_thread(shards.finish, lease, conclude)
        return ExecutionOutcome(status, message, unscored)

    def _wait_for_lease(self, shard: Shard, submission: Submission) -> Lease | ExecutionOutcome:
        """The shard's lease, waited for while another live process works on the run; the outcome if stopped.

        Raises:
            LeaseLostError: another worker has taken over the shard itself.
        """
        told = False
        database, heartbeat = self._database, self._heartbeat
        while not self._stop.requested:
            lease = try_lease(database, shard.id, heartbeat.worker_id, heartbeat.lease_seconds)
            if isinstance(lease, Lease):
                try:
                    shards.start(database, shard.id, heartbeat.worker_id)
                except BaseException:
                    lease.release()
                    raise
                return lease
            if not told:
                self._say(f"Run {submission.run_id} is being executed by {lease}; waiting for it.")
                told = True
            with database.read() as session:
                cancelled = session.get_one(Submission, submission.id).cancel_requested
            if cancelled and not submission.cancel_requested:
                return ExecutionOutcome("cancelled", "it was waiting for the run")
            time.sleep(LOOK_S)
        return ExecutionOutcome("interrupted", "it was waiting for the run; the same command goes on")


async def _until_aborted(execution: Any) -> ExecutionOutcome | None:
    try:
        found: ExecutionOutcome | None = await execution
        return found
    except asyncio.CancelledError:
        return None


def execute_submission(
    submission_id: str,
    database: Database,
    settings: Settings,
    heartbeat: Heartbeat,
    stop: StopSignal,
    *,
    run: PreparedRun | None = None,
    retry_errors: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> ExecutionOutcome:
    """Execute a submission of one part to its end in this process, and record how it ended.

    Args:
        submission_id: the submission.
        database: of the results.
        settings: of this process.
        heartbeat: of this worker.
        stop: ends it.
        run: the run, where this process has prepared it already.
        retry_errors: try again what is recorded as unscored.
        say: told what whoever watches should know: that the run has to be waited for, that nothing is heard.

    Raises:
        VivaceError: it failed; the submission says so too.
    """
    with database.read() as session:
        shard_id = session.scalars(select(Shard.id).where(Shard.submission_id == submission_id)).one()
    place = Workplace(database, settings, heartbeat, stop, say)
    told = False
    while True:
        outcome = place.execute(shard_id, run=run, retry_errors=retry_errors)
        if outcome.status != "busy":
            return outcome
        if stop.requested:
            return ExecutionOutcome("interrupted", f"it was waiting: {outcome.message}")
        if not told:
            say(f"Waiting: {outcome.message}.")
            told = True
        time.sleep(LOOK_S)
