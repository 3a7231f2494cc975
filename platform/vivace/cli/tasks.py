"""`vivace tasks`: what a model can be asked in the efficiency tracks, and samples of it."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from vivace.cli.common import Format, FormatOption, print_rows

app = typer.Typer(help="Tasks of the efficiency tracks: questions with known answers.", no_args_is_help=True)


@app.command("list")
def list_(format: FormatOption = Format.TABLE) -> None:
    """All tasks: metric, settings, and what is asked."""
    from dataclasses import fields

    from vivace.tasks.registry import TASKS, task_class

    rows: list[dict[str, Any]] = []
    for name in TASKS:
        kind = task_class(name)
        rows.append(
            {
                "task": name,
                "metric": kind.metric or None,
                "settings": ", ".join(field.name for field in fields(kind)),
                "asks": (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "),
            }
        )
    print_rows(rows, format, {key: lambda row, key=key: row[key] or "–" for key in rows[0]})  # type: ignore[misc]


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="A task with its settings, like 'sums(operation=addition)'.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many to show.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Which ones.")] = 0,
    format: FormatOption = Format.TABLE,
) -> None:
    """Samples of a task: prompt and references, each as the model and the metric get them."""
    from vivace.tasks.registry import parse_task

    rows = [
        {"id": sample.id, "slice": sample.slice, "prompt": sample.prompt, "references": list(sample.references)}
        for sample in parse_task(task).samples(samples, seed)
    ]
    columns = {
        "id": lambda row: row["id"],
        "slice": lambda row: row["slice"] or "–",
        "prompt": lambda row: row["prompt"],
        "references": lambda row: "\n".join(row["references"]) or "–",
    }
    print_rows(rows, format, columns)
