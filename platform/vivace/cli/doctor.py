"""`vivace doctor`: what is there, what is missing, and what to do about it."""

from __future__ import annotations

from typing import Any

from vivace.cli.common import DatabaseOption, Format, FormatOption, HomeOption, print_rows, settings_of

COLUMNS = {
    "": lambda row: {"ok": "✓", "missing": "–", "broken": "✗"}[row["state"]],
    "what": lambda row: row["what"],
    "found": lambda row: row["found"],
}


def doctor(
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Check what is installed and set up. Exit code 1 if something is broken.

    Python, packages, database, audio, GPU, keys and folders.
    """
    import typer

    from vivace.diagnosis import diagnose

    rows: list[dict[str, Any]] = [vars(finding) for finding in diagnose(settings_of(home, database))]
    print_rows(rows, format, COLUMNS)
    if any(row["state"] == "broken" for row in rows):
        raise typer.Exit(1)
