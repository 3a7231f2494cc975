"""`vivace leaderboard`: every ended judging with its scores, and every arm of the efficiency tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_grouped,
    print_rows,
    say,
    settings_of,
)

if TYPE_CHECKING:
    from vivace.settings import Settings
    from vivace.store.database import Database


def leaderboard(
    track: Annotated[str | None, typer.Argument(help="Only this track.", show_default="all tracks")] = None,
    official: Annotated[bool, typer.Option("--official", help="Only official rows.")] = False,
    retracted: Annotated[bool, typer.Option("--retracted", help="Retracted ones too.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Figures that others published too; they were not run here.")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="What other tools measured, too, brought in by `vivace import --from`.")
    ] = False,
    label: Annotated[str, typer.Option("--label", help="Only runs that bear this label.", show_default="all")] = "",
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Print the leaderboard. Rows of different data or judges are never ranked together.

    Of the efficiency tracks (speculation, prefill, sparsity) it has the arms; ★ marks those that no other one beats.
    """
    from vivace.analysis.published import published_figures
    from vivace.cli.tables.arm_table import arm_table, print_arms
    from vivace.cli.tables.board_table import board_table, group_name, not_ranked
    from vivace.cli.tables.printing import chosen_headings
    from vivace.spec import check_track_name
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.board import board
    from vivace.store.queries.efficiency import arm_board
    from vivace.store.queries.foreign import foreign_board
    from vivace.store.queries.labels import labelled

    if track is not None:
        check_track_name(track)
    settings = settings_of(home, database)
    opened = open_for_reading(settings)
    rows = [] if opened is None else board(
        opened, track, official_only=official, include_retracted=retracted
    )  # fmt: skip
    ended = [] if opened is None else arm_board(
        opened, track, official_only=official, include_retracted=retracted
    )  # fmt: skip
    own, arms = (labelled(opened, label, [row.as_json() for row in found]) for found in (rows, ended))
    others = [figure.as_json() for figure in published_figures(track)] if published else []
    elsewhere = [] if opened is None or not foreign else [
        row.as_json() for row in foreign_board(opened, include_retracted=retracted)
    ]  # fmt: skip
    table = board_table(own)
    if format in (Format.JSON, Format.CSV):
        print_rows([*own, *others, *arms, *elsewhere], format, table, columns)
        return
    wanted = chosen_headings(columns, *([table] if own or not arms else []), *([arm_table(arms)] if arms else []))
    if own or (format is Format.MD and not arms):
        print_grouped(own, format, table, group_name, ",".join(name for name in wanted if name in table.columns))
    if format is Format.TABLE:
        for sentence in not_ranked(own):
            say(sentence)
    if arms:
        print_arms(arms, format, ",".join(name for name in wanted if name in arm_table(arms).columns))
    if not own and not arms and not elsewhere and format is not Format.MD:
        _say_that_nothing_is_there(settings, opened, track, official, retracted)
    _print_beside(others, elsewhere, format)


def _say_that_nothing_is_there(
    settings: Settings, opened: Database | None, track: str | None, official: bool, retracted: bool
) -> None:
    from vivace.store.queries.board import board
    from vivace.store.queries.efficiency import arm_board

    unofficial = 0
    if opened is not None and official:
        unofficial = len(board(opened, track, include_retracted=retracted))
        unofficial += len(arm_board(opened, track, include_retracted=retracted))
    if unofficial:
        say(f"No row is official; {unofficial} others are shown without --official, each with its reasons.")
    else:
        where = settings.database_name
        found = f"There is no board in '{where}' yet" if opened is None else f"The board of '{where}' is empty"
        say(f"{found}; `vivace demo` fills it with three example systems.")


def _print_beside(others: list[dict[str, Any]], elsewhere: list[dict[str, Any]], format: Format) -> None:
    """What was not run here, below the boards and never in them."""
    from vivace.cli.tables.board_table import PUBLISHED
    from vivace.cli.tables.foreign_table import FOREIGN_TABLE
    from vivace.output.foreign_texts import group_name as foreign_group_name

    if others:
        say("Published by others, not run here, and not ranked:")
        print_rows(others, format, PUBLISHED)
    if elsewhere:
        say("Measured by other tools, and not ranked:")
        print_grouped(elsewhere, format, FOREIGN_TABLE, foreign_group_name)
