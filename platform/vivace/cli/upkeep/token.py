"""`vivace token`: make, list and revoke the tokens that open the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of

app = typer.Typer(help="Tokens that open the API.", no_args_is_help=True)

COLUMNS = {
    "name": lambda row: row["name"],
    "owner": lambda row: row["owner"] or "–",
    "scopes": lambda row: ", ".join(row["scopes"]),
    "made": lambda row: row["created_at"][:10],
    "expires": lambda row: (row["expires_at"] or "never")[:10],
    "state": lambda row: row["state"],
}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="By which it is listed and revoked.")],
    owner: Annotated[
        str | None, typer.Option("--owner", help="Whose it is, as a login names them.", show_default="the name")
    ] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="submit, read or admin. Repeatable.", show_default="submit and read"),
    ] = None,
    days: Annotated[float, typer.Option("--days", min=0, help="Until it expires; 0 for never.")] = 90,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    from vivace.engine.access.tokens import create_token
    from vivace.store.migrate import open_for_writing

    opened = open_for_writing(settings_of(home, database))
    token = create_token(opened, name, scopes or ["submit", "read"], owner=owner, days=days or None)
    opened.close()
    _print_unmasked(token)
    say("It is not shown again. Its holder sets it as VIVACE_TOKEN.")


@app.command("list")
def list_(format: FormatOption = Format.TABLE, home: HomeOption = None, database: DatabaseOption = None) -> None:
    """List the tokens, without what would open anything."""
    from vivace.engine.access.tokens import tokens
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    rows: list[dict[str, Any]] = [] if opened is None else tokens(opened)
    if not rows and format is Format.TABLE:
        say("There are no tokens; `vivace token create NAME` makes one.")
        return
    print_rows(rows, format, COLUMNS)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The token's name.")],
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take a token back, at once."""
    from vivace.engine.access.tokens import revoke_token
    from vivace.store.migrate import open_for_writing

    opened = open_for_writing(settings_of(home, database))
    revoke_token(opened, name)
    opened.close()
    say(f"The token '{name}' opens nothing any more.")


def _print_unmasked(token: str) -> None:
    """Print a token to whoever has asked for it: everywhere else the programs mask what looks like one."""
    import os
    import sys

    sys.stdout.flush()
    os.write(1, f"{token}\n".encode())
