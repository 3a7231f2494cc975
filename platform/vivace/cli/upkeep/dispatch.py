"""`vivace dispatch`: start workers where the hardware is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import (
    ArtifactsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_rows,
    say,
    settings_of,
)

PLANNED = {
    "workers": lambda row: str(row["workers"]),
    "command": lambda row: row["command"],
    "variables": lambda row: ", ".join(row["variables"]),
    "options": lambda row: ", ".join(f"{name}={value}" for name, value in row["options"].items()) or "–",
}
STARTED = {"id": lambda row: row["id"], "where": lambda row: row["where"]}


def dispatch(
    spec: Annotated[Path, typer.Argument(help="A YAML file: how many, of which queues, and each place's own.")],
    to: Annotated[str, typer.Option("--to", help="The place: local, slurm or hf-jobs.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="How many.", show_default="as the file says")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be started.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Start workers where the hardware is, and print their ids.

    On this machine, on a Slurm cluster, or as jobs of the Hugging Face hub. Database, artifacts and the variables
    that the file names reach them through their environment alone.
    """
    from vivace.dispatch.orders import Environment, check_reach, read_order, shown
    from vivace.dispatch.registry import TARGETS
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_writing
    from vivace_methods.plugins import PluginError

    settings = settings_of(home, database, artifacts)
    try:
        target = TARGETS[to]()
    except PluginError as error:
        raise UsageError(str(error)) from error
    order, options = read_order(spec, to, target, workers, TARGETS)
    if getattr(options, "cluster", "") != "local":
        check_reach(target, settings)
    environment = Environment.of(order, settings)
    if dry_run:
        print_rows([shown(order, options, environment)], format, PLANNED)
        return
    open_for_writing(settings).close()
    print_rows([vars(one) for one in target.start(order, options, environment, settings)], format, STARTED)
    say(f"{order.workers} workers are on their way; `vivace status` shows what they take.")
