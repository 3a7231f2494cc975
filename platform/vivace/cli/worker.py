"""`vivace worker`: execute what is submitted."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import ArtifactsOption, DatabaseOption, HomeOption, say, settings_of


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", help="A queue to serve. Repeatable.", show_default="default"),
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is queued or running any more.")
    ] = False,
    lease: Annotated[
        float | None,
        typer.Option(
            "--lease",
            min=1.0,
            help="Seconds without a sign of life after which others take this worker's run over.",
            envvar="VIVACE_LEASE_SECONDS",
            show_default="15",
        ),
    ] = None,
    offer: Annotated[
        list[str] | None, typer.Option("--offer", help="A word that runs may need of this machine. Repeatable.")
    ] = None,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Start none; have those of the queues end after what they execute, and wait."),
    ] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Execute submissions, and the nights of jobs, one at a time.

    Takes over those of dead workers; Ctrl-C ends it gently.
    """
    from vivace.cli.execution import stop_on_ctrl_c
    from vivace.engine.worker import serve, wait_for_drained
    from vivace.machine.memory import give_memory_back
    from vivace.machine.offers import offers_here
    from vivace.regressions.shift import NightShift

    give_memory_back()
    settings = settings_of(home, database, artifacts)
    if lease is not None:
        settings = settings.model_copy(update={"lease_seconds": lease})
    queues = queue or ["default"]
    with stop_on_ctrl_c() as stop:
        if drain:
            wait_for_drained(settings, queues, stop, say)
            return
        serve(settings, queues, stop, NightShift(), offers=offers_here(offer or ()), until_empty=until_empty, say=say)
