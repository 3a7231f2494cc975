"""Leases: at any moment one process works on a shard, and a dead or frozen one loses it without anyone's help."""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from vivace.engine.claims.silence import silent_for
from vivace.errors import LeaseLostError
from vivace.store.database import Database, DatabaseReplacedError, DatabaseUnavailableError
from vivace.store.migrate import head
from vivace.store.records import add_event, clock
from vivace.store.tables import ENDED, Run, Shard, Submission, Worker

LEASES_UNTIL_GONE = 4
"""A worker that was silent for so many of its leases is taken for dead, although nobody can see its process."""


@cache
def this_host() -> str:
    """Where a process number means something: host name, boot, and process namespace."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]"))
    except OSError:
        parts.append(str(int(psutil.boot_time())))
    return ":".join(parts)


@cache
def this_machine() -> str:
    """What processes share when one of them measures: the machine as it runs, whatever containers divide it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}:{int(psutil.boot_time())}"


def _started(pid: int) -> float | None:
    """When a process started, in seconds after boot; None where none of this number runs.

    Counted from boot, because setting the clock moves all start times that are counted from 1970.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None  # killed, but its parent has not taken note: it will never work again
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None


def register_worker(
    database: Database, queues: list[str], lease_seconds: float, offers: dict[str, Any] | None = None
) -> str:
    """Write this process down as a worker, and return its id. From then on it writes at this schema or not at all.

    Args:
        database: of the results.
        queues: that it serves; none where it executes a run of its own.
        lease_seconds: how long its last sign of life counts.
        offers: what it has that runs may need.
    """
    database.written_revision = head()
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    with database.write() as session:
        time_now = clock(session)
        session.add(
            Worker(
                id=worker_id,
                host=this_host(),
                machine=this_machine(),
                offers=offers,
                pid=os.getpid(),
                process_started=_started(os.getpid()) or 0.0,
                queues=queues,
                lease_seconds=lease_seconds,
                started_at=time_now,
                heartbeat_at=time_now,
            )
        )
    return worker_id


def is_alive(session: Session, worker_id: str | None) -> bool:
    """Whether a worker may still be working: it has beaten lately, and its process, where it can be seen, exists."""
    worker = session.get(Worker, worker_id) if worker_id is not None else None
    if worker is None or worker.stopped_at is not None or _has_ended(worker):
        return False
    return silent_for(worker.id, worker.heartbeat_at, clock(session)) < worker.lease_seconds


def is_gone(session: Session, worker_id: str) -> bool:
    """Whether a worker that stopped answering will not come back: its process is no more, or silent for long."""
    worker = session.get(Worker, worker_id)
    if worker is None or worker.stopped_at is not None:
        return False  # it has taken its leave in order
    silence = silent_for(worker.id, worker.heartbeat_at, clock(session))
    return _has_ended(worker) or silence >= LEASES_UNTIL_GONE * worker.lease_seconds


def _has_ended(worker: Worker) -> bool:
    """Whether a worker's process is no more, as far as that can be seen from here."""
    if worker.host != this_host():
        return False
    started = _started(worker.pid)
    return started is None or abs(started - worker.process_started) > 1.0


class Heartbeat:
    """A thread that renews a worker's sign of life, and the lease of the shard it works on.

    It runs beside the work, so that heavy computing or a slow call never looks like death. It also hears
    that a submission is to be cancelled.
    """

    def __init__(self, database: Database, worker_id: str, lease_seconds: float) -> None:
        self._database = database
        self.worker_id = worker_id
        self.lease_seconds = lease_seconds
        self.drain_asked = False
        """Whether the worker is to end once what it executes has ended."""
        self._lease: Lease | None = None
        self._replaced: DatabaseReplacedError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and write down that the worker has stopped."""
        self._stopped.set()
        self._thread.join()
        with suppress(DatabaseReplacedError), self._database.write() as session:
            session.execute(update(Worker).where(Worker.id == self.worker_id).values(stopped_at=clock(session)))

    def watch(self, lease: Lease | None) -> None:
        """Renew this lease too from now on; None for none."""
        self._lease = lease

    def _beat_until_stopped(self) -> None:
        while not self._stopped.wait(self.lease_seconds / 4):
            try:
                self.beat()
            except DatabaseReplacedError as error:
                self._replaced = error
                if self._lease is not None:
                    self._lease.doubt()
                return
            except (DatabaseUnavailableError, SQLAlchemyError):
                continue  # the database is away for a moment; the lease itself says how long that may last

    def check(self) -> None:
        """See whether there is still a database to work for.

        Raises:
            DatabaseReplacedError: there is none.
        """
        if self._replaced is not None:
            raise self._replaced

    def beat(self) -> None:
        """One sign of life."""
        lease = self._lease
        if lease is not None:
            lease.renew()
        with self._database.write() as session:
            mine = update(Worker).where(Worker.id == self.worker_id).values(heartbeat_at=clock(session))
            known = session.execute(mine.returning(Worker.id, Worker.drain_asked_at)).one_or_none()
        if known is None:
            raise DatabaseReplacedError(
                f"The database no longer knows the worker {self.worker_id}: a backup was restored under it. It ends, "
                "and can be started again."
            )
        self.drain_asked = known.drain_asked_at is not None


class Lease:
    """The right to write a shard's results, until it expires unrenewed or another process takes it.

    Every write checks, in its own transaction, that the shard's epoch is still this lease's: a process that
    was frozen and wakes up after a takeover cannot write anything.
    """

    def __init__(self, database: Database, shard: Shard, run_id: str, worker_id: str, seconds: float) -> None:
        self.run_id = run_id
        self.shard_id = shard.id
        self.submission_id = shard.submission_id
        self.worker_id = worker_id
        self._database = database
        self._epoch = shard.lease_epoch
        self._seconds = seconds
        self._renewed = time.monotonic()
        # Built once, and of the plain table: it is part of every write.
        table = Shard.__table__.c
        self._epoch_now = select(table.lease_epoch).where(table.id == shard.id).with_for_update(key_share=True)
        self.lost = False
        self.cancel_requested = False

    def renew(self) -> bool:
        """Extend the lease; False where it is no longer ours."""
        asked = time.monotonic()
        with self._database.write() as session:
            held = self._is_held(session)
            if held:
                expiry = clock(session) + timedelta(seconds=self._seconds)
                session.execute(update(Shard).where(Shard.id == self.shard_id).values(lease_expires_at=expiry))
                query = select(Submission.cancel_requested, Submission.status)
                asked_for, status = session.execute(query.where(Submission.id == self.submission_id)).one()
                # Where one part has failed, or nothing may be spent any more, the others end too.
                self.cancel_requested = asked_for or status in ENDED
        self.lost = not held
        if held:
            self._renewed = asked
        return held

    @property
    def is_fresh(self) -> bool:
        """Whether the lease is ours for certain, by this process's own clock and without asking the database."""
        is_young = time.monotonic() - self._renewed <= self._seconds / 2
        return not self.lost and is_young and self._database.is_in_place

    def doubt(self) -> None:
        """Have the next call ask the database whether the lease still is ours."""
        self._renewed = -math.inf

    def still_held(self) -> bool:
        """Whether new work may start: the lease is fresh, or is renewed now."""
        return self.is_fresh or (not self.lost and self.renew())

    @contextmanager
    def write(self, *, after: Callable[[Session], object] = lambda session: None) -> Iterator[Session]:
        """One transaction that is refused if the lease is gone.

        Args:
            after: what locks other rows, in the order in which everyone locks them, before the shard's own.

        Raises:
            LeaseLostError: another process has taken the shard over.
        """
        with self._database.write() as session:
            after(session)
            if not self._is_held(session):
                self.lost = True
                raise LeaseLostError(
                    f"Run {self.run_id} was taken over by another process while this one did not answer; "
                    "see `vivace status`."
                )
            yield session

    def release(self) -> None:
        """Give the shard free for others."""
        with self._database.write() as session:
            if self._is_held(session):
                session.execute(
                    update(Shard)
                    .where(Shard.id == self.shard_id)
                    .values(lease_owner=None, lease_expires_at=None, lease_epoch=self._epoch + 1)
                )

    def _is_held(self, session: Session) -> bool:
        # The row lock makes a takeover on PostgreSQL wait for this transaction; SQLite has one writer.
        return bool(session.connection().scalar(self._epoch_now) == self._epoch)


def try_lease(database: Database, shard_id: str, worker_id: str, seconds: float) -> Lease | str:
    """Take the lease of a shard if it is free, expired, or its owner is dead; else the owner's id.

    Two submissions never work on one run: the owner may also be that of another submission's shard.
    """
    with database.write() as session:
        shard = session.get_one(Shard, shard_id)
        run_id = session.get_one(Submission, shard.submission_id).run_id
        # All who want a lease of this run come one after the other.
        session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))
        session.refresh(shard, with_for_update={"key_share": True})
        others = (
            select(Shard)
            .join(Submission)
            .where(Submission.run_id == run_id, Shard.lease_owner.is_not(None), Shard.lease_owner != worker_id)
            .where((Shard.id == shard_id) | (Shard.submission_id != shard.submission_id))
        )
        time_now = clock(session)
        for other in session.scalars(others):
            lives = _lives(session, other, time_now, seconds)
            if lives is True:
                return str(other.lease_owner)
            add_event(
                session,
                f"taken over from {other.lease_owner}, which {lives}",
                run_id=run_id,
                submission_id=shard.submission_id,
                worker_id=worker_id,
                level="warning",
            )
            if other.id != shard_id:
                other.lease_owner, other.lease_expires_at, other.lease_epoch = None, None, other.lease_epoch + 1
        shard.lease_owner = worker_id
        shard.lease_epoch += 1
        shard.lease_expires_at = time_now + timedelta(seconds=seconds)
    return Lease(database, shard, run_id, worker_id, seconds)


def _lives(session: Session, shard: Shard, time_now: datetime, seconds: float) -> str | Literal[True]:
    """Whether the owner of a shard's lease still works on it, or what has become of it."""
    owner = session.get(Worker, shard.lease_owner)
    granted = timedelta(seconds=owner.lease_seconds if owner is not None else seconds)
    renewed_at = shard.lease_expires_at and shard.lease_expires_at - granted
    if renewed_at is None or silent_for(f"lease of {shard.id}", renewed_at, time_now) > granted.total_seconds():
        return "did not renew its lease"
    return True if is_alive(session, shard.lease_owner) else "is gone"
