"""`vivace plan`: how many conversations or repeats a difference needs; a word after it asks for another plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of
from vivace.cli.running.plan_regression import plan_regression
from vivace.cli.running.plan_speculation import plan_speculation
from vivace.cli.verb import Verb

COLUMNS = {
    "score": lambda row: row["metric"].upper(),
    "difference": lambda row: f"{100 * row['difference']:.1f} points",
    "repeats": lambda row: "as now" if row["repeats"] is None else str(row["repeats"]),
    "conversations needed": lambda row: str(row["conversations_needed"]),
    "compared now": lambda row: str(row["conversations_compared"]),
    "detectable with these": lambda row: f"{100 * row['detectable_now']:.1f} points",
}

OTHERS: dict[str, Callable[..., Any]] = {"speculation": plan_speculation, "regression": plan_regression}
"""The words after `vivace plan` that ask for another plan, in place of a judging."""


class PlanVerb(Verb):
    """A verb that a word after it turns into another."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments, for whichever plan is asked for."""
        word = args[0] if args else ""
        if word not in OTHERS:
            return super().make_context(info_name, args, parent, **extra)
        program = typer.Typer(rich_markup_mode=None, add_completion=False)
        program.command(word, cls=Verb)(OTHERS[word])
        other = typer.main.get_command(program)
        return other.make_context(
            f"{info_name} {word}", args[1:], parent, auto_envvar_prefix=f"VIVACE_PLAN_{word.upper()}", **extra
        )


def plan(
    a: Annotated[str, typer.Argument(help="A judging or run.")],
    b: Annotated[
        str | None,
        typer.Argument(
            help="Another, whose spread against the first is taken as typical.", show_default="the first alone"
        ),
    ] = None,
    difference: Annotated[float, typer.Option("--difference", help="What shall be found, for instance 0.05.")] = 0.05,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Say how many conversations or repeats a comparison needs.

    It then finds a true difference 80 times in 100, at the 5 % level. `vivace plan speculation` says whether drafting
    ahead will pay on a model instead, `vivace plan regression` what a regression job can notice.
    """
    from vivace.analysis.comparison import plan as plan_comparison
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to plan by.")
    found = plan_comparison(opened, a, b, difference)
    print_rows(found.rows, format, COLUMNS)
    if found.between is None or found.within is None:
        say("How many repeats would do is not known: both need a run with --repeats, which splits the variance.")
        return
    say(
        f"Variance of a difference of pass rates: {found.between:.3f} between conversations, "
        f"{found.within:.3f} between replies to one conversation."
    )
    if found.repeats_needed is None:
        say(f"No number of repeats makes do with these {found.conversations} conversations.")
    else:
        say(f"With these {found.conversations} conversations it takes {found.repeats_needed} repeats.")
    if b is None:
        say("From one judging alone, a second system is taken to be as variable and to fail independently.")


plan.verb = PlanVerb  # type: ignore[attr-defined]
