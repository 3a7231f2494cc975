"""Submissions: validated and recorded with their shards, and cancelled."""

from __future__ import annotations

import asyncio
import getpass
import secrets

from sqlalchemy import false, select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import is_alive
from vivace.engine.sent_files import laid_out, sent
from vivace.engine.shards import OPEN
from vivace.errors import UsageError
from vivace.files.content_hash import remember_in
from vivace.settings import Settings
from vivace.spec import RunSpec, is_rejudging
from vivace.store.artifacts import open_artifacts
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import find, submitted
from vivace.store.migrate import open_for_reading, open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import ENDED, Run, Shard, Submission
from vivace.store.visibility import Ownership
from vivace.tracks.base import PreparedRun, Registered
from vivace.tracks.registry import find_track

SHARD_ITEMS = 50
"""Items of a shard, and fewer than twice as many of a run that is not divided: a worker takes a minute or a few."""
MOST_SHARDS = 1000
"""Of one submission; from so many on shards become larger."""


def prepare_run(spec: RunSpec, settings: Settings, database: Database | None = None) -> PreparedRun:
    """Read, open and check everything a run needs; nothing is written.

    Args:
        spec: what is asked for.
        settings: of this process.
        database: where this process has opened it; else it is, and may not be there yet.

    Raises:
        UsageError: the spec, the data or the database is wrong.
    """
    remember_in(settings.home)
    spec = laid_out(spec, settings)
    run = find_track(spec.track).prepare(spec, settings.home)
    stored = database or open_for_reading(settings)
    try:
        run.check(stored)
    finally:
        if stored is not None and stored is not database:
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
    registered = run.register(
        database, artifacts, ownership=Ownership(owner, spec.private), force=force, elsewhere=queue is not None
    )
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
        submitter=_submitter(session, registered) if queue else "",
    )
    session.add(submission)
    session.flush()
    session.add_all(_shards(session, submission, spec))
    add_event(
        session,
        f"submitted to the queue '{queue}'" if queue else "submitted, to be executed at once",
        run_id=registered.run_id,
        submission_id=submission.id,
    )
    return submission.id


def _submitter(session: Session, registered: Registered) -> str:
    """Whose the run is, else who submits from this machine; empty where the account has no name."""
    owner = session.get_one(Run, registered.run_id).owner
    if owner is not None:
        return owner
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _shards(session: Session, submission: Submission, spec: RunSpec) -> list[Shard]:
    """The parts that workers take: one, unless there is a lot to do and it may be divided."""
    run = session.get_one(Run, submission.run_id)
    track = find_track(spec.track)
    count = 1 if submission.queue is None or track.takes_machine_alone else len(run.items) // SHARD_ITEMS
    count = max(1, min(count, MOST_SHARDS))
    bounds = [len(run.items) * place // count for place in range(count + 1)]
    return [
        Shard(
            id=f"{submission.id}-{number}",
            submission_id=submission.id,
            number=number,
            first=bounds[number - 1] if count > 1 else None,
            last=bounds[number] if count > 1 else None,
            timed=track.takes_machine_alone,
            needs=spec.needed,
            status="queued" if number == 1 else "waiting",
        )
        for number in range(1, count + 1)
    ]


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
        shards = session.scalars(select(Shard).where(Shard.submission_id == submission.id)).all()
        if any(shard.status == "running" and is_alive(session, shard.worker_id) for shard in shards):
            return f"Submission {submission.id} will stop once its calls in flight have ended."
        for shard in shards:
            if shard.status in (*OPEN, "running"):
                shard.status, shard.ended_at = "cancelled", now()
        submission.message = f"it was {submission.status}; what is recorded stays"
        submission.status, submission.ended_at = "cancelled", now()
        return f"Submission {submission.id} is cancelled."
