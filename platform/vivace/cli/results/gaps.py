"""`vivace gaps`: what hearing and speaking cost each model that was run both ways."""

from __future__ import annotations

from typing import Any

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    percent,
    print_rows,
    say,
    settings_of,
)
from vivace.cli.tables.differences import interval, p_value, points
from vivace.cli.tables.printing import ShownColumns
from vivace.output.short_names import with_method

COLUMNS = {
    "gap": lambda row: row["kind"],
    "model": lambda row: with_method(row["model"], row["method"]),
    "score": lambda row: row["metric"].upper(),
    "text %": lambda row: percent(row["value_text"]),
    "audio %": lambda row: percent(row["value_audio"]),
    "audio − text": lambda row: points(row["difference"]),
    "95 %": interval,
    "p": lambda row: p_value(row["p_value"]),
    "p (family)": lambda row: p_value(row["p_adjusted"]),
    "better / worse": lambda row: f"{row['gained']} / {row['lost']}",
    "n": lambda row: str(row["n"]),
    "judge": lambda row: f"{row['judge']} {row['judge_fingerprint'][:6]}",
    "data": lambda row: f"{row['data']} {row['data_revision'][:6]}",
}


MOST_WORDS = 6
"""Misheard words that a table shows of a conversation; JSON has them all."""
LONGEST_PHRASE = 40
"""Characters of one of them."""
FELL_COLUMNS = {
    "model": lambda row: with_method(row["model"], row["method"]),
    "conversation": lambda row: row["conversation"],
    "criterion": lambda row: f"criterion {row['criterion']}: {row['text']}",
    "transcript → ear": lambda row: f"{percent(row['met_text'], 0)} → {percent(row['met_audio'], 0)} %",
    "misheard": lambda row: _words(row["misheard"]),
}
FELL = ShownColumns(
    FELL_COLUMNS,
    first=("conversation", "criterion", "misheard", "transcript → ear"),
    cut=("model",),
    prose=("criterion", "misheard"),
)


def _cut(phrase: str) -> str:
    """A phrase as far as a table has room for it; a dash for words that were left out or put in."""
    return (phrase if len(phrase) <= LONGEST_PHRASE else f"{phrase[: LONGEST_PHRASE - 1].rstrip()}…") or "–"


def _words(found: list[dict[str, Any]]) -> str:
    told = [f"{_cut(words['said'])} → {_cut(words['heard'])}" for words in found[:MOST_WORDS]]
    return "; ".join([*told, *([f"and {len(found) - MOST_WORDS} more"] if len(found) > MOST_WORDS else [])]) or "none"


TABLE = ShownColumns(
    COLUMNS,
    first=("gap", "model", "score", "audio − text", "95 %", "p (family)", "n", "text %", "audio %"),
    cut=("model", "judge", "data"),
)


def gaps(
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Say what hearing and speaking cost each model.

    Its runs through text and through audio are set side by side.

    Hearing: audio in against --audio transcript; of a cascade it is its ear's, with the criteria that were met with
    the transcripts and not with what the ear heard, and the words that it got wrong. Speaking: --output audio against
    --output text.
    """
    from vivace.analysis.gaps import gaps as find_gaps
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings_of(home, database))
    rows = [] if opened is None else [gap.as_json() for gap in find_gaps(opened)]
    if rows or format is not Format.TABLE:
        print_rows(rows, format, TABLE, columns)
        fell = {(row["judging_audio"], one["conversation"], one["criterion"]): {**row, **one}
                for row in rows for one in row.get("fell", ())}  # fmt: skip
        if fell and format in (Format.TABLE, Format.MD):
            say("Criteria that were met with the set's transcripts and not with the ear's:")
            print_rows(list(fell.values()), format, FELL)
    else:
        say(
            "No model was run both ways on the same data under the same judge yet: run it once more with "
            "--audio transcript for its hearing gap, or with --output audio for its speaking gap."
        )
