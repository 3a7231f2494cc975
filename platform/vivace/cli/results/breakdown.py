"""`vivace breakdown`: one judging's scores by axis, number of turns, seconds of audio, or speaker."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    percent,
    print_rows,
    settings_of,
)
from vivace.cli.results.compare import ByChoice, slice_name
from vivace.cli.tables.printing import ShownColumns


def _rate(row: dict[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return percent(row[metric]) + ("" if low is None else f" [{percent(low)}–{percent(high)}]")


COLUMNS = {
    "of": lambda row: slice_name(row["slice"], row["by"]),
    "APR %": lambda row: _rate(row, "apr"),
    "ARS %": lambda row: _rate(row, "ars"),
    "coverage %": lambda row: percent(row["coverage"]),
    "conversations": lambda row: str(row["conversations"]),
    "replies": lambda row: str(row["replies"]),
}
TABLE = ShownColumns(COLUMNS, first=tuple(COLUMNS), cut=("of",))


def breakdown(
    judging: Annotated[str, typer.Argument(help="A judging or run.")],
    by: Annotated[ByChoice, typer.Option("--by", help="What the scores are broken down by.")] = ByChoice.AXIS,
    axis: Annotated[
        str | None, typer.Option("--axis", help="Only this axis, for instance SELF_COHERENCE.", show_default="all")
    ] = None,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Print APR and ARS of parts of the data. Seconds of audio are cut into bins of equally many conversations."""
    from vivace.analysis.breakdown import breakdown as break_down
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to break down.")
    print_rows([row.as_json() for row in break_down(opened, judging, by.value, axis)], format, TABLE, columns)
