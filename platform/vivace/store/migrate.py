"""Bringing a database to the schema this code knows, or refusing it with a sentence.

Alembic is loaded only where an old database is migrated: most commands meet one that is missing or current.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

import vivace_migrations
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store.database import Database, redacted
from vivace.store.tables import Base

if TYPE_CHECKING:
    from alembic.config import Config

OUR_TABLES = {"run", "model", "verdict"}
"""By these a database is known for one of ours, whatever its revision."""

State = Literal["missing", "empty", "current", "old", "newer", "foreign"]


_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Where Alembic notes the revision, as it makes the table itself."""


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _scripts().as_posix().replace("%", "%%"))
    return config


def _scripts() -> Path:
    return Path(next(iter(vivace_migrations.__path__)))


def _revisions() -> list[str]:
    """All revisions that this code knows, in order; the files of the migrations begin with them."""
    return sorted(path.name.partition("_")[0] for path in (_scripts() / "versions").glob("[0-9]*.py"))


def head() -> str:
    """The schema revision that this code writes; also DBOS's application version."""
    return _revisions()[-1]


def revision(database: Database) -> str | None:
    """The schema revision that the database is at; None where it holds none of our tables."""
    with database.engine.execution_options(vivace_read=True).connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    found: str | None = connection.scalar(select(_VERSION.c.version_num))
    return found


def state(database: Database) -> State:
    """What the database is to this code.

    Raises:
        UsageError: it cannot be opened at all.
    """
    if database.path is not None and not database.path.exists():
        return "missing"
    database.check_connection()
    # Tables before the revision: a schema that another process completes in between must not look foreign.
    tables = set(inspect(database.engine).get_table_names()) - {_VERSION.name}
    found = revision(database)
    if found == head():
        return "current"
    if found is None:
        return "foreign" if tables & OUR_TABLES or (tables and database.is_sqlite) else "empty"
    if found in _revisions():
        return "old"
    return "newer" if tables >= OUR_TABLES else "foreign"


def upgrade(database: Database) -> bool:
    """Create or migrate the schema; whether there was anything to do.

    Raises:
        UsageError: the database is newer than this code, or is not one of ours.
    """
    found = _state_before_writing(database)
    if found in ("newer", "foreign"):
        refuse(database, found)
    make_folder(database)
    if found != "current":
        _run_migrations(database)
    return found != "current"


def _state_before_writing(database: Database) -> State:
    """The state, read without a trace: opening another program's SQLite file for writing would change it."""
    probe = Database(database.url, read_only=True)
    try:
        return state(probe)
    finally:
        probe.close()


def _run_migrations(database: Database) -> None:
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if database.is_sqlite:
            # Alembic rewrites SQLite tables; with foreign keys on, that would cascade into their children. The
            # driver itself is told, because inside a transaction the pragma does nothing.
            driver.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            if not database.is_sqlite:
                # Two processes that create the schema at once: the second waits, and then finds it there.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7265481)")
            if inspect(connection).has_table(_VERSION.name):
                if not database.is_sqlite:
                    wait_for_writes(connection)
                _migrate(connection)
            else:
                _create(connection)
        if database.is_sqlite:
            driver.execute("PRAGMA foreign_keys=ON")


def wait_for_writes(connection: Connection) -> None:
    """On PostgreSQL, let the writes under way end, and none begin until this transaction ends.

    Each write reads the revision first, under a lock that this one waits for.
    """
    connection.exec_driver_sql(f"LOCK TABLE {_VERSION.name} IN ACCESS EXCLUSIVE MODE")


def _migrate(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _create(connection: Connection) -> None:
    """Make the tables as the models say, which is what the migrations come to."""
    Base.metadata.create_all(connection, checkfirst=False)
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=head()))


def open_for_writing(settings: Settings) -> Database:
    """The database for verbs that write: created when missing, refused when old, newer or foreign.

    Raises:
        UsageError: refused, or the home folder cannot be written.
    """
    database = Database(settings.database_url)
    found = _state_before_writing(database)
    if found not in ("missing", "empty", "current"):
        refuse(database, found)
    _make(settings.home)
    make_folder(database)
    if found != "current":
        _run_migrations(database)
    return database


def make_folder(database: Database) -> None:
    """Make the folder of a SQLite file.

    Raises:
        UsageError: it cannot be written.
    """
    if database.path is not None:
        _make(database.path.parent)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"The folder '{folder}' cannot be written ({error.strerror}); give another with --home or --database."
        ) from error


def open_for_reading(settings: Settings) -> Database | None:
    """The database for verbs that read, opened read-only; None where there is nothing yet.

    Raises:
        UsageError: it is old, newer than this code, or not one of ours.
    """
    database = Database(settings.database_url, read_only=True)
    found = state(database)
    if found in ("missing", "empty"):
        return None
    if found != "current":
        refuse(database, found)
    return database


def refuse(database: Database, found: State) -> NoReturn:
    """Say why this database is not opened.

    Raises:
        UsageError: always.
    """
    url = redacted(database.url)
    if found == "old":
        raise UsageError(
            f"The database '{url}' is at schema {revision(database)} and this Vivace needs {head()}; "
            "back it up and run `vivace db upgrade`."
        )
    if found == "newer":
        raise UsageError(
            f"The database '{url}' is at schema {revision(database)}, which this Vivace (schema {head()}) "
            "does not know; install the newer Vivace that wrote it."
        )
    raise UsageError(f"The database '{url}' holds tables that Vivace did not make; give another --database.")
