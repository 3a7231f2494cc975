"""Opening the results database: engines, transactions and the rules that keep SQLite from ever saying "locked"."""

from __future__ import annotations

import copy
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from vivace.errors import UsageError, VivaceError
from vivace.output.secrets import masked, note_password
from vivace.store.visibility import OPERATOR, Viewer, show_to
from vivace.store.write_lock import stuck_writer

BUSY_TIMEOUT_S = 60.0
"""How long a SQLite statement waits for another process's write to end."""
TOLD_AFTER_S = 5.0
"""So long it waits before it looks who that process is."""

_log = logging.getLogger(__name__)


class DatabaseUnavailableError(VivaceError):
    """The database cannot be read or written at the moment: the disk is full, or the server is away."""


class DatabaseFullError(DatabaseUnavailableError):
    """The database takes no more rows, or none at all: its disk is full, broken or read-only."""


class DatabaseReplacedError(DatabaseUnavailableError):
    """The database is no longer the one that this process began with; nothing it does would be kept."""


class Database:
    """A results database: `write()` and `read()` give sessions, each one short transaction.

    Args:
        url: a SQLAlchemy URL, SQLite or PostgreSQL.
        read_only: open SQLite with `mode=ro`, so that a reader can neither write nor wait for the writer, and every
            transaction of a server read-only.

    Raises:
        UsageError: the URL cannot be understood, or its file or server cannot be opened.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url
        self.read_only = read_only
        self.viewer = OPERATOR
        self.written_revision: str | None = None
        """The schema's revision that writes are meant for, where they are to be refused at any other."""
        try:
            parsed = make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            note_password(str(parsed.password or ""), parsed.username, parsed.database, parsed.host)
            self._file = _File(url) if self.is_sqlite else None
            self.engine = (
                _server_engine(url, read_only) if self._file is None else _sqlite_engine(self._file, read_only)
            )
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise UsageError(
                f"The database URL '{redacted(url)}' cannot be understood; "
                "give a path, sqlite:///FILE or postgresql://USER@HOST/NAME."
            ) from error
        event.listen(self.engine, "handle_error", self._say_what_is_wrong)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a server."""
        database = make_url(self.url).database
        return Path(database) if self.is_sqlite and database else None

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction, committed on leaving and rolled back on an error.

        Raises:
            DatabaseUnavailableError: it cannot be written at the moment.
            DatabaseReplacedError: it is another one than it was, or at another revision.
        """
        if not self.viewer.sees_all:
            raise TypeError("through a viewer's eyes a database is only read")
        self._check_in_place()
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            if self.written_revision is not None:
                self._check_revision(session.connection())
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One read transaction: all its queries see the same state.

        Raises:
            DatabaseUnavailableError: it cannot be read at the moment.
            DatabaseReplacedError: it is another one than it was; who only ever reads goes on with that.
        """
        self._check_in_place()
        options: dict[str, Any] = {"vivace_read": True}
        if not self.viewer.sees_all and not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"  # which sets are hidden is a question of its own
        with Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
            show_to(session, self.viewer)
            yield session

    def seen_by(self, viewer: Viewer) -> Database:
        """The same database, to be read alone, as somebody may see it."""
        seen = copy.copy(self)
        seen.viewer = viewer
        return seen

    def check_connection(self) -> None:
        """Connect once.

        Raises:
            UsageError: nothing answers, or the file is not a database.
        """
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
                if self.is_sqlite:
                    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
        except (DBAPIError, DatabaseUnavailableError) as error:
            reason = error.__cause__ if isinstance(error, DatabaseUnavailableError) else error.orig
            raise UsageError(
                f"The database '{redacted(self.url)}' cannot be opened ({_first_line(reason)}); "
                "check --database, --home and the permissions of the folder."
            ) from error

    @property
    def is_in_place(self) -> bool:
        """Whether a SQLite file is still the one that was opened, neither deleted nor replaced."""
        return self._file is None or self._file.is_in_place

    def _check_in_place(self) -> None:
        if self.is_in_place:
            return
        if self.read_only and self._file is not None:
            self.engine.dispose()
            self._file.forget()
            return
        raise DatabaseReplacedError(
            f"The database '{redacted(self.url)}' was deleted or replaced under this process, which stops; what was "
            "recorded is in the file that is gone. Put it or a backup back, and run the same command again."
        )

    def _check_revision(self, connection: Connection) -> None:
        """On PostgreSQL a migration waits until this transaction ends; SQLite has one writer."""
        try:
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        except (OperationalError, ProgrammingError):
            found = None
        if found != self.written_revision:
            is_now = f"is now at schema {found}" if found else "no longer holds Vivace's tables"
            raise DatabaseReplacedError(
                f"The database '{redacted(self.url)}' {is_now}, and this process writes {self.written_revision}; it "
                "stops, and what is recorded stays. Start it again with the Vivace that the database is of."
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _say_what_is_wrong(self, context: ExceptionContext) -> None:
        """Turn what the driver says of the machine (not of a statement) into a sentence for people."""
        if context.is_pre_ping:
            return  # the pool opens a new connection in place of one that has gone stale
        error = context.original_exception
        if _is_trouble_of_the_machine(error):
            self._check_in_place()
            kind = DatabaseFullError if _takes_no_rows(error) else DatabaseUnavailableError
            raise kind(
                f"The database '{redacted(self.url)}' cannot be used ({self._reason(error)}); "
                "once that is mended, the same command goes on where it stopped."
            ) from error

    def _reason(self, error: BaseException | None) -> str:
        if self._file is None or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            return _first_line(error)
        stuck = stuck_writer(self._file.path)
        waited = f"nothing could be written for {BUSY_TIMEOUT_S:.0f} s"
        return waited if stuck is None else f"{waited}: {stuck.sentence}"


def redacted(url: str) -> str:
    """A URL without its password."""
    try:
        return masked(make_url(url).render_as_string(hide_password=True))
    except (ArgumentError, ValueError):
        return masked(re.sub("//.*@", "//***@", url))


_SQLITE_TROUBLES = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
    }
)  # fmt: skip
_READ_ONLY_TRANSACTION = "25006"
_FULL = ("53", "58")
"""Classes of SQLSTATE: resources that are used up, and errors of the system, as of a disk."""


def _is_trouble_of_the_machine(error: BaseException | None) -> bool:
    """Whether disk, permissions, server or network are at fault, and not the statement."""
    if isinstance(error, sqlite3.Error):
        # The driver calls wrong SQL an OperationalError too; the low byte of the code tells them apart.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_TROUBLES
    psycopg = sys.modules.get("psycopg")  # loaded by whatever raises its errors
    if psycopg is not None and isinstance(error, psycopg.Error):
        return isinstance(error, psycopg.OperationalError) or error.sqlstate == _READ_ONLY_TRANSACTION
    return False


def _takes_no_rows(error: BaseException | None) -> bool:
    """Of a machine's trouble, whether it may last while small writes still succeed."""
    if isinstance(error, sqlite3.Error):
        code = error.sqlite_errorcode & 0xFF
        return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
    state = getattr(error, "sqlstate", None) or ""
    return state == _READ_ONLY_TRANSACTION or state.startswith(_FULL)


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _server_engine(url: str, read_only: bool) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    if read_only:

        @event.listens_for(engine, "connect")
        def begin_read_only(connection: Any, _record: Any) -> None:
            connection.read_only = True  # psycopg's: every transaction begins so

    return engine


class _File:
    """A SQLite file, and which one it was when it was first opened: a name may come to mean another file."""

    def __init__(self, url: str) -> None:
        path = make_url(url).database
        if not path or path == ":memory:":
            raise ValueError("an in-memory database cannot be shared between processes")
        if make_url(url).query:
            raise ValueError("what follows a question mark would be ignored; it is rather meant as part of the name")
        self.url = url
        self.path = Path(path).absolute()
        self._opened: tuple[int, int] | None = None

    def note_opened(self) -> None:
        """Remember the file, the first time that it is opened."""
        self._opened = self._opened or self._found()

    def forget(self) -> None:
        """Take whatever file is opened next."""
        self._opened = None

    @property
    def was_opened(self) -> bool:
        """Whether there is a file to hold on to."""
        return self._opened is not None

    @property
    def is_in_place(self) -> bool:
        """Whether the name still means the file that was opened."""
        return self._opened is None or self._found() == self._opened

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _sqlite_engine(opened: _File, read_only: bool) -> Engine:
    file = opened.path
    published = read_only and not os.access(file.parent, os.W_OK)

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rw" if opened.was_opened else "rwc"  # what was deleted is not made anew
        # In a folder that it cannot write SQLite reads a database in WAL mode only if told that nobody
        # else writes it either; true as long as there is no log of writes, so asked for every connection.
        if published and not file.with_name(file.name + "-wal").exists():
            mode += "&immutable=1"
        return sqlite3.connect(
            f"{file.as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    engine = create_engine(opened.url, creator=connect, poolclass=NullPool if published else None)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32000")
        opened.note_opened()

    # The driver's own transaction control is off: a transaction that will write takes the write lock
    # when it begins, where the busy timeout applies. Upgrading a read lock later would fail at once.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = read_only or connection.get_execution_options().get("vivace_read")
        if reads or not _begun_soon(connection, file):
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _begun_soon(connection: Connection, file: Path) -> bool:
    """Begin to write; where that is not possible soon, and a process that is stuck is why, say which."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(f"PRAGMA busy_timeout={1000 * TOLD_AFTER_S:.0f}")
    try:
        driver.execute("BEGIN IMMEDIATE")
        return True
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY and (stuck := stuck_writer(file)) is not None:
            _log.warning("The database cannot be written: %s.", stuck.sentence)
        return False
    finally:
        driver.execute(f"PRAGMA busy_timeout={1000 * BUSY_TIMEOUT_S:.0f}")
