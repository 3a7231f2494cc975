"""Other tools' results in words, the same on a terminal, on the pages and on a site."""

from __future__ import annotations

from typing import Any

STDERR, BOUNDS = "stderr", ("low", "high")
"""Under these names stands what a tool says of how sure its figure is."""


def number(value: float | None) -> str:
    """A figure as the tool writes it; of another tool's nobody knows which are rates."""
    return "–" if value is None else f"{value:.4g}"


def reported(row: dict[str, Any]) -> str:
    """The tool's own figure with what it says of how sure it is."""
    figures = row["reported"]
    named = [name for name in figures if name not in (STDERR, *BOUNDS)]
    if not named:
        return "–"
    sure = f" ± {number(figures[STDERR])}" if STDERR in figures else ""
    if all(name in figures for name in BOUNDS):
        sure = f" [{number(figures['low'])}, {number(figures['high'])}]"
    name = named[0] if named[0] not in ("score", "value", row["score"].partition(",")[0]) else ""
    return f"{name} {number(figures[named[0]])}{sure}".strip()


def samples(row: dict[str, Any]) -> str:
    """Tries that were scored, of how many, and why the others were not."""
    if row["scored"] is None:
        return "–"
    why = ", ".join(f"{count} {reason}" for reason, count in row["unscored"].items())
    total = row["scored"] + sum(row["unscored"].values())
    return f"{row['scored']} of {total}" + (f" ({why})" if why else "")


def mean(row: dict[str, Any]) -> str:
    """The mean of what is scored, with its interval."""
    interval = "" if row["low"] is None else f" [{number(row['low'])}, {number(row['high'])}]"
    return number(row["value"]) + interval


def range_(row: dict[str, Any]) -> str:
    """Where the mean could lie if all that is unscored went one way; nothing where all is scored."""
    if row["minimum"] is None or not row["unscored"]:
        return "–"
    return f"{number(row['minimum'])}–{number(row['maximum'])}"


def group_name(row: dict[str, Any]) -> str:
    """What rows share that measured the same thing in the same way."""
    version = f" v{row['task_version']}" if row["task_version"] else ""
    return f"{row['task']}{version}, {row['score']}, by {row['tool']}"


def remarks(row: dict[str, Any]) -> list[str]:
    """What there is to note of a result, that it is private or was retracted among it."""
    return [
        *(["private"] if row["private"] else []),
        *row["notes"],
        *([f"retracted: {row['retracted']}"] if row["retracted"] else []),
    ]
