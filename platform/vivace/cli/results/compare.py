"""`vivace compare`: is one system better than another on the same conversations?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    percent,
    print_json,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.tables.board_table import SHORT_AXES
from vivace.cli.tables.differences import interval, p_value, points
from vivace.cli.tables.printing import ShownColumns

if TYPE_CHECKING:
    from vivace.analysis.comparison import JudgingComparison


class ByChoice(StrEnum):
    """What conversations are sorted by."""

    AXIS = "axis"
    TURNS = "turns"
    SECONDS = "seconds"
    SPEAKER = "speaker"


class CorrectionChoice(StrEnum):
    """How p-values of one family are corrected."""

    HOLM = "holm"
    BH = "bh"


def slice_name(name: str, by: str) -> str:
    """A slice as the tables name it: a short axis, "4 turns", a span of seconds, a speaker, or "all"."""
    return SHORT_AXES.get(name, f"{name} turns" if by == "turns" and name.isdigit() else name or "all")


COLUMNS = {
    "a": lambda row: row["a"],
    "b": lambda row: row["b"],
    "score": lambda row: row["metric"].upper(),
    "of": lambda row: slice_name(row["slice"], row["by"]),
    "a %": lambda row: percent(row["value_a"]),
    "b %": lambda row: percent(row["value_b"]),
    "b − a": lambda row: points(row["difference"]),
    "95 %": interval,
    "p": lambda row: p_value(row["p_value"]),
    "p (family)": lambda row: p_value(row["p_adjusted"]),
    "better / worse": lambda row: f"{row['gained']} / {row['lost']}",
    "n": lambda row: str(row["n"]),
    "detectable": lambda row: percent(row["detectable"]),
}
TABLE = ShownColumns(
    COLUMNS, first=("score", "of", "b − a", "95 %", "p (family)", "a", "b", "n", "a %", "b %"), cut=("a", "b", "of")
)


def compare(
    judgings: Annotated[
        list[str],
        typer.Argument(
            metavar="JUDGINGS OR FILES",
            help="Judgings or runs, or files of inspect (.eval) and lm-eval (samples_….jsonl); each is compared with "
            "the first.",
        ),
    ],
    correction: Annotated[
        CorrectionChoice,
        typer.Option("--correction", help="holm: no false alarm in the family; bh: few among the alarms."),
    ] = CorrectionChoice.HOLM,
    by: Annotated[ByChoice, typer.Option("--by", help="What the scores are broken down by.")] = ByChoice.AXIS,
    score: Annotated[
        str | None, typer.Option("--score", help="Of files: which score, where they have several.", metavar="NAME")
    ] = None,
    less_is_better: Annotated[
        bool, typer.Option("--less-is-better", help="Of files: the smaller value is the better one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare although judges or data differ.")] = False,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Compare systems pair by pair. Differences of APR and ARS, overall and in parts, and what flipped."""
    from vivace.analysis.comparison import compare as compare_judgings
    from vivace.analysis.file_comparison import compare_files, is_sample_file
    from vivace.cli.tables.file_table import print_file_comparison
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    if any(map(is_sample_file, judgings)):
        compared = compare_files(
            [Path(each) for each in judgings],
            score=score,
            more_is_better=False if less_is_better else None,
            correction=correction.value,
            force=force,
        )
        print_file_comparison(compared, format, columns)
        return
    if score is not None or less_is_better:
        raise UsageError(
            "--score and --less-is-better are of files of other tools; judgings have scores of their own."
        )
    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to compare.")
    _print(compare_judgings(opened, judgings, by=by.value, correction=correction.value, force=force), format, columns)


def _print(comparison: JudgingComparison, format: Format, columns: str) -> None:
    """Differences, and what flipped."""
    rows = [row.as_json() for row in comparison.rows]
    if format is Format.JSON:
        found = {"rows": rows, "flips": comparison.flips, "caveats": comparison.caveats, "notes": comparison.notes}
        print_json(found)
        return
    for caveat in comparison.caveats:
        say(f"Not a clean comparison: {caveat}")
    for note in comparison.notes:
        say(note)
    print_rows(rows, format, TABLE, columns)
    if format is Format.TABLE and comparison.flips:
        say(f"{len(comparison.flips)} conversations flipped (--format json lists them with links):")
        for flip in comparison.flips[:20]:
            axis = SHORT_AXES.get(flip["axis"], flip["axis"])
            say(f"  {flip['conversation']}  {axis}  {flip['direction']} from {flip['a']} to {flip['b']}")
