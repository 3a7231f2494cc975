"""A copy of a database as of one moment, in one file, and the way back into either of the two databases.

The file is a SQLite database of the same tables: every verb that reads can open it, it can be migrated like any
other, and what was PostgreSQL may come back as SQLite or the other way round.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Integer, Table, delete, func, insert, inspect, select, text, update

from vivace.engine.claims.leases import is_alive
from vivace.errors import UsageError, VivaceError
from vivace.files.paths import sqlite_url
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database, redacted
from vivace.store.tables import Base, Run, Shard, Worker
from vivace.tracks.dialogue.summaries.older_judgings import fill_summaries

ROWS_AT_ONCE = 500


def back_up(settings: Settings, file: Path, *, overwrite: bool = False) -> int:
    """Copy the database as it is at one moment, also while others write; the bytes of the file.

    The file appears whole or not at all, and only its owner may read it: private runs are in it.

    Raises:
        UsageError: there is no database, it is not one of this Vivace's, or the file is there already.
        VivaceError: the file cannot be written.
    """
    database = Database(settings.database_url, read_only=True)
    found = migrate.state(database)
    if found in ("missing", "empty"):
        raise UsageError(
            f"There is nothing to back up yet in '{redacted(database.url)}'; check --home and --database."
        )
    if found in ("foreign", "newer"):
        migrate.refuse(database, found)
    if found == "old" and not database.is_sqlite:
        raise UsageError(
            f"The database '{redacted(database.url)}' is at schema {migrate.revision(database)}, older than this "
            "Vivace; copy it with pg_dump, or with the Vivace that wrote it."
        )
    if file.is_dir():
        raise UsageError(f"'{file}' is a folder; give the name of a file in it.")
    if file.exists() and not overwrite:
        raise UsageError(f"'{file}' is there already; give another name, or --force to replace it.")
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.touch(mode=0o600, exist_ok=False)
        if database.path is not None:
            _copy_file(database.path, partial)
        else:
            _copy_server(database, partial)
        fault = _fault(partial)
        if fault is not None:
            raise VivaceError(f"The copy of '{redacted(database.url)}' is damaged ({fault}); nothing is kept of it.")
        _flush(partial)
        partial.replace(file)
        return file.stat().st_size
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise VivaceError(f"The backup '{file}' cannot be written ({reason}); give another place.") from error
    finally:
        for left in (partial, *partial.parent.glob(f"{partial.name}-*")):
            left.unlink(missing_ok=True)
        database.close()


def restore(settings: Settings, file: Path, *, overwrite: bool = False) -> Path | None:
    """Put a backup in the place of the database, in one transaction; where what was there has been kept.

    A backup of an older schema is migrated on the way, and gets the summaries that it lacks. Every lease is taken
    back: a process that still works on what was there cannot write into what is there now, and stops.

    Raises:
        UsageError: the file is no sound backup, or the database holds something and `overwrite` is not given.
        VivaceError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="vivace-restore-") as folder:
        copy = Path(folder) / "copy.db"
        _check_backup(file)
        _copy_file(file, copy)
        database = Database(settings.database_url)
        kept = None
        try:
            found = migrate.state(Database(settings.database_url, read_only=True))
            if found in ("foreign", "newer"):
                migrate.refuse(database, found)
            if found not in ("missing", "empty") and not _is_bare(settings):
                _check_overwriting(settings, overwrite, found)
                kept = _kept_name(settings)
                back_up(settings, kept)
            source = Database(sqlite_url(copy))
            try:
                migrate.upgrade(source)
                fill_summaries(source)
                _end_leases(source)
            finally:
                source.close()
            migrate.upgrade(database)
            if database.path is not None:
                database.close()
                _copy_file(copy, database.path)
            else:
                _fill_server(copy, database)
        finally:
            database.close()
    return kept


def _kept_name(settings: Settings) -> Path:
    settings.home.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return settings.home / f"before-restore-{stamp}-{secrets.token_hex(2)}.db"


def _is_bare(settings: Settings) -> bool:
    """Whether a database holds no run; one of an older schema is taken to hold some."""
    if migrate.state(Database(settings.database_url, read_only=True)) != "current":
        return False
    database = Database(settings.database_url, read_only=True)
    with database.read() as session:
        return session.scalar(select(Run.id).limit(1)) is None


def _check_overwriting(settings: Settings, overwrite: bool, found: str) -> None:
    if overwrite:
        return
    database = Database(settings.database_url, read_only=True)
    at_work = 0
    runs = "results"
    if found == "current":
        with database.read() as session:
            runs = f"{session.scalar(select(func.count()).select_from(Run))} runs"
            query = select(Worker.id).where(Worker.stopped_at.is_(None))
            at_work = sum(is_alive(session, worker) for worker in session.scalars(query).all())
    database.close()
    busy = f", and {at_work} process(es) at work on it, which would stop" if at_work else ""
    raise UsageError(
        f"The database '{redacted(database.url)}' holds {runs}{busy}; give --force to replace it. What it holds is "
        "then kept beside it."
    )


def _check_backup(file: Path) -> None:
    """See that a file is a whole database of ours, at a schema that this Vivace knows.

    Raises:
        UsageError: it is not.
    """
    if not file.is_file():
        raise UsageError(f"There is no file '{file}'; `vivace db backup FILE` makes one.")
    fault = _fault(file)
    if fault is not None:
        raise UsageError(f"'{file}' is damaged or no backup ({fault}); restore another one. Nothing was changed.")
    database = Database(sqlite_url(file.absolute()), read_only=True)
    found = migrate.state(database)
    if found not in ("current", "old"):
        migrate.refuse(database, "foreign" if found in ("missing", "empty") else found)
    database.close()


def _fault(file: Path) -> str | None:
    """What is wrong with the pages, indexes or references of a SQLite file."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                return str(found)
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
            return dangling and f"a row of '{dangling[0]}' refers to one of '{dangling[2]}' that is not there"
    except sqlite3.Error as error:
        return str(error)


def _copy_file(source: Path, target: Path) -> None:
    """SQLite's own backup: all pages in one step, as of one moment, and into the target in one transaction."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as read,
        closing(sqlite3.connect(target, timeout=60)) as written,
    ):
        read.backup(written)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _copy_server(database: Database, file: Path) -> None:
    """Every row of a server's database, all as of one moment, into a new file."""
    target = Database(sqlite_url(file.absolute()))
    try:
        migrate.upgrade(target)
        with (
            database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as read,
            _without_references(target) as written,
        ):
            _copy_rows(read, written)
    finally:
        with closing(sqlite3.connect(file)) as connection:
            target.close()
            connection.execute("PRAGMA journal_mode=DELETE")  # one file, and none beside it


def _fill_server(file: Path, database: Database) -> None:
    """Every row of a file in the place of what a server's database holds, in one transaction."""
    source = Database(sqlite_url(file), read_only=True)
    try:
        with source.engine.connect() as read, database.engine.begin() as written:
            migrate.wait_for_writes(written)
            names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
            written.execute(text(f"TRUNCATE {names}"))
            _copy_rows(read, written)
            for table in Base.metadata.sorted_tables:
                _count_on(written, table)
    finally:
        source.close()


def _copy_rows(read: Connection, written: Connection) -> None:
    for table in Base.metadata.sorted_tables:
        rows = read.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table)).mappings()
        for part in rows.partitions():
            written.execute(insert(table), [dict(row) for row in part])


def _count_on(connection: Connection, table: Table) -> None:
    """Have a server number new rows from where the copied ones end."""
    (key, *more) = inspect(table).primary_key.columns
    if more or not isinstance(key.type, Integer):
        return
    connection.execute(
        text("SELECT setval(pg_get_serial_sequence(:name, :key), :last, :is_used)"),
        _last(connection, table, key.name),
    )


def _last(connection: Connection, table: Table, key: str) -> dict[str, object]:
    last = connection.scalar(select(func.max(table.c[key])))
    return {"name": table.name, "key": key, "last": last or 1, "is_used": last is not None}


@contextmanager
def _without_references(database: Database) -> Iterator[Connection]:
    """A transaction in which rows may come before those they refer to; they are checked when all are there."""
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            yield connection


def _end_leases(database: Database) -> None:
    """Fence whoever worked on what the database held: their workers are unknown now, and all leases are over."""
    with database.write() as session:
        session.execute(delete(Worker))
        session.execute(
            update(Shard).values(lease_owner=None, lease_expires_at=None, lease_epoch=Shard.lease_epoch + 1)
        )
