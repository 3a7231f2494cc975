"""A submission's life: validated and recorded, executed under a lease here or by a worker, and ended with a word."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from vivace.engine.execution import StopSignal, execute
from vivace.engine.leases import Heartbeat, Lease, is_alive, try_lease
from vivace.errors import IncompleteError, LeaseLostError, UsageError, VivaceError
from vivace.settings import Settings
from vivace.spec import RunSpec, parse_spec
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.migrate import open_for_reading, open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import Judging, Run, Submission, Verdict, Worker, now
from vivace.tracks.base import PreparedRun, Registered
from vivace.tracks.registry import find_track

ENDED = ("complete", "incomplete", "failed", "cancelled")


@dataclass(frozen=True)
class Outcome:
    """How an execution ended."""

    status: str
    """`complete`, `incomplete`, `cancelled`, or `interrupted`."""
    message: str
    unscored: int = 0


def prepare_run(spec: RunSpec, settings: Settings) -> PreparedRun:
    """Read, open and check everything a run needs; nothing is written.

    Raises:
        UsageError: the spec, the data or the database is wrong.
    """
    run = find_track(spec.track).prepare(spec)
    stored = open_for_reading(settings)
    try:
        run.check(stored)
    finally:
        if stored is not None:
            stored.close()
    return run


def submit(
    spec: RunSpec, settings: Settings, *, queue: str | None, force: bool = False
) -> tuple[Database, PreparedRun, str]:
    """Validate a spec and record the submission: the open database, the prepared run, the submission's id.

    Args:
        queue: where a worker shall take it from; None where this process executes it at once.
        force: a new run, although one of the same identity is recorded.
    """
    spec = spec.with_absolute_paths()
    run = prepare_run(spec, settings)
    if queue is None:
        asyncio.run(_preflight(run))
    database = open_for_writing(settings)
    registered = run.register(database, Artifacts(settings.artifacts), force=force)
    with database.write() as session:
        submission_id = _reusable(session, registered, queue) or _new_submission(session, registered, spec, queue)
    return database, run, submission_id


async def _preflight(run: PreparedRun) -> None:
    try:
        await run.preflight()
    except BaseException:
        await run.close()
        raise


def _reusable(session: Session, registered: Registered, queue: str | None) -> str | None:
    """A submission for the very same work: one that is still queued, or the one made here before."""
    query = select(Submission.id).where(
        Submission.run_id == registered.run_id, Submission.judging_id == registered.judging_id
    )
    if queue is None:
        query = query.where(Submission.queue.is_(None))
    else:
        query = query.where(Submission.queue == queue, Submission.status.in_(("queued", "running")))
    return session.scalar(query.order_by(Submission.created_at.desc()).limit(1))


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
        say: told when the run has to be waited for.

    Raises:
        VivaceError: it failed; the submission says so too.
    """
    with database.read() as session:
        submission = session.get_one(Submission, submission_id)
    try:
        outcome = _execute(submission, database, settings, heartbeat, stop, run, retry_errors, say)
    except LeaseLostError:
        raise  # whoever has taken it over now writes its status
    except Exception as error:
        status = "incomplete" if isinstance(error, IncompleteError) else "failed"
        message = str(error) if isinstance(error, VivaceError) else f"{type(error).__name__}: {error}"
        _end(database, submission, status, message, heartbeat.worker_id)
        raise
    if outcome.status == "interrupted":
        status = "queued" if submission.queue else "incomplete"
        _end(database, submission, status, outcome.message, heartbeat.worker_id)
    else:
        _end(database, submission, outcome.status, outcome.message, heartbeat.worker_id)
    return outcome


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
    artifacts = Artifacts(settings.artifacts)
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
            if lease is None:
                return Outcome("interrupted", "interrupted while waiting; the same command goes on")
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
                            concurrency=spec.concurrency,
                            retry_errors=retry_errors,
                            stop=stop,
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
            return Outcome("cancelled", "cancelled; what is recorded stays")
        return Outcome("interrupted", "interrupted; what is recorded stays, the same command goes on")
    return _ended(database, registered)


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
) -> Lease | None:
    """The run's lease, waited for while another live process holds it; None if stopped while waiting."""
    told = False
    while not stop.requested:
        lease = try_lease(database, submission.run_id, submission.id, heartbeat.worker_id, heartbeat.lease_seconds)
        if isinstance(lease, Lease):
            with database.write() as session:
                session.execute(
                    update(Submission)
                    .where(Submission.id == submission.id)
                    .values(
                        status="running",
                        worker_id=heartbeat.worker_id,
                        started_at=now(),
                        ended_at=None,
                        message=None,
                        cancel_requested=False,
                    )
                )
                add_event(
                    session,
                    f"started by {heartbeat.worker_id}",
                    run_id=submission.run_id,
                    submission_id=submission.id,
                    worker_id=heartbeat.worker_id,
                )
            return lease
        if not told:
            say(f"Run {submission.run_id} is being executed by {lease.id}; waiting for it.")
            told = True
        time.sleep(0.5)
    return None


def _ended(database: Database, registered: Registered) -> Outcome:
    with database.read() as session:
        reasons = dict(
            session.execute(
                select(Verdict.unscored_reason, func.count())
                .where(
                    Verdict.judging_id == registered.judging_id,
                    Verdict.unscored_reason.is_not(None),
                )
                .group_by(Verdict.unscored_reason)
            )
            .tuples()
            .all()
        )
    unscored = sum(reasons.values())
    if not unscored:
        return Outcome("complete", "every criterion is scored")
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=str))
    if set(reasons) == {"no_check"}:
        return Outcome("complete", f"{unscored} criteria carry no machine check", unscored)
    return Outcome(
        "incomplete",
        f"{unscored} criteria are unscored ({listed}); the same command with --retry-errors tries them again",
        unscored,
    )


def _end(database: Database, submission: Submission, status: str, message: str, worker_id: str) -> None:
    with database.write() as session:
        session.execute(
            update(Submission)
            .where(Submission.id == submission.id)
            .values(
                status=status,
                message=message,
                ended_at=now() if status in ENDED else None,
                worker_id=worker_id if status in ENDED else None,
            )
        )
        add_event(
            session,
            f"{status}: {message}",
            run_id=submission.run_id,
            submission_id=submission.id,
            worker_id=worker_id,
            level="error" if status == "failed" else "info",
        )


def cancel(database: Database, submission_id: str) -> str:
    """Ask for a submission to be cancelled, and say what happens.

    Raises:
        UsageError: there is none of that id, or it has ended.
    """
    with database.write() as session:
        submission = session.scalars(
            select(Submission)
            .where((Submission.id == submission_id) | (Submission.run_id == submission_id))
            .order_by(Submission.created_at.desc())
        ).first()
        if submission is None:
            raise UsageError(f"There is no submission '{submission_id}'; `vivace status` lists them.")
        if submission.status in ENDED:
            raise UsageError(f"Submission {submission.id} has ended already ({submission.status}).")
        submission.cancel_requested = True
        owner = session.get(Worker, submission.worker_id) if submission.worker_id else None
        add_event(session, "cancellation asked for", run_id=submission.run_id, submission_id=submission.id)
        if submission.status == "running" and owner is not None and is_alive(owner):
            return f"Submission {submission.id} will stop once its calls in flight have ended."
        submission.status, submission.ended_at = "cancelled", now()
        submission.message = "cancelled before it started; nothing was lost"
        return f"Submission {submission.id} is cancelled."


def settle_dead_submissions(database: Database, queues: list[str] | None) -> list[str]:
    """Free submissions whose process is gone, without anyone's help.

    Those of a queue go back into it; those that a process executed for itself are marked incomplete.

    Args:
        queues: the queues to look after; None for submissions without a queue.

    Returns:
        The ids of submissions that are queued and need a workflow.
    """
    waiting = []
    with database.write() as session:
        query = select(Submission).where(Submission.status.in_(("running", "queued")))
        mine = Submission.queue.is_(None) if queues is None else Submission.queue.in_(queues)
        for submission in session.scalars(query.where(mine).order_by(Submission.created_at)):
            if submission.status == "queued":
                waiting.append(submission.id)
                continue
            owner = session.get(Worker, submission.worker_id) if submission.worker_id else None
            if owner is not None and is_alive(owner):
                continue
            died = f"{submission.worker_id} no longer answers"
            submission.worker_id = None
            if submission.cancel_requested:
                submission.status, submission.message = "cancelled", f"cancelled; {died}"
                submission.ended_at = now()
            elif submission.queue is None:
                submission.status, submission.ended_at = "incomplete", now()
                submission.message = f"{died}; the same command goes on where it stopped"
            else:
                submission.status, submission.message = "queued", f"{died}; back in the queue"
                waiting.append(submission.id)
            add_event(
                session,
                submission.message,
                run_id=submission.run_id,
                submission_id=submission.id,
                level="warning",
            )
    return waiting


def retract(database: Database, run_id: str, reason: str) -> None:
    """Take a run off the board, with the reason; its rows stay.

    Raises:
        UsageError: there is no such run, it is retracted already, or the reason is empty.
    """
    if not reason.strip():
        raise UsageError("A retraction needs a reason; give it with --reason.")
    with database.write() as session:
        run = session.get(Run, run_id) or _run_of_judging(session, run_id)
        if run is None:
            raise UsageError(f"There is no run '{run_id}'; `vivace leaderboard --format json` shows the ids.")
        if run.retracted_at is not None:
            raise UsageError(f"Run {run.id} was retracted already ({run.retraction_reason}).")
        run.retracted_at, run.retraction_reason = now(), reason.strip()
        add_event(session, f"retracted: {reason.strip()}", run_id=run.id, level="warning")


def _run_of_judging(session: Session, judging_id: str) -> Run | None:
    judging = session.get(Judging, judging_id)
    return session.get(Run, judging.run_id) if judging else None
