"""What the verbs share: options, settings, output formats, and the way an error becomes a sentence."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.tables.printing import Cell, ShownColumns, print_table
from vivace.errors import UsageError
from vivace.output.printable import csv_text, json_text, printable
from vivace.output.secrets import without_keys

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
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        help="A folder or URL (s3://BUCKET/PREFIX) that workers share.",
        envvar="VIVACE_ARTIFACTS",
        show_default="in the home folder",
    ),
]
LogOption = Annotated[
    Path | None, typer.Option("--log", help="Write what is said into a file, too.", show_default="none")
]
LogSizeOption = Annotated[float, typer.Option("--log-size", min=0.01, help="Megabytes after which it is put aside.")]
LogFilesOption = Annotated[int, typer.Option("--log-files", min=1, help="Files put aside that stay.")]


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


FormatOption = Annotated[Format, typer.Option("--format", help="How data is printed.")]
ColumnsOption = Annotated[
    str,
    typer.Option("--columns", help="Of a table, by heading: NAME,NAME,…", show_default="those that matter and fit"),
]


def settings_of(home: Path | None, database: str | None, artifacts: str | None = None) -> Settings:
    """The settings under a command's `--home`, `--database` and `--artifacts`."""
    from vivace.settings import load_settings

    return load_settings(home, database, artifacts)


def say(message: str) -> None:
    """Talk goes to stderr; stdout is data."""
    typer.echo(printable(message), err=True)


def print_text(text: str, *, nl: bool = True) -> None:
    """Data as text."""
    typer.echo(printable(text), nl=nl)


def print_json(value: Any) -> None:
    """Data as JSON."""
    typer.echo(json_text(value, indent=2))


def print_rows(
    rows: Sequence[dict[str, Any]],
    format: Format,
    table: ShownColumns | Mapping[str, Cell],
    columns: str | None = None,
) -> None:
    """Print rows: as they are in JSON, flattened in CSV, and as a table for people.

    Args:
        rows: to be shown.
        format: how.
        table: how people see them; of headings with their texts alone, as they stand.
        columns: those that the verb's `--columns` names; None where the verb has no such option.

    Raises:
        UsageError: there is no column of some name, or the format has no columns to choose from.
    """
    table = table if isinstance(table, ShownColumns) else ShownColumns(table)
    if columns and format in (Format.JSON, Format.CSV):
        raise UsageError(f"--columns chooses what table and md show; {format.value} always has everything.")
    if format is Format.JSON:
        print_json(list(rows))
    elif format is Format.CSV:
        typer.echo(csv_text([flattened(row) for row in rows]), nl=False)
    elif format is Format.MD:
        shown = table.chosen(columns) if columns else table.columns
        cells = [
            [printable(text(row)).replace("|", "\\|").replace("\n", " ") for text in shown.values()] for row in rows
        ]
        lines = [list(shown), ["---"] * len(shown), *cells]
        typer.echo("\n".join("| " + " | ".join(line) + " |" for line in lines))
    elif left_out := print_table(rows, table, columns, line_width()):
        choice = "" if columns is None else "--columns chooses, "
        say(f"No room for {', '.join(left_out)}; {choice}--format md has all.")


def print_grouped(
    rows: Sequence[dict[str, Any]],
    format: Format,
    table: ShownColumns,
    group_name: Callable[[dict[str, Any]], str],
    columns: str | None = None,
) -> None:
    """As `print_rows`; on a terminal each group as a table of its own, under its name, where there are several.

    Columns that say which group a row is of may find no room there.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group_name(row), []).append(row)
    if format is not Format.TABLE or line_width() is None or len(groups) < 2:
        print_rows(rows, format, table, columns)
        return
    for place, (name, members) in enumerate(groups.items()):
        print_text(("\n" if place else "") + name)
        print_rows(members, format, table, columns)


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def line_width() -> int | None:
    """Characters to a line of a table: the terminal's, or what COLUMNS says.

    None for a file or a pipe, where a row is a line, for grep and awk.
    """
    return shutil.get_terminal_size().columns if is_terminal() or os.environ.get("COLUMNS") else None


def flattened(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested row with dotted keys; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json_text(value) if isinstance(value, list) else value
    return flat


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as people read it; a dash for none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def seconds(value: float | None) -> str:
    """A short time as people read it; a dash for none."""
    return "–" if value is None else f"{value:.2f} s"


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named, without any key that this process knows.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.write_text(without_keys(text), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written ({error.strerror}).") from error
