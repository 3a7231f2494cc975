"""`vivace worker`: execute what is submitted."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from vivace.cli.common import (
    ArtifactsOption,
    DatabaseOption,
    HomeOption,
    LogFilesOption,
    LogOption,
    LogSizeOption,
    say,
    settings_of,
)

LeaseOption = Annotated[
    float | None,
    typer.Option(
        "--lease",
        min=1.0,
        help="Seconds without a sign of life after which others take this worker's run over.",
        envvar="VIVACE_LEASE_SECONDS",
        show_default="15",
    ),
]
WatchOption = Annotated[
    str,
    typer.Option(
        "--watch",
        metavar="HOST:PORT",
        help="Serve /metrics for Prometheus, /health/live and /health/ready there.",
        show_default="nowhere",
    ),
]


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", help="A queue to serve. Repeatable.", show_default="default"),
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is queued or running any more.")
    ] = False,
    lease: LeaseOption = None,
    offer: Annotated[
        list[str] | None, typer.Option("--offer", help="A word that runs may need of this machine. Repeatable.")
    ] = None,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Start none; have those of the queues end after what they execute, and wait."),
    ] = False,
    watch: WatchOption = "",
    log: LogOption = None,
    log_size: LogSizeOption = 10,
    log_files: LogFilesOption = 5,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Execute submissions, and the nights of jobs, one at a time.

    Takes over those of dead workers; Ctrl-C ends it gently.
    """
    from vivace.cli.running.execution import stop_on_ctrl_c
    from vivace.engine.worker import serve, wait_for_drained
    from vivace.machine.memory import give_memory_back
    from vivace.machine.offers import offers_here
    from vivace.output.rotation import rotating_log
    from vivace.regressions.shift import NightShift
    from vivace.upkeep.health import served

    give_memory_back()
    settings = settings_of(home, database, artifacts)
    if lease is not None:
        settings = settings.model_copy(update={"lease_seconds": lease})
    queues = queue or ["default"]
    with stop_on_ctrl_c() as stop, ExitStack() as around:
        if drain:
            wait_for_drained(settings, queues, stop, say)
            return
        write = around.enter_context(rotating_log(log, log_size, log_files)) if log is not None else None

        def tell(message: str) -> None:
            say(message)
            if write is not None:
                write(message)

        if watch:
            tell(f"figures and health are at {around.enter_context(served(settings, watch, _beats))}")
        offers = offers_here(offer or ())
        serve(settings, queues, stop, NightShift(), offers=offers, until_empty=until_empty, say=tell)


def _beats() -> bool:
    """Whether this worker still gives signs of life."""
    return any(thread.name == "heartbeat" and thread.is_alive() for thread in threading.enumerate())
