"""`vivace status`: submissions and how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

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
from vivace.cli.running.remote import Server, ServerOption
from vivace.cli.tables.printing import ShownColumns

if TYPE_CHECKING:
    from vivace.store.database import Database


def _progress(row: dict[str, Any]) -> str:
    items = f"{row['items_done']}/{row['items_planned']}"
    if row["unit"] == "trials":
        return f"{items} trials"
    parts = f" in {row['parts_done']}/{row['parts']} parts" if row["parts"] > 1 else ""
    return f"{items}; {row['verdicts_done']}/{row['verdicts_planned']}{parts}"


def _worker(row: dict[str, Any]) -> str:
    if row["worker"] is None:
        return "–"
    if row["status"] != "running":
        return str(row["worker"])
    others = f" and {row['workers'] - 1} more" if row["workers"] > 1 else ""
    age = row["heartbeat_age_s"]
    return f"{row['worker']}{others} ({'gone' if age is None else f'{age:.0f} s ago'})"


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
    "labels": lambda row: ", ".join(row["labels"]) or "–",
    "message": lambda row: row["message"] or "",
}
DONE_THERE = "{replies_done}/{replies_planned}; {verdicts_done}/{verdicts_planned}"
THERE = ShownColumns(
    {
        **{key: COLUMNS[key] for key in ("submission", "status", "place", "model")},
        "replies; verdicts": lambda row: DONE_THERE.format(**row),
        "failed calls": lambda row: str(row["failed_calls"]),
        **{key: COLUMNS[key] for key in ("run", "message")},
    },
    prose=("message",),
)
"""Of submissions to somebody else's Vivace, which tells nothing of its workers."""
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
    label: Annotated[str, typer.Option("--label", help="Only runs that bear this label.", show_default="all")] = "",
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    server: ServerOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show submissions, how far they are, and how jobs stand.

    Place in the queue, worker and its last sign of life, items done, errors, time left.
    """
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.labels import labels
    from vivace.store.queries.submissions import submissions

    if server is not None:
        _tell_of_server(submission, columns, format, server)
        return
    settings = settings_of(home, database)
    opened = open_for_reading(settings)
    if opened is not None:
        _tell_stuck_writer(opened)
    labelled = {} if opened is None else labels(opened)
    rows = [] if opened is None else [
        {**view.as_json(), "labels": labelled.get(view.run, [])}
        for view in submissions(opened, submission)
        if not label or label in labelled.get(view.run, [])
    ]  # fmt: skip
    if submission is not None and not rows and not label:
        raise UsageError(f"There is no submission '{submission}'; `vivace status` lists them.")
    if not rows and format is Format.TABLE:
        what = f"Nothing bears the label '{label}'" if label else "Nothing is submitted yet"
        say(f"{what} in '{settings.database_name}'.")
        return
    print_rows(rows, format, TABLE, columns)
    if format is Format.TABLE and submission is None:
        _tell_jobs(opened)


def _tell_of_server(submission: str | None, columns: str, format: Format, address: str) -> None:
    """Submissions to somebody else's Vivace; of one that has ended, the scores with it."""
    from vivace.cli.common import print_json
    from vivace.cli.tables.board_table import board_table

    server = Server(address)
    if submission is None:
        print_rows(server.ask("GET", "/v1/submissions"), format, THERE, columns)
        return
    path = f"/v1/submissions/{quote(submission, safe='')}"
    row = server.ask("GET", path)
    results = server.ask("GET", f"{path}/results")
    if format is Format.JSON:
        print_json({**row, "scores": results["scores"], "conversations": results["conversations"]})
        return
    print_rows([row], format, THERE, columns)
    if results["scores"] and format is Format.TABLE:
        print_rows(results["scores"], format, board_table(results["scores"]))


def _tell_stuck_writer(database: Database) -> None:
    """A line where a process is frozen inside a write: which, and for how long its worker has been silent."""
    from vivace.engine.claims.leases import this_host
    from vivace.store.queries.submissions import silent_worker
    from vivace.store.write_lock import stuck_writer

    stuck = stuck_writer(database.path) if database.path is not None else None
    if stuck is not None:
        worker = silent_worker(database, this_host(), stuck.pid)
        silent = f"; it is worker {worker[0]}, silent for {worker[1]:.0f} s" if worker is not None else ""
        say(f"Nothing can be recorded: {stuck.sentence}{silent}.")


def _tell_jobs(database: Database | None) -> None:
    """A line for each regression job: its state, its last night, its open alert."""
    from vivace.store.queries.regressions import jobs

    for job in jobs(database, nights=20) if database is not None else []:
        night = job.last_night
        last = "" if night is None else f"; last night {night.at:%Y-%m-%d %H:%M} UTC: {night.outcome}"
        alert = next((one.message.splitlines()[0] for one in job.alerts if one.ended_at is None), "")
        say(f"Job {job.name}: {job.state}{last}{f'; {alert}' if alert else ''}")
