"""`vivace plan regression`: what a regression job can notice with its size, before it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, percent, print_rows, say, settings_of

COLUMNS = {
    "flip by chance": lambda row: f"{percent(row['flips'])} %" + (" (measured)" if row["measured"] else ""),
    "conversations": lambda row: str(row["conversations"]),
    "figures": lambda row: str(row["metrics"]),
    "nights held against": lambda row: str(row["window"]),
    "drop noticed within two nights, 95 of 100": lambda row: (
        "none for sure" if row["noticeable"] is None else f"{percent(row['noticeable'])} points"
    ),
}

LOSSES = {
    "speed": lambda row: row["figure"],
    "prompts": lambda row: str(row["prompts"]),
    "figures": COLUMNS["figures"],
    "nights held against": COLUMNS["nights held against"],
    "spread of one prompt": lambda row: "–" if row["noise"] is None else f"{percent(row['noise'])} %",
    "loss noticed within two nights, 95 of 100": lambda row: (
        "none for sure" if row["noticeable"] is None else f"{percent(row['noticeable'])} %"
    ),
}


def plan_regression(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A judging or run of the size that is meant; with repeats also what chance does in it.",
            show_default="--conversations says the size",
        ),
    ] = None,
    conversations: Annotated[int | None, typer.Option("--conversations", min=1, help="How many.")] = None,
    metrics: Annotated[
        int, typer.Option("--figures", min=1, help="APR and ARS, of the whole and of each axis.")
    ] = 10,
    window: Annotated[int, typer.Option("--window", min=1, max=60, help="Accepted nights of the baseline.")] = 7,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, max=1.0, help="Of the gate quality.")] = 0.0,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Replies to each conversation.")] = 1,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Say how large a drop a regression job confirms within two nights, for what may flip by chance."""
    from vivace.analysis.comparison import reply_noise
    from vivace.errors import UsageError
    from vivace.regressions.jobs import GATES
    from vivace.regressions.smallest_drop import FLIPS, drops, losses
    from vivace.store.identifiers import find
    from vivace.store.migrate import open_for_reading
    from vivace.store.tables import Run
    from vivace_methods.families import FAMILIES

    measured = None
    if run is not None:
        opened = open_for_reading(settings_of(home, database))
        if opened is None:
            raise UsageError("There is no database yet, so there is no run to plan by; give --conversations.")
        with opened.read() as session:
            meant = find(session, run)
            of_arms = meant is not None and session.get_one(Run, meant.run).track in FAMILIES
        if meant is not None and of_arms:
            found = losses(opened, meant.run, window=window, tolerances=GATES)
            print_rows(found, format, LOSSES)
            say("By what its repeats vary within this run; nights of a machine that others use too vary more.")
            return
        counted, within = reply_noise(opened, run)
        conversations = conversations or counted
        measured = None if within is None else 2 * within
    if conversations is None:
        raise UsageError("Name a run of the size that is meant, or give --conversations.")
    shares = FLIPS if measured is None else (measured,)
    rows = [
        {**row, "measured": measured is not None}
        for row in drops(conversations, metrics, window=window, tolerance=tolerance, repeats=repeats, flips=shares)
    ]
    print_rows(rows, format, COLUMNS)
    if measured is None:
        say("How many flip by chance a run with --repeats tells; named here, it is planned by that.")
