"""`vivace logs`: everything that happened to a run."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, settings_of
from vivace.cli.tables.printing import ShownColumns

COLUMNS = {
    "time": lambda row: row["at"][:19].replace("T", " "),
    "level": lambda row: row["level"],
    "message": lambda row: row["message"],
}


def logs(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="A submission's or run's id.")],
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show a run's log. Submissions, workers, takeovers, failed calls and how it ended."""
    from vivace.errors import UsageError
    from vivace.store.identifiers import run_of
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.log import log

    opened = open_for_reading(settings_of(home, database))
    run = None if opened is None else run_of(opened, identifier)
    if opened is None or run is None:
        raise UsageError(f"There is no submission or run '{identifier}'; `vivace status` lists them.")
    lines = [{"at": line.at.isoformat(), "level": line.level, "message": line.message} for line in log(opened, run)]
    print_rows(lines, format, ShownColumns(COLUMNS, prose=("message",)))
