"""`vivace import`: a run that was generated or judged elsewhere becomes a run here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of


def import_(
    track: Annotated[str, typer.Argument(help="For instance audio-multichallenge.")],
    data: Annotated[str, typer.Option("--data", help="demo, a file or folder, or hub-id@revision.")],
    verdicts: Annotated[
        Path,
        typer.Option(
            "--verdicts",
            help="JSONL of id, response and criteria_met: a list of true, false or null, one per rubric item.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="The model's name, as the board shall show it.")],
    judge_name: Annotated[
        str | None, typer.Option("--judge-name", help="Who judged; needed where the file holds verdicts.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="A YAML file that describes the model.")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Record replies, and verdicts, that were made elsewhere.

    The run is marked as imported. Importing twice changes nothing.
    """
    from vivace.cli.board_table import board_table
    from vivace.cli.execution import Result, say_where
    from vivace.store.migrate import open_for_writing
    from vivace.store.queries.board import board
    from vivace.tracks.registry import find_track

    importing = find_track(track).prepare_import(data, verdicts, model, judge_name, card)
    settings = settings_of(home, database)
    opened = open_for_writing(settings)
    registered = importing.record(opened)
    if registered.judging_id is None:
        say(f"Run {registered.run_id} is recorded with its replies; the file holds no verdicts.")
        return
    rows = [row.as_json() for row in board(opened, include_retracted=True) if row.judging == registered.judging_id]
    print_rows(rows, format, board_table(rows))
    opened.close()
    say_where(Result(registered.run_id, registered.judging_id, track, 0, ""), settings)
