"""Opening the results database: engines, transactions and the rules that keep SQLite from ever saying "locked"."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from vivace.errors import UsageError

BUSY_TIMEOUT_S = 60.0
"""How long a SQLite statement waits for another process's write to end."""


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
            self.engine = _sqlite_engine(url, read_only) if self.is_sqlite else _server_engine(url)
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            raise UsageError(
                f"The database URL '{redacted(url)}' cannot be understood; "
                "give a path, sqlite:///FILE or postgresql://USER@HOST/NAME."
            ) from error

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
        except DBAPIError as error:
            raise UsageError(
                f"The database '{redacted(self.url)}' cannot be opened ({_first_line(error)}); "
                "check --database, --home and the permissions of the folder."
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def redacted(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig) if error.orig else str(error)).strip().splitlines()[0]


def _server_engine(url: str) -> Engine:
    return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})


def _sqlite_engine(url: str, read_only: bool) -> Engine:
    path = make_url(url).database
    if not path or path == ":memory:":
        raise ValueError("an in-memory database cannot be shared between processes")

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        return sqlite3.connect(
            f"{Path(path).absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    engine = create_engine(url, creator=connect)

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
