"""`vivace visibility`: make a run private or public."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


class Visibility(StrEnum):
    """Who may see it."""

    PUBLIC = "public"
    PRIVATE = "private"


def visibility(
    run: Annotated[str, typer.Argument(help="A run, a judging or submission of it, or another tool's result.")],
    who: Annotated[Visibility, typer.Argument(help="public, or private: its owner and the operator alone see it.")],
    owner: Annotated[
        str | None, typer.Option("--owner", help="Give it to this person, by the name of a token or a login.")
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Make a run, or another tool's result, private or public.

    All that is made of it goes with it.
    """
    from vivace.engine.access.withholding import set_private
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing

    settings = settings_of(home, database)
    if open_for_reading(settings) is None:
        raise UsageError(f"There is no run '{run}': nothing is recorded here yet; check --home and --database.")
    opened = open_for_writing(settings)
    say(set_private(opened, run, who is Visibility.PRIVATE, owner))
    opened.close()
