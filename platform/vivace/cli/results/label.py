"""`vivace label`: give runs labels, and take them away."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vivace.cli.common import DatabaseOption, HomeOption, print_text, settings_of
from vivace.cli.verb import Verb


class LabelVerb(Verb):
    """A verb whose arguments may begin with a dash and are no options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


def label(
    run: Annotated[str, typer.Argument(help="A run's id, or that of one of its judgings or submissions.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[+LABEL|-LABEL]...", help="Labels to give and to take away.")
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Give a run labels or take some away, and print those it has.

    As in `vivace label 1f3a +nightly -old`. `vivace status --label nightly` and `vivace leaderboard --label nightly`
    show what bears one, and `vivace db prune` removes nothing that does.
    """
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading, open_for_writing
    from vivace.upkeep.labels import change

    settings = settings_of(home, database)
    if open_for_reading(settings) is None:
        raise UsageError(f"There is no run '{run}': nothing is recorded here yet; check --home and --database.")
    opened = open_for_writing(settings)
    for each in change(opened, run, changes or []):
        print_text(each)
    opened.close()


label.verb = LabelVerb  # type: ignore[attr-defined]
