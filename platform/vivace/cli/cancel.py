"""`vivace cancel`: stop a submission; what is recorded stays."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


def cancel(
    submission: Annotated[str, typer.Argument(metavar="ID", help="A submission's or run's id.")],
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Cancel a submission. One that runs finishes its calls in flight first; nothing recorded is lost."""
    from vivace.engine.submissions import cancel as cancel_submission
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing

    settings = settings_of(home, database)
    if open_for_reading(settings) is None:
        raise UsageError(
            f"There is no submission '{submission}': nothing is recorded here yet; check --home and --database."
        )
    opened = open_for_writing(settings)
    say(cancel_submission(opened, submission))
    opened.close()
