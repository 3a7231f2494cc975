"""`vivace db`: the database's schema."""

from __future__ import annotations

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command()
def upgrade(home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Create the database, or bring an old one to this Vivace's schema."""
    from vivace.store import migrate
    from vivace.store.database import Database
    from vivace.tracks.dialogue.summaries.filling import fill_summaries

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
