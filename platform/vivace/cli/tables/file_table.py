"""Comparisons of other tools' files as people read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vivace.cli.common import Format, percent, print_json, print_rows, say
from vivace.cli.tables.differences import p_value, points
from vivace.cli.tables.printing import ShownColumns

if TYPE_CHECKING:
    from vivace.analysis.file_comparison import FileComparison
    from vivace.interchange.samples import SampleFile

MOST_FLIPS = 20
"""Samples that are listed; JSON has all."""


def _value(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row[name]:.4g}" if row["kind"] == "number" else percent(row[name])


def _signed(row: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.4g}" if row["kind"] == "number" else points(value)


def _detectable(row: dict[str, Any]) -> str:
    if row["detectable"] is None:
        return "–"
    return f"{row['detectable']:.4g}" if row["kind"] == "number" else percent(row["detectable"])


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "a": lambda row: row["a"],
    "b": lambda row: row["b"],
    "score": lambda row: row["score"],
    "a's": _value("value_a"),
    "b's": _value("value_b"),
    "b − a": lambda row: _signed(row, row["difference"]),
    "95 %": lambda row: "–" if row["low"] is None else f"[{_signed(row, row['low'])}, {_signed(row, row['high'])}]",
    "p": lambda row: p_value(row["p_value"]),
    "p (family)": lambda row: p_value(row["p_adjusted"]),
    "better / worse": lambda row: f"{row['gained']} / {row['lost']}",
    "n": lambda row: str(row["n"]),
    "detectable": _detectable,
    "test": lambda row: row["test"],
}
TABLE = ShownColumns(COLUMNS, first=("a", "b", "score", "b − a", "95 %", "p", "n", "better / worse"), cut=("a", "b"))


def print_file_comparison(comparison: FileComparison, format: Format, columns: str) -> None:
    """Print differences, what there is in each file, and what flipped; rates in percent, differences in points."""
    rows = [row.as_json() for row in comparison.rows]
    files = [file.as_json() for file in comparison.files]
    if format is Format.JSON:
        flips = [{"score": row.score, **flip} for row in comparison.rows for flip in row.flips]
        print_json({"rows": rows, "files": files, "flips": flips, "notes": comparison.notes})
        return
    for file in comparison.files:
        say(_file_line(file))
    for note in comparison.notes:
        say(f"{note}.")
    print_rows(rows, format, TABLE, columns)
    if format is Format.TABLE:
        _say_flips(comparison)


def _file_line(file: SampleFile) -> str:
    told = file.as_json()
    unscored = ", ".join(f"{number} {reason}" for reason, number in told["unscored"].items())
    right = ", ".join(
        f"{told[each]} {each}" for each in ("right", "partly", "wrong") if told[each] or each != "partly"
    )
    reported = ", ".join(f"{metric} {value:.4g}" for metric, value in told["reported"].items())
    tries = "" if told["tries"] == told["samples"] else f" in {told['tries']} tries"
    return (
        f"{file.path.name}: {file.task} of {file.model or 'an unnamed model'}, {file.score}: "
        f"{told['samples']} samples{tries}, {told['scored']} scored ({right})"
        + (f", unscored: {unscored}" if unscored else "")
        + (f"; {file.tool} itself says {reported}" if reported else "")
        + "."
    )


def _say_flips(comparison: FileComparison) -> None:
    for row in comparison.rows:
        if not row.flips or row.score != row.a.score:
            continue
        say(f"{len(row.flips)} samples came out differently between {row.name_a} and {row.name_b}:")
        for flip in row.flips[:MOST_FLIPS]:
            say(f"  {flip['a']} / {flip['b']}  {flip['value_a']:.3g} → {flip['value_b']:.3g}  {flip['text']}")
