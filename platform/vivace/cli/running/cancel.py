"""`vivace cancel`: stop a submission; what is recorded stays."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of
from vivace.cli.running.remote import Server, ServerOption


def cancel(
    submission: Annotated[str, typer.Argument(metavar="ID", help="A submission's or run's id.")],
    server: ServerOption = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Cancel a submission. One that runs finishes its calls in flight first; nothing recorded is lost."""
    from vivace.engine.submissions import cancel as cancel_submission
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing

    if server is not None:
        ended = Server(server).ask("POST", f"/v1/submissions/{quote(submission, safe='')}/cancel")
        say(f"Submission {ended['id']} is {ended['status']} there.")
        return
    settings = settings_of(home, database)
    if open_for_reading(settings) is None:
        raise UsageError(
            f"There is no submission '{submission}': nothing is recorded here yet; check --home and --database."
        )
    opened = open_for_writing(settings)
    say(cancel_submission(opened, submission))
    opened.close()
