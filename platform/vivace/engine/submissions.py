"""A submission's life: validated and recorded, executed under a lease here or by a worker, and ended with a word."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import false, func, select
from sqlalchemy.orm import Session

from vivace.engine.execution import Limits, StopSignal, execute
from vivace.engine.leases import Heartbeat, Lease, is_alive, try_lease
from vivace.engine.travelling import laid_out, sent
from vivace.errors import IncompleteError, LeaseLostError, UsageError, VivaceError
from vivace.files.content_hash import remember_in
from vivace.models.client.cache import ResponseCache
from vivace.settings import Settings
from vivace.spec import RunSpec, is_rejudging, parse_spec
from vivace.store.artifacts import open_artifacts
from vivace.store.database import Database, DatabaseFullError, DatabaseUnavailableError
from vivace.store.identifiers import find, submitted
from vivace.store.migrate import open_for_reading, open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import Arm, Attempt, Event, Submission, Trial, now
from vivace.store.visibility import Ownership
from vivace.tracks.base import PreparedRun, Registered
from vivace.tracks.registry import find_track

ENDED = ("complete", "incomplete", "failed", "cancelled")
BACK_IN_THE_QUEUE = "back in the queue"
UNWRITTEN = "its worker could not write to the database"
LOSSES_WITHOUT_PROGRESS = 3
"""So many turns may end because nothing could be written before a submission counts as failed."""
DEATHS_WITHOUT_PROGRESS = 3
"""So many workers may die of one submission before it counts as failed: it would kill all others, too."""


@dataclass(frozen=True)
class Outcome:
    """How an execution ended."""

    status: str
    """`complete`, `incomplete`, `cancelled`, `interrupted`, or `skipped` where it was not to be executed."""
    message: str
    """What else there is to say; it does not say the status again."""
    unscored: int = 0


def prepare_run(spec: RunSpec, settings: Settings) -> PreparedRun:
    """Read, open and check everything a run needs; nothing is written.

    Raises:
        UsageError: the spec, the data or the database is wrong.
    """
    remember_in(settings.home)
    spec = laid_out(spec, settings)
    run = find_track(spec.track).prepare(spec, settings.home)
    stored = open_for_reading(settings)
    try:
        run.check(stored)
    finally:
        if stored is not None:
            stored.close()
    return run


def submit(
    spec: RunSpec, settings: Settings, *, queue: str | None, owner: str | None = None, force: bool = False
) -> tuple[Database, PreparedRun, str]:
    """Validate a spec and record the submission: the open database, the prepared run, the submission's id.

    Args:
        queue: where a worker shall take it from; None where this process executes it at once.
        owner: whose the run is; None for the operator.
        force: a new run, although one of the same identity is recorded.
    """
    spec = spec.with_absolute_paths()
    run = prepare_run(spec, settings)
    if queue is None:
        asyncio.run(_preflight(run))
    database = open_for_writing(settings)
    artifacts = open_artifacts(settings)
    registered = run.register(database, artifacts, ownership=Ownership(owner, spec.private), force=force)
    if queue is not None:
        spec = sent(spec, settings, artifacts)
    with database.write() as session:
        submission_id = _reusable(session, registered, spec, queue) or _new_submission(
            session, registered, spec, queue
        )
        if queue is None:
            # The same work under the settings of this very command: its concurrency, its time-outs.
            session.get_one(Submission, submission_id).spec = spec.as_json()
    return database, run, submission_id


async def _preflight(run: PreparedRun) -> None:
    try:
        await run.preflight()
    except BaseException:
        await run.close()
        raise


def _reusable(session: Session, registered: Registered, spec: RunSpec, queue: str | None) -> str | None:
    """A submission for the very same work: one that is still queued, or the one made here before.

    Judging recorded replies again is other work than generating them, also under the same judge: the spec that
    made the replies has to stay on record.
    """
    query = select(Submission).where(
        Submission.run_id == registered.run_id, Submission.judging_id == registered.judging_id
    )
    if queue is None:
        query = query.where(Submission.queue.is_(None))
    else:
        query = query.where(
            Submission.queue == queue,
            Submission.status.in_(("queued", "running")),
            Submission.cancel_requested.is_(False),
        )
    found = session.scalars(query.order_by(Submission.created_at.desc()))
    same = (
        submission.id for submission in found if is_rejudging(submission.spec["model"]) == is_rejudging(spec.model)
    )
    return next(same, None)


def _new_submission(session: Session, registered: Registered, spec: RunSpec, queue: str | None) -> str:
    submission = Submission(
        id="s" + secrets.token_hex(4),
        run_id=registered.run_id,
        judging_id=registered.judging_id,
        spec=spec.as_json(),
        queue=queue,
        status="queued",
    )
    session.add(submission)
    session.flush()
    add_event(
        session,
        f"submitted to the queue '{queue}'" if queue else "submitted, to be executed at once",
        run_id=registered.run_id,
        submission_id=submission.id,
    )
    return submission.id


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
) -> Outcome:
    """Execute a submission to its end, and record how it ended.

    Args:
        run: the run, where this process has prepared it already.
        retry_errors: try again what is recorded as unscored.
        say: told what whoever watches should know: that the run has to be waited for, that nothing is heard.

    Raises:
        VivaceError: it failed; the submission says so too.
    """
    submission = _claim(database, submission_id, heartbeat.worker_id)
    mine = (submission.status, submission.worker_id) == ("running", heartbeat.worker_id)
    if submission.queue is not None and not mine:
        return Outcome("skipped", "it is no longer queued")
    paused = "queued" if submission.queue else "incomplete"
    try:
        outcome = _execute(submission, database, settings, heartbeat, stop, run, retry_errors, say)
    except DatabaseFullError as error:
        give_back(database, submission_id, heartbeat.worker_id, str(error))
        raise
    except (LeaseLostError, DatabaseUnavailableError) as error:
        # A lost lease says that the run is another's now; the submission may still be ours (if it was
        # another submission for the same run that took the lease), and must not look as if it ran.
        _end(database, submission_id, paused, str(error), heartbeat.worker_id)
        raise
    except (Exception, SystemExit) as error:
        status = "incomplete" if isinstance(error, IncompleteError) else "failed"
        message = str(error) if isinstance(error, VivaceError) else f"{type(error).__name__}: {error}"
        _end(database, submission_id, status, message, heartbeat.worker_id)
        raise
    if outcome.status == "interrupted":
        _end(database, submission_id, paused, f"interrupted; {outcome.message}", heartbeat.worker_id)
    else:
        _end(database, submission_id, outcome.status, outcome.message, heartbeat.worker_id)
    return outcome


def _locked(session: Session, submission_id: str) -> Submission:
    """A submission that nobody else changes until this transaction ends."""
    query = select(Submission).where(Submission.id == submission_id)
    return session.scalars(query.with_for_update(key_share=True)).one()


def _claim(database: Database, submission_id: str, worker_id: str) -> Submission:
    """Make a submission this worker's own, if it is free; the submission as it then stands.

    Whatever workflows there are, the worker whose id stands here executes it. One without a queue is shared
    by all processes that were given the same command: they take turns by the run's lease.
    """
    with database.write() as session:
        submission = _locked(session, submission_id)
        running = submission.status == "running" and is_alive(session, submission.worker_id)
        if submission.status == "queued" or (submission.queue is None and not running):
            _hand_to(submission, worker_id)
    return submission


def _hand_to(submission: Submission, worker_id: str) -> None:
    if submission.worker_id != worker_id:
        submission.cancel_requested = False
    submission.status, submission.worker_id = "running", worker_id
    submission.started_at, submission.ended_at, submission.message = now(), None, None


def _execute(
    submission: Submission,
    database: Database,
    settings: Settings,
    heartbeat: Heartbeat,
    stop: StopSignal,
    run: PreparedRun | None,
    retry_errors: bool,
    say: Callable[[str], None],
) -> Outcome:
    spec = parse_spec(submission.spec, "the submission")
    how = spec.execution
    artifacts = open_artifacts(settings)
    prepared = run or prepare_run(spec, settings)
    # One event loop from first contact to the last connection closed: clients belong to their loop.
    with asyncio.Runner() as loop:
        try:
            if run is None:
                loop.run(prepared.preflight())
            registered = prepared.register(database, artifacts, run_id=submission.run_id)
            if registered.judging_id != submission.judging_id:
                raise UsageError("The judge's prompt has changed since this was submitted; submit it again.")
            lease = _wait_for_lease(submission, database, heartbeat, stop, say)
            if isinstance(lease, Outcome):
                return lease
            heartbeat.watch(lease)
            try:
                ended = loop.run(
                    _until_aborted(
                        execute(
                            prepared,
                            registered,
                            database,
                            artifacts,
                            lease,
                            concurrency=how.concurrency,
                            retry_errors=retry_errors,
                            stop=stop,
                            limits=Limits(how.max_cost, how.max_errors),
                            say=say,
                            cache=ResponseCache(settings.home / "cache") if how.cache else None,
                        )
                    )
                )
            finally:
                heartbeat.watch(None)
                if not lease.lost:
                    lease.release()
        finally:
            loop.run(prepared.close())
    if not ended:
        if lease.cancel_requested:
            return Outcome("cancelled", "what is recorded stays")
        return Outcome("interrupted", "what is recorded stays, the same command goes on")
    with database.read() as session:
        ending = prepared.ending(session, registered)
    return Outcome("complete" if ending.complete else "incomplete", ending.message, ending.unscored)


async def _until_aborted(execution: Any) -> bool:
    try:
        return bool(await execution)
    except asyncio.CancelledError:
        return False


def _wait_for_lease(
    submission: Submission,
    database: Database,
    heartbeat: Heartbeat,
    stop: StopSignal,
    say: Callable[[str], None],
) -> Lease | Outcome:
    """The run's lease, waited for while another live process holds it; the outcome if stopped while waiting.

    Raises:
        LeaseLostError: another worker has taken over the submission itself.
    """
    told = False
    while not stop.requested:
        lease = try_lease(database, submission.run_id, submission.id, heartbeat.worker_id, heartbeat.lease_seconds)
        if isinstance(lease, Lease):
            try:
                _start(submission, database, heartbeat.worker_id)
            except BaseException:
                lease.release()
                raise
            return lease
        if not told:
            say(f"Run {submission.run_id} is being executed by {lease}; waiting for it.")
            told = True
        with database.read() as session:
            cancelled = session.get_one(Submission, submission.id).cancel_requested
        if cancelled and not submission.cancel_requested:
            return Outcome("cancelled", "it was waiting for the run")
        time.sleep(0.5)
    return Outcome("interrupted", "it was waiting for the run; the same command goes on")


def _start(submission: Submission, database: Database, worker_id: str) -> None:
    with database.write() as session:
        current = _locked(session, submission.id)
        if submission.queue is not None and (current.status, current.worker_id) != ("running", worker_id):
            raise LeaseLostError(
                f"Submission {submission.id} was taken over while this worker did not answer; see `vivace status`."
            )
        _hand_to(current, worker_id)
        add_event(
            session,
            f"started by {worker_id}",
            run_id=submission.run_id,
            submission_id=submission.id,
            worker_id=worker_id,
        )


def _end(database: Database, submission_id: str, status: str, message: str, worker_id: str) -> None:
    """Record how a submission ended, or that it is queued again, unless another worker has it by now."""
    with database.write() as session:
        submission = _locked(session, submission_id)
        if (submission.status, submission.worker_id) != ("running", worker_id):
            return
        submission.status, submission.message = status, message
        if status in ENDED:
            submission.ended_at = now()
        else:
            submission.worker_id = None
        add_event(
            session,
            f"{status}: {message}",
            run_id=submission.run_id,
            submission_id=submission_id,
            worker_id=worker_id,
            level="error" if status == "failed" else "info",
        )


def give_back(database: Database, submission_id: str, worker_id: str, reason: str = UNWRITTEN) -> None:
    """Put a submission whose end could not be recorded back into its queue; nothing where it was recorded.

    Not for ever: where a database takes claims but no results, as on a disk that is all but full, each turn would pay
    for calls whose answers nobody keeps.
    """
    with database.read() as session:
        submission = session.get_one(Submission, submission_id)
        losses = _events_without_progress(session, submission, UNWRITTEN) + 1
    if submission.queue is None:
        _end(database, submission_id, "incomplete", reason, worker_id)
    elif losses < LOSSES_WITHOUT_PROGRESS:
        _end(database, submission_id, "queued", UNWRITTEN, worker_id)
    else:
        message = f"{losses} times in a row {UNWRITTEN}; see to its disk, and submit this again"
        _end(database, submission_id, "failed", message, worker_id)


def cancel(database: Database, identifier: str) -> str:
    """Ask for a submission to be cancelled, and say what happens.

    Args:
        identifier: a submission's id, or a run's or judging's for the newest of its submissions that has not ended.

    Raises:
        UsageError: there is none of that id, or it has ended.
    """
    with database.write() as session:
        found = find(session, identifier)
        query = select(Submission).where(false() if found is None else submitted(found))
        query = query.order_by(Submission.status.in_(ENDED), Submission.created_at.desc()).limit(1)
        submission = session.scalars(query.with_for_update(key_share=True)).first()
        if submission is None:
            raise UsageError(f"There is no submission '{identifier}'; `vivace status` lists them.")
        if submission.status in ENDED:
            raise UsageError(f"Submission {submission.id} has ended already ({submission.status}).")
        submission.cancel_requested = True
        add_event(session, "cancellation asked for", run_id=submission.run_id, submission_id=submission.id)
        if submission.status == "running" and is_alive(session, submission.worker_id):
            return f"Submission {submission.id} will stop once its calls in flight have ended."
        submission.message = f"it was {submission.status}; what is recorded stays"
        submission.status, submission.ended_at = "cancelled", now()
        return f"Submission {submission.id} is cancelled."


def settle_dead_submissions(database: Database, queues: list[str] | None, worker_id: str | None = None) -> list[str]:
    """Free submissions whose process is gone, without anyone's help.

    Those of a queue go back into it; those that a process executed for itself are marked incomplete.

    Args:
        queues: the queues to look after; None for submissions without a queue.
        worker_id: who asks; it lives, however long its last sign of life was ago.

    Returns:
        The ids of submissions that are queued and need a workflow, the oldest first.
    """
    with database.read() as session:
        query = select(Submission).where(Submission.status.in_(("running", "queued")))
        mine = Submission.queue.is_(None) if queues is None else Submission.queue.in_(queues)
        found = session.scalars(query.where(mine).order_by(Submission.created_at)).all()
        dead = {
            submission.id
            for submission in found
            if submission.status == "running"
            and submission.worker_id != worker_id
            and not is_alive(session, submission.worker_id)
        }
    settled = {submission_id: _settle(database, submission_id) for submission_id in dead}
    return [submission.id for submission in found if settled.get(submission.id, submission.status) == "queued"]


def _settle(database: Database, submission_id: str) -> str:
    """Free one submission, unless its worker has come back to life meanwhile; the status it then has."""
    with database.write() as session:
        submission = _locked(session, submission_id)
        if submission.status != "running" or is_alive(session, submission.worker_id):
            return submission.status
        died = f"{submission.worker_id} no longer answers"
        submission.worker_id = None
        if submission.cancel_requested:
            submission.status, submission.message = "cancelled", died
        elif submission.queue is None:
            submission.status = "incomplete"
            submission.message = f"{died}; the same command goes on where it stopped"
        elif _events_without_progress(session, submission, BACK_IN_THE_QUEUE) + 1 >= DEATHS_WITHOUT_PROGRESS:
            submission.status = "failed"
            submission.message = (
                f"{DEATHS_WITHOUT_PROGRESS} workers in a row stopped answering while they executed it"
            )
        else:
            submission.status, submission.message = "queued", f"{died}; {BACK_IN_THE_QUEUE}"
        submission.ended_at = now() if submission.status in ENDED else None
        add_event(session, submission.message, run_id=submission.run_id, submission_id=submission_id, level="warning")
        return submission.status


def _events_without_progress(session: Session, submission: Submission, ending: str) -> int:
    """How often its log has a line of this ending since a call or a trial of its run was last recorded."""
    calls = select(func.max(Attempt.created_at)).where(Attempt.run_id == submission.run_id)
    trials = select(func.max(Trial.created_at)).join(Arm).where(Arm.run_id == submission.run_id)
    lines = (
        select(func.count())
        .select_from(Event)
        .where(Event.submission_id == submission.id, Event.message.endswith(ending))
    )
    for progress in (session.scalar(calls), session.scalar(trials)):
        if progress is not None:
            lines = lines.where(Event.created_at > progress)
    return session.scalar(lines) or 0
