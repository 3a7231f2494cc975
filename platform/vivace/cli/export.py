"""`vivace export`: every criterion of a judging with its verdict, for other tools."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, csv_text, say, settings_of, write_text


class ExportFormat(StrEnum):
    """How items are written."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"


def export(
    judging: Annotated[str, typer.Argument(help="A judging's or run's id, as the leaderboard's JSON shows it.")],
    format: Annotated[ExportFormat, typer.Option("--format", help="How items are written.")] = ExportFormat.JSONL,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file; its format is --format.", show_default="stdout"),
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write one row per criterion, with its verdict.

    Conversation, axis, sentence, verdict, reason, reply, times.
    """
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries import item_rows, judgings_of

    opened = open_for_reading(settings_of(home, database))
    found = [] if opened is None else judgings_of(opened, judging)
    if opened is None or not found:
        raise UsageError(f"There is no judging or run '{judging}'; `vivace leaderboard --format json` shows the ids.")
    rows = [row for one in found for row in item_rows(opened, one)]
    if format is ExportFormat.CSV:
        text = csv_text(rows)
    elif format is ExportFormat.JSON:
        text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        say(f"{len(rows)} criteria written to {output}")
