"""Faults of the host: clocks that are set, databases that vanish, change or take no more, and writers that freeze."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text, update

from engine import crowd
from engine.lab import Gate, Lab, laboratory, opened
from support.chat_server import Answer, Call
from support.program import vivace
from vivace.engine.claims import leases, silence
from vivace.engine.claims.leases import Heartbeat, Lease, is_alive, register_worker, try_lease
from vivace.engine.execution import StopSignal
from vivace.engine.setbacks import LOSSES_WITHOUT_PROGRESS
from vivace.engine.work import execute_submission
from vivace.errors import LeaseLostError
from vivace.settings import Settings
from vivace.store import database as database_module
from vivace.store import migrate
from vivace.store.columns import now
from vivace.store.database import Database, DatabaseFullError, DatabaseReplacedError
from vivace.store.migrate import open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import Worker
from vivace.store.write_lock import stuck_writer

HOUR = timedelta(hours=1)


class Clocks:
    """The clock that all processes share, which people set, and this process's own, which nobody does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shared = now()
        self.own = 1000.0
        monkeypatch.setattr(silence, "time", SimpleNamespace(monotonic=lambda: self.own))
        monkeypatch.setattr(leases, "clock", lambda session: self.shared)

    def pass_by(self, seconds: float) -> None:
        """Time goes on."""
        self.own += seconds
        self.shared += timedelta(seconds=seconds)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that stand still."""
    return Clocks(monkeypatch)


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with one run and a queued submission `s` for it."""
    (run,) = crowd.prepare(database_url, 1, tmp_path / "home")
    database = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with database.write() as session:
        crowd.queue_submission(session, run)
    yield database
    database.close()


def _alive(database: Database, worker: str) -> bool:
    with database.read() as session:
        return is_alive(session, worker)


@pytest.mark.parametrize("change", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_is_set_ends_no_lease_and_keeps_none(
    database: Database, clocks: Clocks, change: timedelta
) -> None:
    first, second = register_worker(database, [], 15), register_worker(database, [], 15)
    held = try_lease(database, "s-1", first, 15)
    assert isinstance(held, Lease)
    assert try_lease(database, "s-1", second, 15) == first

    clocks.shared += change
    assert try_lease(database, "s-1", second, 15) == first, "who beat a moment ago lives"
    assert held.renew()
    with database.write() as session:
        session.execute(update(Worker).values(heartbeat_at=clocks.shared))
    clocks.pass_by(14)
    assert try_lease(database, "s-1", second, 15) == first
    clocks.pass_by(2)
    assert not _alive(database, first), "its silence is as long as ever"
    taken = try_lease(database, "s-1", second, 15)
    assert isinstance(taken, Lease)
    with pytest.raises(LeaseLostError), held.write():
        pass


def test_a_sign_of_life_from_before_the_clock_was_set_back_does_not_last(
    database: Database, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = register_worker(database, [], 15)
    clocks.shared -= 24 * HOUR
    monkeypatch.setattr(silence, "_seen", {})  # another process, which sees it for the first time
    assert _alive(database, worker)
    clocks.pass_by(16)
    assert not _alive(database, worker)


class Fault:
    """A server that brings something about while it is asked for the third time, and goes on answering."""

    def __init__(self, bring_about: Callable[[], None]) -> None:
        self._bring_about = bring_about
        self._answer = Gate()
        self.calls = 0

    def __call__(self, call: Call) -> Answer:
        """Answer one call."""
        self.calls += 1
        if self.calls == 3:
            self._bring_about()
        return self._answer(call)


@contextmanager
def _run_into(
    fault: Callable[[], None], folder: Path, url: str
) -> Iterator[tuple[Lab, subprocess.CompletedProcess[str]]]:
    server = Fault(fault)
    with laboratory(folder, url, server, conversations=5, streams=False) as lab:
        ended = vivace(*lab.run_arguments("--concurrency", 1))
        assert server.calls == 3, "the call in flight was the last"
        yield lab, ended


def test_a_database_file_that_is_deleted_under_a_run_stops_it_before_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "test.db"

    def delete() -> None:
        for file in tmp_path.glob("test.db*"):
            file.unlink()

    with _run_into(delete, tmp_path, f"sqlite:///{path}") as (_, ended):
        assert ended.returncode == 1
        assert "was deleted or replaced under this process" in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr
        assert not path.exists(), "an empty one in its place would look as if nothing had ever been recorded"


def test_a_database_file_that_is_replaced_under_a_run_stops_it_and_the_new_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "test.db"

    def replace() -> None:
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(tmp_path / "copy")) as new:
            old.backup(new)
        (tmp_path / "copy").replace(path)

    with _run_into(replace, tmp_path, f"sqlite:///{path}") as (lab, ended):
        assert ended.returncode == 1
        assert "was deleted or replaced under this process" in ended.stderr.splitlines()[-1]
        assert lab.recorded()["reply"] == 2, "what it wrote before is in the copy, and nothing after"
        resumed = vivace(*lab.run_arguments())
        assert resumed.returncode == 0, resumed.stderr
        assert lab.recorded() == {"reply": 5, "verdict": 10, "attempt": 5}


def test_whoever_only_reads_goes_on_with_the_file_that_was_put_in_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made = open_for_writing(Settings(home=tmp_path, database=f"sqlite:///{tmp_path / name}"))
        with made.write() as session:
            add_event(session, name)
        made.close()
    with opened(f"sqlite:///{tmp_path / 'one'}") as reader:
        said = "SELECT message FROM event"
        with reader.read() as session:
            assert session.scalar(text(said)) == "one"
        (tmp_path / "two").replace(tmp_path / "one")
        with reader.read() as session:
            assert session.scalar(text(said)) == "two"


@pytest.mark.usually_on("postgresql")
def test_a_schema_that_changes_under_a_run_stops_it_and_the_vivace_of_that_schema_goes_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrated() -> None:
        other = Database(database_url)
        with other.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        other.close()

    with _run_into(migrated, tmp_path, database_url) as (lab, ended):
        assert ended.returncode == 1
        assert f"is now at schema 9999, and this process writes {migrate.head()}" in ended.stderr.splitlines()[-1]
        assert lab.recorded()["reply"] == 2

        older = vivace(*lab.run_arguments())
        assert older.returncode == 2
        assert "install the newer Vivace" in older.stderr
        monkeypatch.setattr(migrate, "_revisions", lambda: ["0001", "9999"])
        newer = vivace(*lab.run_arguments())
        assert newer.returncode == 0, newer.stderr
        assert lab.recorded()["reply"] == 5


def test_a_database_that_was_made_anew_under_a_process_is_not_written(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("a file that is replaced is found out by itself")
    register_worker(database, [], 15)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    with pytest.raises(DatabaseReplacedError, match="no longer holds Vivace's tables"), database.write():
        pass


def test_a_migration_waits_for_the_writes_under_way(postgres_url: str, tmp_path: Path) -> None:
    database = open_for_writing(Settings(home=tmp_path, database=postgres_url))
    register_worker(database, [], 15)
    with database.write() as session:
        add_event(session, "under way")
        with database.engine.connect() as other, other.begin():
            other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                migrate.wait_for_writes(other)
    with database.engine.connect() as other, other.begin():
        migrate.wait_for_writes(other)
    database.close()


@pytest.mark.usually_on("sqlite")
def test_a_database_that_takes_claims_and_no_results_ends_a_submission_instead_of_paying_for_ever(
    database_url: str, tmp_path: Path
) -> None:
    gate = Gate()
    gate.text = "yes " + 200_000 * "a"
    with laboratory(tmp_path, database_url, gate, conversations=4, streams=False) as lab:
        submission = lab.submit()
        database = open_for_writing(lab.settings)
        _take_no_replies(database)
        worker = register_worker(database, ["default"], 600)
        heartbeat = Heartbeat(database, worker, 600)
        for turn in range(1, LOSSES_WITHOUT_PROGRESS + 1):
            with pytest.raises(DatabaseFullError):
                execute_submission(submission, database, lab.settings, heartbeat, StopSignal())
            assert lab.view(submission).status == ("queued" if turn < LOSSES_WITHOUT_PROGRESS else "failed")
        assert execute_submission(submission, database, lab.settings, heartbeat, StopSignal()).status == "skipped"
        database.close()
        assert len(lab.server.calls) == LOSSES_WITHOUT_PROGRESS
        assert "see to its disk, and submit this again" in str(lab.view(submission).message)
        assert lab.recorded()["reply"] == 0


def _take_no_replies(database: Database) -> None:
    """Leave room for a claim or two, as a disk does that is all but full."""
    if not database.is_sqlite:
        with database.engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                    "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
                )
            )
            connection.execute(text("CREATE TRIGGER refuse BEFORE INSERT ON reply EXECUTE FUNCTION refuse()"))
        return

    @event.listens_for(database.engine, "connect")
    def limit(connection: sqlite3.Connection, _record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 20}")

    database.engine.dispose()


def test_a_process_that_is_frozen_inside_a_write_is_named_to_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "TOLD_AFTER_S", 0.01)
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    home = tmp_path / "home"
    database = open_for_writing(Settings(home=home))
    worker = register_worker(database, [], 15)
    program = (
        "import os, signal, sqlite3, sys; input(); c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print(flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    frozen = subprocess.Popen(
        [sys.executable, "-c", program, home / "vivace.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        with database.write() as session:
            session.execute(update(Worker).where(Worker.id == worker).values(pid=frozen.pid))
        assert frozen.stdin is not None
        assert frozen.stdout is not None
        frozen.stdin.write(b"\n")
        frozen.stdin.flush()
        frozen.stdout.readline()
        os.waitpid(frozen.pid, os.WUNTRACED)
        with pytest.raises(database_module.DatabaseUnavailableError) as refused, database.write():
            pass
        named = f"process {frozen.pid} on "
        assert named in str(refused.value)
        assert "locked" not in str(refused.value)
        assert named in caplog.text
        shown = vivace("status", "--home", home)
        assert f"Nothing can be recorded: {named}" in shown.stderr
        assert f"`kill -CONT {frozen.pid}`" in shown.stderr
        assert f"it is worker {worker}, silent for 0 s" in shown.stderr
        examined = vivace("doctor", "--home", home, "--format", "json")
        assert named in examined.stdout
    finally:
        frozen.send_signal(signal.SIGKILL)
        frozen.communicate()
    with database.write():
        pass
    assert stuck_writer(home / "vivace.db") is None
    database.close()
