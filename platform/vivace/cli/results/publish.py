"""`vivace publish`: the boards as a folder of pages, for any web space or for a Space of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.common import DatabaseOption, HomeOption, say, settings_of


def publish(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one of an earlier call, whose place it takes.")],
    title: Annotated[str, typer.Option("--title", help="Of the site.")] = "Vivace leaderboard",
    audio: Annotated[bool, typer.Option("--audio", help="Put recordings beside the pages, too.")] = False,
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Leave out what was said and replied: scores alone.")
    ] = False,
    space: Annotated[
        bool, typer.Option("--space", help="As the folder of a static Space of the Hugging Face hub.")
    ] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write the boards as a folder of pages that needs no server.

    Every judging and every conversation has a page, and none needs a network or a script. What was retracted is left
    out, and so are private runs and the items of hidden sets. Whoever sees the folder sees all that is in it: the
    conversations of a set that may not be passed on are left out with --scores-only.
    """
    from vivace.cli.tables.arm_table import arm_group_name, arm_table
    from vivace.cli.tables.board_table import PUBLISHED, board_table, group_name
    from vivace.cli.tables.foreign_table import FOREIGN_COLUMNS
    from vivace.errors import UsageError
    from vivace.output.foreign_texts import group_name as foreign_group_name
    from vivace.publishing.site import Look
    from vivace.publishing.site import publish as write
    from vivace.store.artifacts import open_artifacts
    from vivace.store.migrate import open_for_reading
    from vivace.store.visibility import NOBODY

    if scores_only and audio:
        raise UsageError("--scores-only leaves out the conversations that --audio is for: take one of the two.")
    settings = settings_of(home, database)
    opened = open_for_reading(settings)
    if opened is None:
        raise UsageError(f"There is no board in '{settings.database_name}' yet, so nothing to publish.")
    look = Look(
        lambda rows: board_table(rows).columns, group_name, lambda rows: arm_table(rows).columns, arm_group_name,
        PUBLISHED.columns, FOREIGN_COLUMNS, foreign_group_name,
    )  # fmt: skip
    pages = write(
        opened.seen_by(NOBODY),
        folder.absolute(),
        look,
        title=title,
        artifacts=open_artifacts(settings) if audio else None,
        with_conversations=not scores_only,
        space=space,
    )
    say(f"{pages} pages are in {folder}; open {folder / 'index.html'}.")
