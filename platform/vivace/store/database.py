"""Opening the results database: engines, transactions and the rules that keep SQLite from ever saying "locked"."""

from __future__ import annotations

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
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from vivace.errors import UsageError, VivaceError
from vivace.output.secrets import masked, note_password

BUSY_TIMEOUT_S = 60.0
"""How long a SQLite statement waits for another process's write to end."""


class DatabaseUnavailableError(VivaceError):
    """The database cannot be read or written at the moment: the disk is full, or the server is away."""


class Database:
    """A results database: `write()` and `read()` give sessions, each one short transaction.

    Args:
        url: a SQLAlchemy URL, SQLite or PostgreSQL.
        read_only: open SQLite with `mode=ro`, so that a reader can neither write nor wait for the writer.

    Raises:
        UsageError: the URL cannot be understood, or its file or server cannot be opened.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url
        self.read_only = read_only
        try:
            parsed = make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            note_password(str(parsed.password or ""), parsed.username, parsed.database, parsed.host)
            self.engine = _sqlite_engine(url, read_only) if self.is_sqlite else _server_engine(url)
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
        """One write transaction, committed on leaving and rolled back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One read transaction: all its queries see the same state."""
        with Session(self.engine.execution_options(vivace_read=True), expire_on_commit=False) as session:
            yield session

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

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _say_what_is_wrong(self, context: ExceptionContext) -> None:
        """Turn what the driver says of the machine (not of a statement) into a sentence for people."""
        if context.is_pre_ping:
            return  # the pool opens a new connection in place of one that has gone stale
        if _is_trouble_of_the_machine(context.original_exception):
            raise DatabaseUnavailableError(
                f"The database '{redacted(self.url)}' cannot be used ({_first_line(context.original_exception)}); "
                "once that is mended, the same command goes on where it stopped."
            ) from context.original_exception


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


def _is_trouble_of_the_machine(error: BaseException | None) -> bool:
    """Whether disk, permissions, server or network are at fault, and not the statement."""
    if isinstance(error, sqlite3.Error):
        # The driver calls wrong SQL an OperationalError too; the low byte of the code tells them apart.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_TROUBLES
    psycopg = sys.modules.get("psycopg")  # loaded by whatever raises its errors
    if psycopg is not None and isinstance(error, psycopg.Error):
        return isinstance(error, psycopg.OperationalError) or error.sqlstate == _READ_ONLY_TRANSACTION
    return False


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _server_engine(url: str) -> Engine:
    return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})


def _sqlite_engine(url: str, read_only: bool) -> Engine:
    path = make_url(url).database
    if not path or path == ":memory:":
        raise ValueError("an in-memory database cannot be shared between processes")
    if make_url(url).query:
        raise ValueError("what follows a question mark would be ignored; it is rather meant as part of the name")

    file = Path(path).absolute()
    published = read_only and not os.access(file.parent, os.W_OK)

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
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

    engine = create_engine(url, creator=connect, poolclass=NullPool if published else None)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32000")

    # The driver's own transaction control is off: a transaction that will write takes the write lock
    # when it begins, where the busy timeout applies. Upgrading a read lock later would fail at once.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = read_only or connection.get_execution_options().get("vivace_read")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
