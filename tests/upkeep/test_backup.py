"""Backups as of one moment, from either database into either, and what a restore refuses and fences."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from engine import crowd
from engine.lab import opened
from support.program import vivace
from vivace.engine.claims.leases import Heartbeat, Lease, register_worker, try_lease
from vivace.engine.shards import start
from vivace.errors import LeaseLostError
from vivace.settings import Settings
from vivace.store.database import Database, DatabaseReplacedError
from vivace.store.migrate import open_for_writing
from vivace.store.records import add_event
from vivace.store.tables import Base, Event, Shard, Submission, Worker


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with two runs, judged, and a submission."""
    crowd.prepare(database_url, 2, tmp_path / "home")
    database = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with database.write() as session:
        crowd.queue_submission(session, "run0")
        session.get_one(Submission, "s").spec = {"a": [1, "ü"]}
        add_event(session, "recorded", run_id="run0")
    yield database
    database.close()


def rows(url: str, *but: str) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with opened(url) as database, database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
            if table.name not in but
        }


def test_a_backup_is_a_database_of_its_own_and_comes_back_into_either(
    database: Database, postgres_server: Any, tmp_path: Path
) -> None:
    place = ["--home", tmp_path / "home", "--database", database.url]
    file = tmp_path / "backup.db"
    done = vivace("db", "backup", file, *place)
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.glob("*backup*")] == ["backup.db"], "one file, and none beside it"
    assert file.stat().st_mode & 0o777 == 0o600
    before = rows(database.url)
    assert rows(f"sqlite:///{file}") == before
    assert vivace("db", "backup", file, *place).returncode == 2, "not over another"
    assert vivace("db", "backup", file, "--force", *place).returncode == 0

    name = "other_" + secrets.token_hex(6)
    postgres_server.psql(f"CREATE DATABASE {name};")
    for target in (f"sqlite:///{tmp_path / 'other.db'}", str(postgres_server.get_uri(name))):
        there = ["--home", tmp_path / "elsewhere", "--database", target]
        done = vivace("db", "restore", file, *there)
        assert done.returncode == 0, done.stderr
        assert rows(target, "shard") == {name: found for name, found in before.items() if name != "shard"}
        written = open_for_writing(Settings(home=tmp_path, database=target))
        with written.write() as session:
            add_event(session, "numbered on", run_id="run0")
        written.close()
        refused = vivace("db", "restore", file, *there)
        assert refused.returncode == 2
        assert "holds 2 runs; give --force" in refused.stderr
        assert len(rows(target)["event"]) == len(before["event"]) + 1
        done = vivace("db", "restore", file, "--force", *there)
        assert done.returncode == 0, done.stderr
        assert len(rows(target)["event"]) == len(before["event"])
        kept = max((tmp_path / "elsewhere").glob("before-restore-*.db"), key=lambda each: each.stat().st_mtime_ns)
        assert len(rows(f"sqlite:///{kept}")["event"]) == len(before["event"]) + 1


def test_a_backup_while_others_write_has_whole_transactions(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    with database.write() as session:
        add_event(session, "uncommitted", run_id="run0")
        session.flush()
        done = vivace("db", "backup", file, "--home", tmp_path / "home", "--database", database.url)
        assert done.returncode == 0, done.stderr
    assert not any("uncommitted" in row for row in rows(f"sqlite:///{file}")["event"])


def test_whoever_works_on_what_is_replaced_is_fenced(database: Database, tmp_path: Path) -> None:
    place = ["--home", tmp_path / "home", "--database", database.url]
    worker = register_worker(database, ["default"], 15)
    lease = try_lease(database, "s-1", worker, 15)
    assert isinstance(lease, Lease)
    with database.write() as session:
        session.get_one(Shard, "s-1").status = "running"
        session.get_one(Shard, "s-1").worker_id = worker
    start(database, "s-1", worker)
    assert vivace("db", "backup", tmp_path / "b.db", *place).returncode == 0
    refused = vivace("db", "restore", tmp_path / "b.db", *place)
    assert refused.returncode == 2
    assert "1 process(es) at work on it" in refused.stderr
    done = vivace("db", "restore", tmp_path / "b.db", "--force", *place)
    assert done.returncode == 0, done.stderr
    with pytest.raises(LeaseLostError), lease.write():
        pass
    with pytest.raises(DatabaseReplacedError, match="a backup was restored under it"):
        Heartbeat(database, worker, 15).beat()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Worker)) == 0
        assert session.get_one(Shard, "s-1").lease_owner is None
    shown = vivace("status", *place)
    assert shown.returncode == 0, shown.stderr
    assert f"{worker} (gone)" in shown.stdout and "goes on where it stopped" in shown.stdout


def test_what_is_damaged_foreign_or_newer_is_not_restored(tmp_path: Path) -> None:
    made = open_for_writing(Settings(home=tmp_path / "home"))
    with made.write() as session:
        for number in range(300):
            session.add(Event(level="info", message=f"{number} " + 50 * "x"))
    made.close()
    place = ["--home", tmp_path / "home"]
    good = tmp_path / "good.db"
    assert vivace("db", "backup", good, *place).returncode == 0
    for words, said in (
        (["backup", tmp_path, "--force"], "is a folder"), (["prune", "--days", "1e9"], "--days"),
        (["prune", "--artifacts", "--grace", "1e12"], "--grace"),
    ):  # fmt: skip
        refused = vivace("db", *words, *place)
        assert refused.returncode == 2 and said in refused.stderr
    damaged = bytearray(good.read_bytes())
    damaged[-6000:-2000] = bytes(4000)
    (tmp_path / "damaged.db").write_bytes(damaged)
    (tmp_path / "text.db").write_text("a letter")
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    (tmp_path / "newer.db").write_bytes(good.read_bytes())
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = rows(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}")
    for name, said in (
        ("damaged.db", "is damaged"), ("text.db", "is damaged or no backup"), ("foreign.db", "did not make"),
        ("newer.db", "does not know"), ("nothing.db", "There is no file"),
    ):  # fmt: skip
        refused = vivace("db", "restore", tmp_path / name, "--force", *place)
        assert refused.returncode == 2, (name, refused.stderr)
        assert said in refused.stderr
    assert rows(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}") == before


def test_a_backup_of_an_older_schema_is_migrated_on_the_way(tmp_path: Path) -> None:
    from alembic import command

    from vivace.store import migrate

    old = Database(f"sqlite:///{tmp_path / 'old.db'}")
    config = migrate._config()
    with old.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
    with old.write() as session:
        session.execute(text("INSERT INTO event (level, message, created_at) VALUES ('info', 'old', '2026-01-01')"))
    old.close()
    done = vivace("db", "restore", tmp_path / "old.db", "--home", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "old" in rows(f"sqlite:///{tmp_path / 'home' / 'vivace.db'}")["event"][0]
