"""`vivace db`: the database's schema, copies of it and back, and what may go from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.common import (
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.tables.printing import ShownColumns

app = typer.Typer(help="The database, its schema and backups.", no_args_is_help=True)

ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]

PRUNABLE = {
    "run": lambda row: row["run"],
    "model": lambda row: row["model"],
    "track": lambda row: row["track"],
    "why": lambda row: row["why"],
    "submission": lambda row: row["submission"] or "–",
    "replies": lambda row: str(row["replies"]),
    "trials": lambda row: str(row["trials"]),
    "calls": lambda row: str(row["calls"]),
    "last used": lambda row: row["last_used"][:10],
}


@app.command()
def upgrade(home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Create the database, or bring an old one to this Vivace's schema and write the summaries that it lacks."""
    from vivace.store import migrate
    from vivace.store.database import Database
    from vivace.tracks.dialogue.summaries.older_judgings import fill_summaries

    opened = Database(settings_of(home, database).database_url)
    changed = migrate.upgrade(opened)
    changed = bool(fill_summaries(opened)) or changed
    say("upgraded" if changed else "nothing to do")
    typer.echo(migrate.head())


@app.command()
def current(home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Print the schema revision the database is at, and whether that is this Vivace's."""
    from vivace.store import migrate
    from vivace.store.database import Database

    opened = Database(settings_of(home, database).database_url, read_only=True)
    state = migrate.state(opened)
    if state in ("missing", "empty"):
        say("there is no database yet; the first run creates it")
        return
    typer.echo(f"{migrate.revision(opened)} ({state}; this Vivace writes {migrate.head()})")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to: one SQLite file.")],
    force: ForceOption = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Copy the database as it is at one moment into a file, also while workers write.

    The file is a SQLite database that every verb can read; `vivace db restore` brings it back, into SQLite or
    PostgreSQL, whichever it came from. Recordings are artifacts, which lie apart and are not in it.
    """
    from vivace.upkeep.backup import back_up

    settings = settings_of(home, database)
    size = back_up(settings, file, overwrite=force)
    say(f"'{settings.database_name}' is copied to '{file}' ({size / 1e6:.1f} MB); artifacts are not in it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    force: ForceOption = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Put a backup in the place of the database, once it is found whole. A backup of an older schema is migrated.

    What --force replaces is kept as a backup in the home folder. Whoever is at work on it stops within its lease.
    """
    from vivace.upkeep.backup import restore as put_back

    settings = settings_of(home, database)
    kept = put_back(settings, file, overwrite=force)
    before = f" What it held before is kept in '{kept}'." if kept is not None else ""
    say(f"'{settings.database_name}' is restored from '{file}'.{before}")


@app.command()
def prune(
    days: Annotated[float, typer.Option("--days", min=0, max=36_500, help="Days for which everything stays.")] = 30.0,
    retracted: Annotated[bool, typer.Option("--retracted", help="Runs that were retracted, too.")] = False,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Files of the artifact store that no row refers to, too.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option("--grace", min=0, max=876_000, help="Hours for which a file stays that no row refers to yet."),
    ] = 24.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only named.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Name, and with --yes remove, old runs that never came onto a board, and files that nothing refers to.

    Never one that a board shows, that a regression job made or compares with, that bears a label, or that is queued
    or executed.
    """
    from vivace.store.artifacts import open_artifacts
    from vivace.store.migrate import open_for_reading, open_for_writing
    from vivace.upkeep import garbage
    from vivace.upkeep import prune as pruning

    settings = settings_of(home, database)
    opened = open_for_reading(settings)
    if opened is None:
        say(f"There is nothing in '{settings.database_name}' yet.")
        return
    if yes:
        opened = open_for_writing(settings)
    look = pruning.prune if yes else pruning.prunable
    rows: list[dict[str, Any]] = [one.as_json() for one in look(opened, days, retracted=retracted)]
    if rows or format is not Format.TABLE:
        print_rows(rows, format, ShownColumns(PRUNABLE))
    done = "removed" if yes else "would be removed; --yes does it"
    say(f"{len(rows)} runs {done}." if rows else "No run may go.")
    if artifacts:
        store = open_artifacts(settings)
        found = garbage.garbage(opened, store, grace)
        gone = garbage.collect(opened, store, grace) if yes else found.unreferenced
        size = sum(one.bytes for one in gone) / 1e6
        young = f"; {found.young} more are too young to tell" if found.young else ""
        say(f"{len(gone)} files ({size:.1f} MB) of '{store.name}' {done if gone else 'may go'}{young}.")
        if found.missing:
            say(f"{len(found.missing)} recordings that rows refer to are missing in '{store.name}'.")
    opened.close()
