"""`vivace compare`: is one system better than another on the same conversations?"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from vivace.cli.board_table import SHORT_AXES
from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, say, settings_of


class CorrectionChoice(StrEnum):
    """How p-values of one family are corrected."""

    HOLM = "holm"
    BH = "bh"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _interval(row: dict[str, Any]) -> str:
    return "–" if row["low"] is None else f"[{_points(row['low'])}, {_points(row['high'])}]"


COLUMNS = {
    "a": lambda row: row["a"],
    "b": lambda row: row["b"],
    "score": lambda row: row["metric"].upper(),
    "axis": lambda row: SHORT_AXES.get(row["slice"], "all"),
    "a %": lambda row: f"{100 * row['value_a']:.1f}",
    "b %": lambda row: f"{100 * row['value_b']:.1f}",
    "b − a": lambda row: _points(row["difference"]),
    "95 %": _interval,
    "p": lambda row: _p(row["p_value"]),
    "p, family": lambda row: _p(row["p_adjusted"]),
    "better / worse": lambda row: f"{row['gained']} / {row['lost']}",
    "n": lambda row: str(row["n"]),
    "detectable": lambda row: "–" if row["detectable"] is None else f"{100 * row['detectable']:.1f}",
}


def compare(
    judgings: Annotated[list[str], typer.Argument(help="Judgings or runs; each is compared with the first.")],
    correction: Annotated[
        CorrectionChoice,
        typer.Option("--correction", help="holm: no false alarm in the family; bh: few among the alarms."),
    ] = CorrectionChoice.HOLM,
    force: Annotated[bool, typer.Option("--force", help="Compare although judges or data differ.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Compare systems pair by pair. Differences of APR and ARS, overall and per axis, and what flipped."""
    from vivace.comparison import compare as compare_judgings
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    if opened is None:
        raise UsageError("There is no database yet, so nothing to compare.")
    comparison = compare_judgings(opened, judgings, correction=correction.value, force=force)
    rows = [row.as_json() for row in comparison.rows]
    if format is Format.JSON:
        found = {"rows": rows, "flips": comparison.flips, "caveats": comparison.caveats}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for caveat in comparison.caveats:
        say(f"Not a clean comparison: {caveat}")
    print_rows(rows, format, COLUMNS)
    if format is Format.TABLE and comparison.flips:
        say(f"{len(comparison.flips)} conversations flipped (--format json lists them with links):")
        for flip in comparison.flips[:20]:
            say(f"  {flip['conversation']}  {SHORT_AXES.get(flip['axis'], flip['axis'])}  {flip['better']}")
