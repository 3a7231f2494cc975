"""`vivace submit` and `submit-model`: validate a spec, queue it for a worker, print its id."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import ArtifactsOption, DatabaseOption, HomeOption, say, settings_of


def submit(
    file: Annotated[Path, typer.Argument(help="A YAML spec or suite; its keys are the flags of `vivace run`.")],
    queue: Annotated[str, typer.Option("--queue", help="The queue whose workers shall take it.")] = "default",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the spec, a.b=c. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="A new run, though this one is recorded.")] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Queue a spec or a suite for a worker, and print each id.

    It is validated first.
    """
    from vivace.cli.execution import specs_from
    from vivace.engine.submissions import submit as record

    settings = settings_of(home, database, artifacts)
    for spec in specs_from(file, {}, assignments):
        opened, _, submission_id = record(spec, settings, queue=queue, force=force)
        opened.close()
        typer.echo(submission_id)
        say(f"queued in '{queue}'; `vivace worker` executes it, `vivace status {submission_id}` follows it")
