"""What the verbs share: options, settings, output formats, and the way an error becomes a sentence."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vivace.settings import Settings

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder for everything local.", envvar="VIVACE_HOME", show_default=".vivace"),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Database URL or SQLite path.",
        envvar="VIVACE_DATABASE",
        show_default="SQLite in the home folder",
    ),
]


WIDEST_TABLE = 10_000
"""Characters; wider than any row, so that a file or a pipe gets each row in one line."""


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


FormatOption = Annotated[Format, typer.Option("--format", help="How data is printed.")]


def settings_of(home: Path | None, database: str | None) -> Settings:
    """The settings under a command's `--home` and `--database`."""
    from vivace.settings import load_settings

    return load_settings(home, database)


def say(message: str) -> None:
    """Talk goes to stderr; stdout is data."""
    typer.echo(message, err=True)


def print_rows(
    rows: Sequence[dict[str, Any]], format: Format, columns: dict[str, Callable[[dict[str, Any]], str]]
) -> None:
    """Print rows: as they are in JSON, flattened in CSV, and by `columns` (heading → text) for people."""
    if format is Format.JSON:
        typer.echo(json_text(list(rows)))
    elif format is Format.CSV:
        typer.echo(csv_text([flattened(row) for row in rows]), nl=False)
    elif format is Format.MD:
        cells = [[text(row).replace("|", "\\|").replace("\n", " ") for text in columns.values()] for row in rows]
        lines = [list(columns), ["---"] * len(columns), *cells]
        typer.echo("\n".join("| " + " | ".join(line) + " |" for line in lines))
    else:
        _print_table(rows, columns)


def json_text(value: Any, indent: int | None = 2) -> str:
    """A value as JSON; numbers that JSON has no word for are null, as everything that is not known."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def _print_table(rows: Sequence[dict[str, Any]], columns: dict[str, Callable[[dict[str, Any]], str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text(row)) for text in columns.values()))
    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=WIDEST_TABLE))
    if not is_terminal():
        Console(width=needed.maximum).print(table)  # a row is a line, for grep and awk
    elif needed.minimum <= console.width:
        console.print(table)
    else:
        _print_records(rows, columns)


def _print_records(rows: Sequence[dict[str, Any]], columns: dict[str, Callable[[dict[str, Any]], str]]) -> None:
    """One line per cell, for terminals in which a table's columns would break inside words."""
    width = max(map(len, columns))
    for row in rows:
        cells = {heading: text(row) for heading, text in columns.items()}
        lines = [f"{heading:<{width}}  {cell}" for heading, cell in cells.items() if cell not in ("", "–")]
        typer.echo("\n".join(lines) + "\n")


def flattened(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested row with dotted keys; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a heading line; empty for no rows."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as people read it; a dash for none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def seconds(value: float | None) -> str:
    """A short time as people read it; a dash for none."""
    return "–" if value is None else f"{value:.2f} s"


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named.

    Raises:
        UsageError: it cannot be written.
    """
    from vivace.errors import UsageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written ({error.strerror}).") from error
