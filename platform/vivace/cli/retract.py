"""`vivace retract`: take a run off the board, with the reason."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


def retract(
    run: Annotated[str, typer.Argument(help="A run's or judging's id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everyone to read.")],
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take a run off the board. Its rows stay, and `vivace leaderboard --retracted` shows them with the reason."""
    from vivace.engine.submissions import retract as retract_run
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing

    settings = settings_of(home, database)
    if open_for_reading(settings) is None:
        raise UsageError(f"There is no run '{run}': nothing is recorded here yet; check --home and --database.")
    opened = open_for_writing(settings)
    retract_run(opened, run, reason)
    opened.close()
    say(f"Run {run} is retracted.")
