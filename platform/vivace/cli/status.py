"""`vivace status`: submissions and how far they are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.tables import ShownColumns


def _progress(row: dict[str, Any]) -> str:
    items = f"{row['items_done']}/{row['items_planned']}"
    if row["unit"] == "trials":
        return f"{items} trials"
    return f"{items}; {row['verdicts_done']}/{row['verdicts_planned']}"


def _worker(row: dict[str, Any]) -> str:
    if row["worker"] is None:
        return "–"
    return f"{row['worker']} ({row['heartbeat_age_s']:.0f} s ago)" if row["status"] == "running" else row["worker"]


def _left(row: dict[str, Any]) -> str:
    return "–" if row["seconds_left"] is None else f"{row['seconds_left']:.0f} s"


COLUMNS = {
    "submission": lambda row: row["id"],
    "status": lambda row: row["status"],
    "queue": lambda row: row["queue"] or "(here)",
    "place": lambda row: str(row["position"] or "–"),
    "model": lambda row: row["model"],
    "replies; verdicts": _progress,
    "failed calls": lambda row: str(row["errors"]),
    "left": _left,
    "worker": _worker,
    "run": lambda row: row["run"],
    "message": lambda row: row["message"] or "",
}
TABLE = ShownColumns(
    COLUMNS,
    first=("submission", "status", "model", "replies; verdicts", "left", "message", "run"),
    cut=("model", "worker"),
    prose=("message",),
)


def status(
    submission: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A submission's or run's id.", show_default="all")
    ] = None,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show submissions and how far they are.

    Place in the queue, worker and its last sign of life, items done, errors, time left.
    """
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.submissions import submissions

    settings = settings_of(home, database)
    opened = open_for_reading(settings)
    rows = [] if opened is None else [view.as_json() for view in submissions(opened, submission)]
    if submission is not None and not rows:
        raise UsageError(f"There is no submission '{submission}'; `vivace status` lists them.")
    if not rows and format is Format.TABLE:
        say(f"Nothing is submitted yet in '{settings.database_name}'.")
        return
    print_rows(rows, format, TABLE, columns)
