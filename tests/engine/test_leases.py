"""Leases and claims, one rule at a time, with workers that are rows and not processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select, update

from engine import crowd
from engine.lab import wait_until
from vivace.engine import shards, work
from vivace.engine.claims import leases
from vivace.engine.claims.leases import Heartbeat, Lease, is_alive, register_worker, try_lease
from vivace.engine.execution import StopSignal
from vivace.engine.setbacks import DEATHS_WITHOUT_PROGRESS
from vivace.engine.shards import settle_dead
from vivace.engine.submissions import cancel
from vivace.errors import LeaseLostError, UnreachableError, UsageError
from vivace.settings import Settings
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.records import add_event
from vivace.store.tables import Conversation, Event, Reply, Shard, Submission, Worker


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with one run and a queued submission `s` for it."""
    (run,) = crowd.prepare(database_url, 1, tmp_path / "home")
    database = Database(database_url)
    with database.write() as session:
        crowd.queue_submission(session, run)
    yield database
    database.close()


def _claimed(database: Database, worker_id: str) -> bool:
    return shards.claim(database, "s-1", worker_id).is_mine


def _silence(database: Database, worker_id: str, seconds: float = 3600) -> None:
    """Let a worker's last sign of life, and its lease, be so long ago."""
    ago = now() - timedelta(seconds=seconds)
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=ago))
        session.execute(update(Shard).where(Shard.lease_owner == worker_id).values(lease_expires_at=ago))


def _submission(database: Database) -> Submission:
    with database.read() as session:
        return session.get_one(Submission, "s")


def _alive(database: Database, worker_id: str) -> bool:
    with database.read() as session:
        return is_alive(session, worker_id)


def test_a_worker_is_alive_until_it_stops_or_falls_silent(database: Database) -> None:
    worker = register_worker(database, [], 15)
    assert _alive(database, worker)
    _silence(database, worker)
    assert not _alive(database, worker)
    with Heartbeat(database, worker, 15) as heartbeat:
        heartbeat.beat()
        assert _alive(database, worker)
    assert not _alive(database, worker)
    assert not _alive(database, "a worker nobody wrote down")


def test_a_zombie_and_a_reused_process_number_are_not_a_live_worker(database: Database) -> None:
    worker = register_worker(database, [], 600)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with database.write() as session:
        session.execute(
            update(Worker)
            .where(Worker.id == worker)
            .values(pid=child.pid, process_started=leases._started(child.pid))
        )
    assert _alive(database, worker)
    child.kill()
    # Nobody has waited for it yet, so its number is still taken.
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
    assert not _alive(database, worker)
    child.communicate()
    assert not _alive(database, worker)
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == worker).values(pid=1))
    assert not _alive(database, worker), "process 1 runs, but it is not the one that was written down"


def test_a_worker_of_another_machine_is_judged_by_its_signs_of_life_only(database: Database) -> None:
    worker = register_worker(database, [], 15)
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == worker).values(host="elsewhere", pid=2**22))
    assert _alive(database, worker)
    _silence(database, worker)
    assert not _alive(database, worker)


def test_a_lease_is_refused_while_its_owner_lives_and_fences_it_once_taken(database: Database) -> None:
    first, second = register_worker(database, [], 15), register_worker(database, [], 15)
    held = try_lease(database, "s-1", first, 15)
    assert isinstance(held, Lease)
    assert try_lease(database, "s-1", second, 15) == first
    with held.write() as session:
        add_event(session, "by the first", run_id="run0")
    _silence(database, first)
    taken = try_lease(database, "s-1", second, 15)
    assert isinstance(taken, Lease)
    with pytest.raises(LeaseLostError), held.write() as session:
        add_event(session, "by the first, too late", run_id="run0")
    assert not held.renew()
    assert not held.still_held()
    held.release()
    with taken.write() as session:
        add_event(session, "by the second", run_id="run0")
    taken.release()
    assert isinstance(try_lease(database, "s-1", first, 15), Lease)
    with database.read() as session:
        said = list(session.scalars(select(Event.message).order_by(Event.id)))
    assert said == ["by the first", f"taken over from {first}, which did not renew its lease", "by the second"]


def test_a_submission_is_claimed_by_one_worker(database: Database) -> None:
    first, second = register_worker(database, ["default"], 15), register_worker(database, ["default"], 15)
    assert _claimed(database, first)
    assert not _claimed(database, second)
    shards.end(database, "s-1", "cancelled", "asked to", second)
    assert _submission(database).status == "running", "only its worker ends it"
    shards.end(database, "s-1", "cancelled", "asked to", first)
    assert _submission(database).status == "cancelled"
    assert not _claimed(database, second)


def test_a_worker_that_lost_its_submission_cannot_end_or_start_it(database: Database) -> None:
    first, second = register_worker(database, ["default"], 15), register_worker(database, ["default"], 15)
    assert _claimed(database, first)
    _silence(database, first)
    assert settle_dead(database, ["default"], second) == ["s-1"]
    assert _claimed(database, second)
    shards.end(database, "s-1", "failed", "it woke up with an error", first)
    with pytest.raises(LeaseLostError):
        shards.start(database, "s-1", first)
    found = _submission(database)
    assert (found.status, found.worker_id, found.message) == ("running", second, None)


def test_a_submission_whose_run_another_submission_took_over_goes_back_into_the_queue(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = register_worker(database, ["default"], 15)

    def lost(*_: object) -> None:
        raise LeaseLostError("Run run0 was taken over by another process.")

    monkeypatch.setattr(work.Workplace, "_execute", lost)
    settings = Settings(home=tmp_path / "home")
    with Heartbeat(database, worker, 15) as heartbeat, pytest.raises(LeaseLostError):
        work.execute_submission("s", database, settings, heartbeat, StopSignal())
    found = _submission(database)
    assert (found.status, found.worker_id) == ("queued", None)


def test_a_model_that_is_late_is_waited_for_longer_than_one_that_is_not_there(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PAUSE_BEFORE_TRYING_S", 0.0)
    worker = register_worker(database, ["default"], 15)
    place = work.Workplace(database, Settings(home=tmp_path), Heartbeat(database, worker, 15), StopSignal())

    class Prepared:
        def __init__(self, late: bool, silent: int) -> None:
            self.late, self.silent, self.asked = late, silent, 0

        async def preflight(self) -> None:
            self.asked += 1
            if self.asked <= self.silent:
                error = UnreachableError("Nothing answers.")
                error.is_late = self.late
                raise error

    late, away = Prepared(True, work.TRIES_TO_REACH + 2), Prepared(False, 10)
    with asyncio.Runner() as loop:
        place._look_ahead(loop, late)  # type: ignore[arg-type]
        with pytest.raises(UnreachableError):
            place._look_ahead(loop, away)  # type: ignore[arg-type]
    assert (late.asked, away.asked) == (work.TRIES_TO_REACH + 3, work.TRIES_TO_REACH)


def test_a_worker_never_takes_itself_for_dead(database: Database) -> None:
    worker = register_worker(database, ["default"], 15)
    assert _claimed(database, worker)
    _silence(database, worker)
    assert settle_dead(database, ["default"], worker) == []
    assert _submission(database).status == "running"


def test_a_submission_that_kills_its_workers_is_given_up_in_the_end(database: Database) -> None:
    for death in range(1, DEATHS_WITHOUT_PROGRESS + 1):
        worker = register_worker(database, ["default"], 15)
        assert _claimed(database, worker)
        _silence(database, worker)
        waiting = settle_dead(database, ["default"])
        assert waiting == (["s-1"] if death < DEATHS_WITHOUT_PROGRESS else [])
    found = _submission(database)
    assert found.status == "failed"
    assert found.message == "3 workers in a row stopped answering while they executed it"


def _lost(database: Database, seconds: float) -> None:
    """A worker takes the shard, and is silent from then on; another one looks after it."""
    worker = register_worker(database, ["default"], 15)
    assert _claimed(database, worker)
    _silence(database, worker, seconds)
    assert settle_dead(database, ["default"]) == ["s-1"]


def test_workers_that_are_only_late_do_not_count_as_dead_until_they_are_for_long(database: Database) -> None:
    for _ in range(DEATHS_WITHOUT_PROGRESS - 1):
        _lost(database, 3600)
    for _ in range(2):
        _lost(database, 20)  # by a process that lives, on a machine that has too much to do
    with database.write() as session:
        for late in session.scalars(select(Worker).where(Worker.heartbeat_at > now() - timedelta(minutes=1))):
            late.heartbeat_at = now() - timedelta(hours=1)
    worker = register_worker(database, ["default"], 15)
    assert _claimed(database, worker)
    _silence(database, worker, 20)
    assert settle_dead(database, ["default"]) == []
    assert _submission(database).message == "4 workers in a row stopped answering while they executed it"


def test_deaths_are_counted_from_what_was_recorded_last_whatever_the_clock_says(database: Database) -> None:
    for number in range(DEATHS_WITHOUT_PROGRESS + 2):
        with database.write() as session:  # replies that took no call, written by a clock that was set back
            conversation = session.scalars(select(Conversation)).first()
            assert conversation is not None
            ago = now() - timedelta(days=1)
            session.add(
                Reply(run_id="run0", conversation_id=conversation.id, repeat=number, text="yes", created_at=ago)
            )
        _lost(database, 3600)
    assert _submission(database).status == "queued"


def test_cancelling_ends_what_nobody_executes_and_asks_who_does(database: Database) -> None:
    worker = register_worker(database, ["default"], 15)
    assert _claimed(database, worker)
    lease = try_lease(database, "s-1", worker, 15)
    assert isinstance(lease, Lease)
    assert "will stop" in cancel(database, "run0")
    assert lease.renew()
    assert lease.cancel_requested
    assert _submission(database).status == "running"
    _silence(database, worker)
    assert settle_dead(database, ["default"]) == []
    assert _submission(database).status == "cancelled"
    with pytest.raises(UsageError, match="has ended already"):
        cancel(database, "s")
    with pytest.raises(UsageError, match="no submission 'nobody'"):
        cancel(database, "nobody")


def test_a_run_executed_by_a_process_that_died_is_incomplete_and_not_queued(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Submission).values(queue=None))
    worker = register_worker(database, [], 15)
    assert _claimed(database, worker)
    _silence(database, worker)
    assert settle_dead(database, None) == []
    found = _submission(database)
    assert found.status == "incomplete"
    assert "the same command goes on where it stopped" in str(found.message)
