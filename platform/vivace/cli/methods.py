"""`vivace methods`: the inference methods that the efficiency tracks measure, and their settings."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import Format, FormatOption, print_rows
from vivace.optional import require_torch

if TYPE_CHECKING:
    from vivace_methods.base import Method

app = typer.Typer(help="Inference methods: what there is, and what can be set.", no_args_is_help=True)

LIST_COLUMNS = {
    "method": lambda row: row["name"],
    "track": lambda row: row["family"],
    "needs": lambda row: ", ".join(row["needs"]) or "–",
    "settings": lambda row: ", ".join(f"{each['name']}={each['default']}" for each in row["settings"]) or "–",
    "what it is": lambda row: row["summary"],
}


@app.command("list")
def list_(format: FormatOption = Format.TABLE) -> None:
    """All methods, a line each."""
    require_torch()
    from vivace_methods.registry import METHODS

    print_rows([_described(kind) for kind in METHODS.values()], format, LIST_COLUMNS)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `vivace methods list` writes it.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """One method: purpose, paper, what it needs, and its settings with their defaults."""
    import json

    from vivace.errors import UsageError

    require_torch()
    from vivace_methods.base import MethodError
    from vivace_methods.registry import method_class

    try:
        row = _described(method_class(name))
    except MethodError as error:
        raise UsageError(str(error)) from error
    if format is Format.JSON:
        typer.echo(json.dumps(row, indent=2, ensure_ascii=False))
        return
    if format is not Format.TABLE:
        print_rows([row], format, LIST_COLUMNS)
        return
    typer.echo(f"{row['name']} (track {row['family']})\n\n{row['documentation']}\n\nPaper: {row['paper']}")
    typer.echo(f"Needs: {', '.join(row['needs']) or 'nothing but a model'}")
    for each in row["settings"]:
        typer.echo(f"Setting {each['name']}={each['default']}: {each['type']}")


def _described(kind: type[Method]) -> dict[str, Any]:
    from vivace_methods.registry import described, setting_types

    types = setting_types(kind)
    documentation = inspect.getdoc(kind) or ""
    return {
        "name": kind.name,
        "family": kind.family,
        "summary": documentation.partition("\n")[0],
        "paper": kind.paper,
        "needs": list(kind.needs),
        "settings": [
            {
                "name": each.name,
                "default": None if each.default is MISSING else each.default,
                "type": described(types[each.name]),
            }
            for each in fields(kind)
        ],
        "documentation": documentation,
    }
