"""What becomes of a submission's shards: claimed, begun, ended, given back, and freed where a worker died.

Whoever changes a shard locks its submission first, then the shard, then the machine: everyone in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import Lease, is_alive
from vivace.engine.claims.machines import why_not_now
from vivace.engine.setbacks import LOSSES_WITHOUT_PROGRESS, note_silence, note_unwritten
from vivace.errors import LeaseLostError
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.records import add_event
from vivace.store.tables import ENDED, Shard, Submission

UNWRITTEN = "its worker could not write to the database"
OPEN = ("waiting", "queued")
OFFERED = 20
"""So many parts of one submission wait for workers at a time: each worker looks after them every second."""


@dataclass(frozen=True)
class Claim:
    """A shard that was asked for, with its submission, as both then stand."""

    shard: Shard
    submission: Submission
    is_mine: bool
    refusal: str | None = None
    """Why it has to wait, although nobody else has it; None where it has not."""


def locked(session: Session, submission_id: str) -> Submission:
    """A submission that nobody else changes until this transaction ends."""
    query = select(Submission).where(Submission.id == submission_id)
    return session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).one()


def locked_shard(session: Session, shard_id: str) -> tuple[Submission, Shard]:
    """A shard and its submission that nobody else changes until this transaction ends."""
    submission_id = session.scalars(select(Shard.submission_id).where(Shard.id == shard_id)).one()
    submission = locked(session, submission_id)
    query = select(Shard).where(Shard.id == shard_id).with_for_update(key_share=True)
    return submission, session.scalars(query.execution_options(populate_existing=True)).one()


def shards_of(session: Session, submission_id: str) -> list[Shard]:
    """All parts of a submission, in order."""
    query = select(Shard).where(Shard.submission_id == submission_id).order_by(Shard.number)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def are_left(database: Database, submission_id: str) -> bool:
    """Whether some part of a submission still has to be begun."""
    with database.read() as session:
        query = select(Shard.id).where(Shard.submission_id == submission_id, Shard.status.in_(OPEN))
        return session.scalar(query.limit(1)) is not None


def part_in_words(session: Session, shard: Shard) -> str:
    """`part 3 of 40: `, for the log; empty for the whole."""
    if shard.first is None:
        return ""
    count = session.scalar(select(func.count()).where(Shard.submission_id == shard.submission_id))
    return f"part {shard.number} of {count}: "


def claim(database: Database, shard_id: str, worker_id: str) -> Claim:
    """Make a shard this worker's own, if it is free and its machine may be used.

    Whatever workflows there are, the worker whose id stands here executes it. One without a queue is shared
    by all processes that were given the same command: they take turns by the lease.
    """
    with database.write() as session:
        submission, shard = locked_shard(session, shard_id)
        if shard.status == "running" and shard.worker_id == worker_id:
            return Claim(shard, submission, True)
        running = shard.status == "running" and is_alive(session, shard.worker_id)
        if shard.status != "queued" and (submission.queue is not None or running):
            return Claim(shard, submission, False)
        refusal = why_not_now(session, shard, worker_id)
        if refusal is None:
            _hand_to(submission, shard, worker_id)
        return Claim(shard, submission, refusal is None, refusal)


def _hand_to(submission: Submission, shard: Shard, worker_id: str) -> None:
    if submission.worker_id != worker_id and submission.status != "running":
        submission.cancel_requested = False
    if submission.status != "running":
        submission.started_at = now()
    submission.status, submission.worker_id = "running", worker_id
    submission.ended_at, submission.message = None, None
    shard.status, shard.worker_id, shard.started_at, shard.ended_at = "running", worker_id, now(), None


def start(database: Database, shard_id: str, worker_id: str) -> None:
    """Note that the lease is there and work begins.

    Raises:
        LeaseLostError: another worker has taken the shard over meanwhile.
    """
    with database.write() as session:
        submission, shard = locked_shard(session, shard_id)
        if submission.queue is not None and (shard.status, shard.worker_id) != ("running", worker_id):
            raise LeaseLostError(
                f"Submission {submission.id} was taken over while this worker did not answer; see `vivace status`."
            )
        _hand_to(submission, shard, worker_id)
        add_event(
            session,
            f"{part_in_words(session, shard)}started by {worker_id}",
            run_id=submission.run_id,
            submission_id=submission.id,
            worker_id=worker_id,
        )


def open_run(session: Session, submission_id: str) -> None:
    """Let the other parts begin: recordings are heard, and the first item has gone well."""
    submission = session.get_one(Submission, submission_id)
    submission.opened_at = submission.opened_at or now()
    waiting = update(Shard).where(Shard.submission_id == submission_id, Shard.status == "waiting")
    session.execute(waiting.values(status="queued"))


def finish(lease: Lease, conclude: Callable[[Session], tuple[str, str]]) -> tuple[str, str]:
    """Note that a shard's work is recorded whole; the last one to end concludes the submission, in the same breath.

    So it is concluded once, whoever is killed: before this transaction is through, the shard counts as running, and
    is taken over; after it, nothing is left to do.

    Args:
        lease: of the shard.
        conclude: scores the run, and gives the submission's status and message.

    Returns:
        The shard's status and a message.
    """
    with lease.write(after=lambda session: locked(session, lease.submission_id)) as session:
        submission = session.get_one(Submission, lease.submission_id)
        shards = shards_of(session, submission.id)
        mine = next(shard for shard in shards if shard.id == lease.shard_id)
        mine.status, mine.ended_at = "complete", now()
        left = sum(shard.status != "complete" for shard in shards)
        if left:
            return "complete", f"part {mine.number} of {len(shards)} is recorded"
        status, message = conclude(session)
        _conclude(session, submission, status, message, lease.worker_id)
        return status, message


def _conclude(session: Session, submission: Submission, status: str, message: str, worker_id: str | None) -> None:
    submission.status, submission.message, submission.ended_at = status, message, now()
    add_event(
        session,
        f"{status}: {message}",
        run_id=submission.run_id,
        submission_id=submission.id,
        worker_id=worker_id,
        level="error" if status == "failed" else "info",
    )


def end(database: Database, shard_id: str, status: str, message: str, worker_id: str) -> None:
    """Record how this worker's turn at a shard ended, unless another worker has it by now.

    Args:
        database: of the results.
        shard_id: the shard.
        status: one of `ENDED`, which the whole submission then has; or `queued`, to be taken again.
        message: why.
        worker_id: this worker.
    """
    with database.write() as session:
        submission, shard = locked_shard(session, shard_id)
        if (shard.status, shard.worker_id) == ("running", worker_id):
            _end(session, submission, shard, status, message, worker_id)


def _end(
    session: Session, submission: Submission, shard: Shard, status: str, message: str, worker_id: str | None
) -> None:
    """Record how a turn at a shard ended, and what that means for its submission."""
    if submission.status in ENDED:
        shard.status, shard.ended_at = "cancelled", now()  # another part has ended all of it
        return
    if submission.cancel_requested and status == "queued":
        status = "cancelled"
    shard.status, shard.ended_at = status, now() if status in ENDED else None
    if status == "queued":
        shard.worker_id = None
    message = part_in_words(session, shard) + message
    if status in ("failed", "incomplete"):
        _close_others(session, submission)
        _conclude(session, submission, status, message, worker_id)
        return
    is_worked_on = session.scalar(
        select(Shard.id).where(Shard.submission_id == submission.id, Shard.status == "running").limit(1)
    )
    if status == "cancelled" and not is_worked_on:
        _close_others(session, submission)
        _conclude(session, submission, status, message, worker_id)
        return
    if status == "queued" and not is_worked_on:
        submission.status, submission.message, submission.worker_id = status, message, None
    add_event(
        session,
        f"{status}: {message}",
        run_id=submission.run_id,
        submission_id=submission.id,
        worker_id=worker_id,
    )


def _close_others(session: Session, submission: Submission) -> None:
    """Let nobody begin another part of a submission; those that run hear of it when they renew their leases."""
    session.flush()
    others = update(Shard).where(Shard.submission_id == submission.id, Shard.status.in_(OPEN))
    session.execute(others.values(status="cancelled", ended_at=now()))


def give_back(database: Database, shard_id: str, worker_id: str, reason: str = UNWRITTEN) -> None:
    """Put a shard whose end could not be recorded back into its queue; nothing where it was recorded.

    Not for ever: where a database takes claims but no results, as on a disk that is all but full, each turn would pay
    for calls whose answers nobody keeps.
    """
    with database.write() as session:
        submission, shard = locked_shard(session, shard_id)
        if (shard.status, shard.worker_id) != ("running", worker_id):
            return
        losses = note_unwritten(session, submission, shard)
        if submission.queue is None:
            _end(session, submission, shard, "incomplete", reason, worker_id)
        elif losses < LOSSES_WITHOUT_PROGRESS:
            _end(session, submission, shard, "queued", UNWRITTEN, worker_id)
        else:
            message = f"{losses} times in a row {UNWRITTEN}; see to its disk, and submit this again"
            _end(session, submission, shard, "failed", message, worker_id)


def settle_dead(database: Database, queues: list[str] | None, worker_id: str | None = None) -> list[str]:
    """Free shards whose process is gone, without anyone's help.

    Those of a queue go back into it; those that a process executed for itself are marked incomplete.

    Args:
        database: of the results.
        queues: the queues to look after; None for submissions without a queue.
        worker_id: who asks; it lives, however long its last sign of life was ago.

    Returns:
        The ids of shards that are queued and need a workflow, the oldest submission's first; of each submission the
        next few, however many it has.
    """
    mine = Submission.queue.is_(None) if queues is None else Submission.queue.in_(queues)
    with database.read() as session:
        running = select(Shard.id, Shard.worker_id).join(Submission).where(mine, Shard.status == "running")
        held = [(key, worker) for key, worker in session.execute(running) if worker != worker_id]
        living = {worker for worker in {worker for _, worker in held} if is_alive(session, worker)}
    for shard_id in [key for key, worker in held if worker not in living]:
        _settle(database, shard_id)
    place = func.row_number().over(partition_by=Shard.submission_id, order_by=Shard.number).label("place")
    queued = (
        select(Shard.id, Shard.number, Submission.created_at, place)
        .join(Submission)
        .where(mine, Shard.status == "queued")
        .subquery()
    )
    waiting = select(queued.c.id).where(queued.c.place <= OFFERED)
    with database.read() as session:
        return list(session.scalars(waiting.order_by(queued.c.created_at, queued.c.number)))


def _settle(database: Database, shard_id: str) -> str:
    """Free one shard, unless its worker has come back to life meanwhile; the status it then has."""
    with database.write() as session:
        submission, shard = locked_shard(session, shard_id)
        if shard.status != "running" or is_alive(session, shard.worker_id):
            return shard.status
        died = f"{shard.worker_id} no longer answers"
        if submission.cancel_requested or submission.status in ENDED:
            _end(session, submission, shard, "cancelled", died, None)
        elif submission.queue is None:
            _end(session, submission, shard, "incomplete", f"{died}; the same command goes on where it stopped", None)
        elif lost := note_silence(session, submission, shard):
            message = f"{lost} workers in a row stopped answering while they executed it"
            _end(session, submission, shard, "failed", message, None)
        else:
            _end(session, submission, shard, "queued", f"{died}; back in the queue", None)
        return shard.status
