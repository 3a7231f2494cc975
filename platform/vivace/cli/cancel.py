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
    from vivace.store.migrate import open_for_writing

    opened = open_for_writing(settings_of(home, database))
    say(cancel_submission(opened, submission))
    opened.close()
