"""`vivace import`: runs judged elsewhere, and what other tools measured, come onto a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of
from vivace.interchange.forms import Form


def import_(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACK|FILE",
            help="For instance audio-multichallenge; with --from files of another tool, or folders of them.",
        ),
    ],
    form: Annotated[
        Form | None,
        typer.Option(
            "--from",
            metavar="FORM",
            help="lm-eval: results_….json, and samples_….jsonl. inspect: .eval logs. every-eval-ever: records and "
            "their lines. eval-results: YAML of a model's card. items: what `vivace export` wrote of such a result.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Of a track: demo, a file or folder, or hub-id@revision.")
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(
            "--verdicts",
            help="Of a track: JSONL of id, response and criteria_met, a list of true, false or null, one per rubric "
            "item; or what `vivace export` wrote of a judging.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model's name, as the board shall show it, where the file names none."),
    ] = None,
    judge_name: Annotated[
        str | None, typer.Option("--judge-name", help="Who judged; needed where the file holds verdicts without it.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="A YAML file that describes the model.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Keep it from all but its owner and the operator.")
    ] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Record what was run, judged or measured elsewhere.

    Replies and verdicts of a track, whose run is marked as imported; or with --from what another tool measured, which
    stands on a board of its own (`vivace leaderboard --foreign`) with its tool, version and task. Importing twice
    changes nothing.
    """
    from vivace.errors import UsageError

    if form is not None:
        if data is not None or verdicts is not None or judge_name is not None or card is not None:
            raise UsageError("--data, --verdicts, --judge-name and --card are of a track's verdicts, not of --from.")
        _import_foreign(form, [Path(each) for each in what], model, private, format, home, database)
        return
    if len(what) > 1:
        raise UsageError(
            f"Verdicts are of one track, and here are {len(what)} names; files of other tools take --from."
        )
    _import_run(what[0], data, verdicts, model, judge_name, card, private, format, home, database)


def _import_foreign(
    form: Form,
    paths: list[Path],
    model: str | None,
    private: bool,
    format: Format,
    home: Path | None,
    database: str | None,
) -> None:
    from vivace.cli.tables.foreign_table import FOREIGN_TABLE
    from vivace.interchange.foreign_results import import_results, read_results
    from vivace.store.migrate import open_for_writing
    from vivace.store.queries.foreign import foreign_board
    from vivace.store.visibility import Ownership

    files = read_results(form, paths, model)  # before a database is made
    opened = open_for_writing(settings_of(home, database))
    imported = import_results(opened, files, Ownership(private=private))
    rows = [row.as_json() for row in foreign_board(opened, include_retracted=True) if row.result in imported.ids]
    print_rows(rows, format, FOREIGN_TABLE)
    opened.close()
    known = len(imported.ids) - imported.new
    say(
        f"{imported.new} results are recorded"
        + (f", {known} were before" if known else "")
        + "; `vivace leaderboard --foreign` shows them beside the boards."
    )


def _import_run(
    track: str,
    data: str | None,
    verdicts: Path | None,
    model: str | None,
    judge_name: str | None,
    card: Path | None,
    private: bool,
    format: Format,
    home: Path | None,
    database: str | None,
) -> None:
    from vivace.cli.running.execution import Result, say_where
    from vivace.cli.tables.board_table import board_table
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_writing
    from vivace.store.queries.board import board
    from vivace.store.visibility import Ownership
    from vivace.tracks.registry import find_track

    found = find_track(track)
    if data is None or verdicts is None:
        raise UsageError(
            "A run that was judged elsewhere takes --data and --verdicts; files of other tools take --from."
        )
    importing = found.prepare_import(data, verdicts, model, judge_name, card)
    settings = settings_of(home, database)
    opened = open_for_writing(settings)
    registered = importing.record(opened, Ownership(private=private))
    if registered.judging_id is None:
        say(f"Run {registered.run_id} is recorded with its replies; the file holds no verdicts.")
        return
    rows = [row.as_json() for row in board(opened, include_retracted=True) if row.judging == registered.judging_id]
    print_rows(rows, format, board_table(rows))
    opened.close()
    say_where(Result(registered.run_id, registered.judging_id, track, 0, ""), settings)
