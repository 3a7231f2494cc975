"""The efficiency tracks' columns as people read them, from the rows that machines read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vivace.cli.common import Format, percent, print_grouped
from vivace.cli.tables.differences import interval, points
from vivace.cli.tables.printing import ShownColumns
from vivace.model_origins import ORIGINS
from vivace.output.short_names import settings_text
from vivace.statistics.noninferiority import finding


def _figure(row: dict[str, Any], metric: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = row["figures"].get(metric)
    return found


def _percent(metric: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = _figure(row, metric)
        if found is None:
            return "–"
        interval = "" if found["low"] is None else f" [{percent(found['low'])}–{percent(found['high'])}]"
        return percent(found["value"]) + interval

    return text


def _ratio(metric: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        if row["baseline"]:
            return "1"
        found = _figure(row, metric)
        if found is None:
            return "–"
        interval = "" if found["low"] is None else f" [{found['low']:.3f}–{found['high']:.3f}]"
        return f"{found['value']:.3f}" + interval

    return text


def _timed(column: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """Times of small models say nothing, and are not shown."""
    return lambda row: "–" if row["synthetic"] else column(row)


def _comparable(row: dict[str, Any]) -> str:
    if row["baseline"]:
        return "baseline"
    found, difference = _figure(row, "comparable"), _figure(row, "quality_difference")
    if found is None or difference is None:
        return "–"
    said = finding(bool(found["value"]), difference["high"])
    return f"{said} ({points(difference['value'])} {interval(difference)})"


def _seconds(metric: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = _figure(row, metric)
        return "–" if found is None else f"{1000 * found['value']:.3g} ms"

    return text


def _size(metric: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = _figure(row, metric)
        return "–" if found is None else f"{found['value'] / 2**20:,.3g} MiB"

    return text


def _number(metric: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = _figure(row, metric)
        return "–" if found is None else f"{found['value']:.3g}"

    return text


def _marks(row: dict[str, Any]) -> str:
    marks = [
        f"incomplete {_trials(row)}/{row['trials_planned']} trials" if row["standing"] == "incomplete" else "",
        "official" if row["official"] else "",
        "nothing pruned" if row["pruned_nothing"] else "",
        "synthetic" if row["synthetic"] else "",
        "" if ORIGINS[row["adapter"]].are_answers_real else "random weights",
        *(reason for reason in row["unofficial_reasons"] if ": " in reason and not _is_kind(reason)),
        "private" if row["private"] else "",
        f"retracted: {row['retracted']}" if row["retracted"] else "",
    ]
    return ", ".join(mark for mark in marks if mark)


def _trials(row: dict[str, Any]) -> int:
    """Those that ended well."""
    return int((_figure(row, "trials") or {"value": 0})["value"])


def _is_kind(reason: str) -> bool:
    return reason.startswith(("synthetic", "random weights"))


ARM_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "★": lambda row: row["mark"],
    "arm": lambda row: str(row["short_arm"]),
    "model": lambda row: str(row["model"]),
    "quality %": _percent("quality"),
    "against the baseline": _comparable,
    "same tokens %": _percent("agreement"),
    "kept %": _percent("figure_kept_share"),
    "evidence %": _percent("figure_evidence_share"),
    "pruned at": _number("figure_prune_layer"),
    "KV": _size("figure_kv_bytes"),
    "bytes ×": _ratio("bytes_ratio"),
    "FLOPs ×": _ratio("flops_ratio"),
    "TTFT ×": _timed(_ratio("ttft_ratio")),
    "tokens/s ×": _timed(_ratio("speed_ratio")),
    "total": _timed(_seconds("total_s")),
    "floor": _timed(_seconds("floor_s")),
    "n": lambda row: str((_figure(row, "quality") or _figure(row, "trials") or {"n": 0})["n"]),
    "tasks": lambda row: str(row["data"]),
    "machine": lambda row: str(row["hardware"]),
    "date": lambda row: str(row["date"])[:10],
    "settings": lambda row: settings_text(row["apart"]),
    "run": lambda row: str(row["short_run"]),
    "notes": _marks,
}
"""★ marks the frontier, `★ worse` where quality pays for it; × is relative to the baseline of the same run."""
_COSTS = {"bytes_ratio": "bytes ×", "flops_ratio": "FLOPs ×", "ttft_ratio": "TTFT ×", "speed_ratio": "tokens/s ×"}
"""What quality is held against → its column."""


def arm_table(rows: Sequence[dict[str, Any]]) -> ShownColumns:
    """How people see these arms: first with what their quality is held against."""
    costs = dict.fromkeys(_COSTS[row["cost_axis"]] for row in rows)
    return ShownColumns(
        ARM_COLUMNS,
        first=("★", "arm", "quality %", *costs, "settings", "notes", "run", "against the baseline"),
        cut=("arm", "settings", "notes", "model", "tasks", "machine"),
    )


def arm_group_name(row: dict[str, Any]) -> str:
    """What the arms share that may be held against each other."""
    return f"{row['track']}: {row['adapter']}:{row['model']} on {row['data']}, {row['hardware']}"


def print_arms(rows: Sequence[dict[str, Any]], format: Format, columns: str | None = None) -> None:
    """Print rows of the efficiency board."""
    print_grouped(rows, format, arm_table(rows), arm_group_name, columns)
