"""`vivace retract`: take a run, or one judging of it, off the board, with the reason; or bring it back."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


def retract(
    run: Annotated[str, typer.Argument(help="A run, with all of its judgings, or one judging alone.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everyone to read.", show_default="")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Bring back what was retracted.")] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take a run or a judging off the board, or with --undo back.

    Its rows stay, and `vivace leaderboard --retracted` shows them with the reason.
    """
    from vivace.engine.access.retractions import restore
    from vivace.engine.access.retractions import retract as take_off
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing

    settings = settings_of(home, database)
    if undo and reason:
        raise UsageError("--undo takes no --reason: the log keeps that of the retraction.")
    if open_for_reading(settings) is None:
        raise UsageError(f"There is no run '{run}': nothing is recorded here yet; check --home and --database.")
    opened = open_for_writing(settings)
    say(restore(opened, run) if undo else take_off(opened, run, reason))
    opened.close()
