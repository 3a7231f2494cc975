"""The board's columns as people read them, from the rows that machines read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vivace.cli.common import percent, seconds
from vivace.cli.tables.printing import ShownColumns
from vivace.output.short_names import hearing_text, settings_text

SHORT_AXES = {
    "INFERENCE_MEMORY": "IM",
    "INSTRUCTION_RETENTION": "IR",
    "SELF_COHERENCE": "SC",
    "VOICE_EDITING": "VE",
}


def _rate(row: dict[str, Any], metric: str) -> str:
    if row[metric] is None:
        return "–"
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    interval = "" if low is None else f" [{percent(low)}–{percent(high)}]"
    return percent(row[metric]) + interval


def _coverage(row: dict[str, Any]) -> str:
    """Below all of the set also where its APR could lie."""
    text = percent(row["coverage"])
    if row["n"] != (row["conversations"] or row["n"]):
        return f"{text} of {_part(row)} (APR {percent(row['whole_apr_min'])}–{percent(row['whole_apr_max'])})"
    if row["coverage"] is not None and row["coverage"] < 1:
        text += f" (APR {percent(row['apr_min'])}–{percent(row['apr_max'])})"
    return text


def _part(row: dict[str, Any]) -> str:
    return f"{row['n']}/{row['conversations'] or '?'}"


def _time(metric: str) -> Callable[[dict[str, Any]], str]:
    """A time, with a † where it is what whoever submitted the replies wrote, and was not measured here."""
    return lambda row: seconds(row[metric]) + (" †" if row[metric] is not None and _has_submitted_times(row) else "")


def _has_submitted_times(row: dict[str, Any]) -> bool:
    return row["times"] == "submitted" and (row["ttft_median_s"], row["total_median_s"]) != (None, None)


def _cost(row: dict[str, Any]) -> str:
    if row["cost_usd"] is None:
        return "–"
    return f"{'≥ ' if row['unpriced_calls'] else ''}${row['cost_usd']:.2f}"


def _marks(row: dict[str, Any]) -> str:
    standing = row["standing"]
    marks = [
        f"part {_part(row)}" if standing == "part" else standing if standing == "incomplete" else "",
        "official" if row["official"] else "",
        "imported" if row["imported"] else "",
        "transcript input" if row["input_form"] == "transcript" else "",
        "audio output" if row["output_form"] == "audio" else "",
        f"{row['repeats']} repeats" if row["repeats"] > 1 else "",
        f"{row['votes']} votes" if row["votes"] > 1 else "",
        "cascade" if row["is_cascade"] else "",
        f"WER {percent(row['ear']['word_error_rate'])} %" if row["ear"] is not None else "",
        hearing_text(row["hearing"], row["is_cascade"]),
        "† times as submitted" if _has_submitted_times(row) else "",
        row["job"] or "",
        "private" if row["private"] else "",
        f"retracted: {row['retracted']}" if row["retracted"] else "",
    ]
    return ", ".join(mark for mark in marks if mark)


def _settings(row: dict[str, Any]) -> str:
    """The method, where it decoded with one, and what else tells it from other rows of its model."""
    method = {} if row["method"] is None else {"method": row["method"]}
    return settings_text({**method, **row["apart"]})


def group_name(row: dict[str, Any]) -> str:
    """What the rows share that are ranked together: the data, and who judged, with how many votes."""
    votes = f", {row['votes']} votes" if row["votes"] > 1 else ""
    return f"{BOARD_COLUMNS['data'](row)} judged by {BOARD_COLUMNS['judge'](row)}{votes}"


MOST_TOLD = 5
"""Rows that are not ranked of which a sentence is said."""


def not_ranked(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on the rows that stand apart: why, and where the APR of the whole set could lie."""
    apart = [row for row in rows if row["standing"] in ("part", "incomplete")]
    told = [
        f"Not ranked: {row['model']} ({row['short_run']}) is "
        + (f"over {_part(row)} conversations" if row["standing"] == "part" else "incomplete")
        + (
            f"; over the whole set its APR lies between {percent(row['whole_apr_min'])} and "
            f"{percent(row['whole_apr_max'])} %."
            if row["whole_apr_min"] is not None
            else "."
        )
        for row in apart[:MOST_TOLD]
    ]
    return [*told, f"… and {len(apart) - MOST_TOLD} more."] if len(apart) > MOST_TOLD else told


def _axis(axis: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: percent(row["axes"][axis]["apr"]) if axis in row["axes"] else "–"


BOARD_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "#": lambda row: "–" if row["rank"] is None else f"{row['rank']}{'=' if row['tied'] else ''}",
    "model": lambda row: str(row["model"]),
    "settings": _settings,
    "APR %": lambda row: _rate(row, "apr"),
    "ARS %": lambda row: _rate(row, "ars"),
    **{short: _axis(axis) for axis, short in SHORT_AXES.items()},
    "coverage %": _coverage,
    "n": lambda row: str(row["n"]),
    "judge": lambda row: f"{row['judge']} {row['judge_fingerprint'][:6]}",
    "data": lambda row: f"{row['data']} {row['data_revision'][:6]}",
    "TTFT": _time("ttft_median_s"),
    "total": _time("total_median_s"),
    "kept %": lambda row: "–" if row.get("kept_share") is None else percent(row["kept_share"]),
    "cost": _cost,
    "date": lambda row: str(row["date"])[:10],
    "run": lambda row: str(row["short_run"]),
    "notes": _marks,
}
BOARD = ShownColumns(
    BOARD_COLUMNS,
    first=("#", "model", "APR %", "settings", "run", "notes", "ARS %"),
    then=("coverage %", "n", "TTFT", "cost"),
    cut=("model", "settings", "notes", "judge", "data"),
)
"""Judgings, for people."""


def board_table(rows: Sequence[dict[str, Any]]) -> ShownColumns:
    """`BOARD`, with the axes that the rows' sets have of their own behind the benchmark's four."""
    own = sorted({axis for row in rows for axis in row.get("axes", ())} - SHORT_AXES.keys())
    columns = dict[str, Callable[[dict[str, Any]], str]]()
    for heading, text in BOARD_COLUMNS.items():
        columns[heading] = text
        if heading == SHORT_AXES["VOICE_EDITING"]:
            columns |= {axis if axis not in BOARD_COLUMNS else f"axis {axis}": _axis(axis) for axis in own}
    return replace(BOARD, columns=columns)


PUBLISHED_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: str(row["model"]),
    "answers in": lambda row: str(row["output"]),
    "APR %": lambda row: (
        percent(row["apr"], 2) + (f" ± {percent(row['plus_minus'], 2)}" if row["plus_minus"] else "")
    ),
    "ARS %": lambda row: percent(row["ars"], 2),
    **{
        short: lambda row, axis=axis: percent(row["axes"].get(axis), 2)  # type: ignore[misc]
        for axis, short in SHORT_AXES.items()
    },
    "source": lambda row: f"{row['source']} ({row['date']})",
}
PUBLISHED = ShownColumns(
    PUBLISHED_COLUMNS, first=("model", "answers in", "APR %", "ARS %", "source"), cut=("model", "source")
)
"""Figures that others published, for people."""
