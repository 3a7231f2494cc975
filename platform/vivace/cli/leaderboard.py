"""`vivace leaderboard`: every ended judging with its scores."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of


def leaderboard(
    track: Annotated[str | None, typer.Argument(help="Only this track.", show_default="all tracks")] = None,
    official: Annotated[bool, typer.Option("--official", help="Only official rows.")] = False,
    retracted: Annotated[bool, typer.Option("--retracted", help="Retracted runs too.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Figures that others published too; they were not run here.")
    ] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Print the leaderboard. Rows of different data or judges are never ranked together."""
    from vivace.cli.board_table import BOARD_COLUMNS, PUBLISHED_COLUMNS
    from vivace.published import published_figures
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries import board
    from vivace.tracks.registry import check_track_name

    if track is not None:
        check_track_name(track)
    opened = open_for_reading(settings_of(home, database))
    rows = [] if opened is None else board(
        opened, track, official_only=official, include_retracted=retracted
    )  # fmt: skip
    own = [row.as_json() for row in rows]
    others = [figure.as_json() for figure in published_figures(track)] if published else []
    if format in (Format.JSON, Format.CSV):
        print_rows([*own, *others], format, BOARD_COLUMNS)
        return
    if own or format is Format.MD:
        print_rows(own, format, BOARD_COLUMNS)
    else:
        say("The board is empty; `vivace demo` fills it with three example systems.")
    if others:
        say("Published by others, not run here, and not ranked:")
        print_rows(others, format, PUBLISHED_COLUMNS)
