"""`vivace tasks`: what a model can be asked in the efficiency tracks, samples of it, and how well it knows a text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.common import ColumnsOption, Format, FormatOption, HomeOption, print_rows, settings_of
from vivace.cli.subjects.models import Precision
from vivace.cli.tables.printing import Cell, ShownColumns
from vivace.machine.optional_packages import require_torch
from vivace.tasks.base import Sample, Task

app = typer.Typer(help="Tasks of the efficiency tracks: questions with known answers.", no_args_is_help=True)


@app.command("list")
def list_(columns: ColumnsOption = "", format: FormatOption = Format.TABLE) -> None:
    """All tasks: metric, settings, and what is asked."""
    from dataclasses import fields

    from vivace.tasks.registry import TASKS

    rows: list[dict[str, Any]] = []
    for name, kind in TASKS.items():
        rows.append(
            {
                "task": name,
                "metric": kind.metric or None,
                "settings": ", ".join(field.name for field in fields(kind)),
                "asks": (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "),
            }
        )
    cells: dict[str, Cell] = {key: lambda row, key=key: row[key] or "–" for key in rows[0]}  # type: ignore[misc]
    table = ShownColumns(cells, first=("task", "asks", "metric", "settings"), prose=("asks", "settings"))
    print_rows(rows, format, table, columns)


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="A task with its settings, like 'sums(operation=addition)'.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many to show.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Which ones.")] = 0,
    model: Annotated[str | None, typer.Option("--model", help="Fit lengths to this model's tokenizer; without one, "
                                              "words and signs are counted.")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Samples of a task: prompt, how the answer is begun, and references, as the model and the metric get them."""
    from vivace.tasks.registry import parse_task

    asked = parse_task(task)
    found = asked.samples(samples, seed)
    tokens: list[int | None] = [None] * samples
    if model is not None:
        found, tokens = _fitted_to(model, asked, found, settings_of(home, None).home)
    rows = [
        {
            "id": sample.id, "slice": sample.slice, "prompt": sample.prompt, "begun": sample.begun,
            "references": list(sample.references), "tokens": count,
        }
        for sample, count in zip(found, tokens, strict=True)
    ]  # fmt: skip
    columns = {
        "id": lambda row: row["id"],
        "slice": lambda row: row["slice"] or "–",
        "prompt": lambda row: row["prompt"],
        "begun": lambda row: row["begun"] or "–",
        "references": lambda row: "\n".join(row["references"]) or "–",
        "tokens": lambda row: "–" if row["tokens"] is None else f"{row['tokens']:,}",
    }
    print_rows(rows, format, ShownColumns(columns, prose=("prompt", "references")))


def _fitted_to(model: str, task: Task, samples: list[Sample], home: Path) -> tuple[list[Sample], list[int | None]]:
    """Samples as a model is asked them, and how many tokens each takes.

    Raises:
        UsageError: there is no such model, its chat template cannot be used, or a sample does not fit its length.
    """
    from vivace.errors import UsageError
    from vivace_methods.errors import MethodError

    require_torch()
    from vivace.tracks.efficiency.session.token_prompts import sample_ids

    tokenizer = _tokenizer(_folder_of(model, home))
    try:
        found = [task.fitted(sample, lambda each: len(sample_ids(each, tokenizer))) for sample in samples]
        return found, [len(sample_ids(sample, tokenizer)) for sample in found]
    except MethodError as error:
        raise UsageError(str(error)) from error


@app.command()
def perplexity(
    text: Annotated[str, typer.Argument(help="A .txt, .jsonl, .json or .parquet file, a folder of such, or "
                                             "HUB-ID@REVISION/FOLDER; rows have a column text.")],
    model: Annotated[str, typer.Option("--model", help="zoo:NAME, packaged:NAME, local:FOLDER, "
                                     "local:FILE.gguf or local:HUB-ID@REVISION.")],
    length: Annotated[int, typer.Option("--length", min=2, help="Of a window, in tokens.")] = 2048,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Windows, the first of the text.",
                                              show_default="all")] = None,
    split: Annotated[str, typer.Option("--split", help="Files of a folder that begin with another are left out.")]
    = "test",
    dtype: Annotated[Precision, typer.Option("--dtype", help="Of the weights.")] = Precision.FLOAT32,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """How well a model predicts a text (WikiText, C4, one's own), cut into windows of a fixed length."""
    from vivace.errors import UsageError
    from vivace.tasks.perplexity import perplexity as perplexity_of
    from vivace.tasks.perplexity import read_text, windows

    require_torch()
    content = read_text(text, split)
    loaded, tokenizer = _loaded(_folder_of(model, settings_of(home, None).home), dtype, device)
    holds = getattr(loaded.config, "max_position_embeddings", None) or length
    if length > holds:
        raise UsageError(f"The model {model} holds {holds} tokens: take windows of at most that with --length.")
    cut = windows(content, tokenizer, length)[:limit]
    found = perplexity_of(loaded, cut)
    low, high = found.interval or (None, None)
    row = {
        "model": model, "text": text, "perplexity": found.value, "low": low, "high": high, "windows": len(cut),
        "tokens": sum(found.tokens),
    }  # fmt: skip
    columns = {
        "model": lambda row: row["model"],
        "text": lambda row: row["text"],
        "perplexity": lambda row: f"{row['perplexity']:.4g}",
        "interval": lambda row: "–" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}",
        "windows": lambda row: f"{row['windows']:,}",
        "tokens": lambda row: f"{row['tokens']:,}",
    }
    print_rows([row], format, columns)


def _folder_of(model: str, home: Path) -> Path:
    """Where the weights of a model lie that is asked for on the command line.

    Raises:
        UsageError: there is no such model, or it is a drafter.
        UnreachableError: the hub does not answer.
    """
    from vivace.errors import UsageError
    from vivace.model_origins import ORIGINS
    from vivace.tracks.efficiency.measured_models import find_target

    adapter, _, name = model.partition(":")
    if adapter not in ORIGINS or not name or not ORIGINS[adapter].has_tokenizer:
        *most, last = [origin.form for origin in ORIGINS.values() if origin.has_tokenizer]
        raise UsageError(f"'{model}' is no model with a tokenizer: --model takes {', '.join(most)} or {last}.")
    checkpoint = find_target(model, None, home).checkpoint
    assert checkpoint is not None
    return checkpoint.fetched()


def _loaded(folder: Path, dtype: Precision, device: str) -> tuple[Any, Any]:
    """A model and its tokenizer.

    Raises:
        UsageError: the folder lacks either, or there is no such device.
    """
    import torch
    from transformers.utils import logging

    from vivace.errors import UsageError
    from vivace_methods.models.loading import load_model
    from vivace_methods.protocol import MethodError

    logging.disable_progress_bar()  # its bar for reading weights is no talk of ours
    try:
        model = load_model(folder, dtype=getattr(torch, dtype.value), device=device)
    except MethodError as error:
        raise UsageError(str(error)) from error
    return model, _tokenizer(folder)


def _tokenizer(folder: Path) -> Any:
    """The tokenizer of a model.

    Raises:
        UsageError: the folder has none.
    """
    from transformers import AutoTokenizer

    from vivace.errors import UsageError

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"There is no tokenizer in {folder} that transformers can read.") from error
