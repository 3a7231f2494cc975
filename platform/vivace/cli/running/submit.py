"""`vivace submit` and `submit-model`: validate a spec, queue it for a worker, print its id."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import ArtifactsOption, DatabaseOption, HomeOption, say, settings_of
from vivace.cli.running.remote import Server, ServerOption


def submit(
    file: Annotated[Path, typer.Argument(help="A YAML spec or suite; its keys are the flags of `vivace run`.")],
    queue: Annotated[str, typer.Option("--queue", help="The queue whose workers shall take it.")] = "default",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the spec, a.b=c. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="A new run, though this one is recorded.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Kept from all but owner and operator.")] = False,
    server: ServerOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Queue a spec or a suite for a worker, and print each id.

    It is validated first. With --server it is sent to somebody else's Vivace, with its recorded replies.
    """
    from vivace.cli.running.execution import specs_from
    from vivace.engine.submissions import submit as record

    flags = {"private": True} if private else {}
    if server is not None:
        _send(file, flags, assignments, server)
        return
    settings = settings_of(home, database, artifacts)
    for spec in specs_from(file, flags, assignments):
        opened, _, submission_id = record(spec, settings, queue=queue, force=force)
        opened.close()
        typer.echo(submission_id)
        say(f"queued in '{queue}'; `vivace worker` executes it, `vivace status {submission_id}` follows it")


def _send(file: Path, flags: dict[str, bool], assignments: list[str] | None, address: str) -> None:
    """Send a spec to a server, and print the submission's id there."""
    from vivace.spec import assign, read_spec_file

    values = {**read_spec_file(file), **flags}
    for assignment in assignments or []:
        assign(values, assignment)
    made = Server(address).submit(values)
    typer.echo(made["id"])
    say(f"queued there in place {made['position']}; `vivace status {made['id']} --server {address}` follows it")
