"""`vivace reproduce`: the commands that make a run again, and what has changed since."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, print_json, print_text, say, settings_of


class ReproduceFormat(StrEnum):
    """How it is printed."""

    SH = "sh"
    JSON = "json"


def reproduce(
    run: Annotated[str, typer.Argument(help="A run, a judging of it, or a submission.")],
    format: Annotated[
        ReproduceFormat, typer.Option("--format", help="A shell script, or data.")
    ] = ReproduceFormat.SH,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Print the commands that make a run again.

    The script goes to stdout. What is not now as it was then goes to stderr: code, packages, Python, hardware,
    data, judge.
    """
    from vivace.analysis.reproduction import reproduction
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to reproduce.")
    found = reproduction(opened, run)
    if format is ReproduceFormat.JSON:
        print_json(found.as_json())
        return
    print_text("\n".join(found.commands))
    if not found.changes:
        say("Nothing that is recorded has changed since.")
        return
    say("Not as it was then:")
    for change in found.changes:
        say(f"  {change.what}: {change.then} → {change.now}")
