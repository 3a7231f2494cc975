"""`vivace plan`: how many conversations a wanted difference needs."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, settings_of

COLUMNS = {
    "score": lambda row: row["metric"].upper(),
    "difference": lambda row: f"{100 * row['difference']:.1f} points",
    "conversations needed": lambda row: str(row["conversations_needed"]),
    "compared now": lambda row: str(row["conversations_compared"]),
    "detectable now": lambda row: f"{100 * row['detectable_now']:.1f} points",
}


def plan(
    a: Annotated[str, typer.Argument(help="A judging or run.")],
    b: Annotated[str, typer.Argument(help="Another, whose spread against the first is taken as typical.")],
    difference: Annotated[float, typer.Option("--difference", help="What shall be found, for instance 0.05.")],
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Say how many conversations a comparison needs. It finds a true difference 80 times in 100, at the 5 % level."""
    from vivace.comparison import plan as plan_comparison
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to plan by.")
    print_rows(plan_comparison(opened, a, b, difference), format, COLUMNS)
