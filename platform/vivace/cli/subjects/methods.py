"""`vivace methods`: the inference methods that the efficiency tracks measure, and their settings."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import (
    ColumnsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    line_width,
    print_json,
    print_rows,
    print_text,
    say,
    settings_of,
)
from vivace.cli.tables.printing import ShownColumns
from vivace.machine.optional_packages import require_torch

if TYPE_CHECKING:
    from vivace_methods.protocol import Method

app = typer.Typer(help="Inference methods: what there is, and what can be set.", no_args_is_help=True)

LIST_COLUMNS = {
    "method": lambda row: row["name"],
    "track": lambda row: row["family"],
    "needs": lambda row: ", ".join(row["needs"]) or "–",
    "settings": lambda row: ", ".join(f"{each['name']}={each['default']}" for each in row["settings"]) or "–",
    "what it is": lambda row: row["summary"],
}
LIST = ShownColumns(LIST_COLUMNS, first=("method", "track", "what it is", "needs"), prose=("what it is", "settings"))

SETTINGS = ShownColumns(
    {
        "setting": lambda row: row["name"],
        "default": lambda row: str(row["default"]) or "''",
        "may be": lambda row: row["kind"],
        "meaning": lambda row: row["meaning"],
    },
    prose=("may be", "meaning"),
)

ACCURACY_COLUMNS = {
    "task": lambda row: row["task"],
    "metric": lambda row: row["metric"],
    "value": lambda row: f"{row['value']:.4f}",
    "stderr": lambda row: "–" if row["stderr"] is None else f"{row['stderr']:.4f}",
    "n": lambda row: str(row["n"]),
}


@app.command("list")
def list_(columns: ColumnsOption = "", format: FormatOption = Format.TABLE) -> None:
    """All methods, a line each."""
    from vivace_methods.registry import METHODS

    print_rows([_described(kind) for kind in METHODS.values()], format, LIST, columns)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `vivace methods list` writes it.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """One method: purpose, paper, what it needs, and its settings with their defaults."""

    from vivace.errors import UsageError
    from vivace_methods.families import FAMILIES
    from vivace_methods.protocol import MethodError
    from vivace_methods.registry import method_class

    try:
        row = _described(method_class(name))
    except MethodError as error:
        raise UsageError(str(error)) from error
    if format is Format.JSON:
        print_json(row)
        return
    if format is not Format.TABLE:
        print_rows([row], format, LIST)
        return
    width = line_width() or 100
    needs = ", ".join(f"a {need}" for need in row["needs"]) or "nothing but a model"
    about = (*row["paragraphs"], f"Paper: {row['paper']}", f"Needs: {needs}")
    for paragraph in (f"{row['name']} ({FAMILIES[row['family']].title})", row["summary"], *about):
        print_text("\n".join(textwrap.wrap(paragraph, width)) + "\n")
    if row["settings"]:
        print_rows(row["settings"], format, SETTINGS)


@app.command()
def fit(
    arm: Annotated[str, typer.Argument(help="A method with its settings, as in 'r-sparse(sparsity=0.4)'.")],
    model: Annotated[str, typer.Option("--model", help="zoo:NAME, packaged:NAME, local:FOLDER, "
                                     "local:FILE.gguf, local:ID@REVISION or random:NAME.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe's folder; an interrupted search goes on "
                                         "there.")],
    calibration: Annotated[str, typer.Option("--calibration", help="A UTF-8 text file, or generated tasks.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Of the calibration.")] = 8192,
    layers: Annotated[int | None, typer.Option("--layers", help="Fewer layers of a random: model.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the processor.",
                                                show_default="one a core; zoo: one")] = None,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Fit a method to a model, and write the recipe that its arms take: 'METHOD(SETTINGS):FOLDER'."""
    from vivace.cli.running.steps import steps_of
    from vivace.errors import UsageError

    require_torch()
    from vivace.tracks.efficiency.fitting_texts import find_calibration
    from vivace.tracks.efficiency.measured_models import find_target, loaded_to_fit
    from vivace.tracks.efficiency.recipes import fit_recipe
    from vivace_methods.protocol import MethodError
    from vivace_methods.registry import parse_method

    try:
        method = parse_method(arm)
        if "recipe" not in method.needs:
            raise UsageError(f"{method.name} needs no recipe: there is nothing to fit.")
        _require_dtype(dtype)
        target = find_target(model, layers, settings_of(home, None).home)
        found = find_calibration(calibration, [])
        _use_threads(threads or (None if target.origin.are_times_real else 1))
        folder = None if target.checkpoint is None else target.checkpoint.fetched()
        made, tokenizer = loaded_to_fit(target, folder, dtype=dtype, device=device)
        texts = found.texts(made, tokenizer, tokens)
        revision = None if target.checkpoint is None else target.checkpoint.commit
        with steps_of(method.label, None) as tell:
            recipe = fit_recipe(
                method,  # type: ignore[arg-type]  # those that need a recipe are of this kind
                made,
                texts,
                output,
                model_name=target.name,
                revision=revision,
                calibration=found.name,
                on_step=lambda done, steps: tell(done, "", steps),
            )
    except MethodError as error:
        raise UsageError(str(error)) from error
    errors = [module.output_error for module in recipe.modules.values() if module.output_error is not None]
    say(
        f"{len(recipe.modules)} layers fitted on {recipe.tokens:,} tokens ({recipe.calibration}), of which "
        f"{recipe.threshold_tokens:,} told the thresholds; on text held back, their outputs lose "
        f"{sum(errors) / len(errors):.2%} of their squares on average"
    )
    print_text(f"{method.label}:{output}")


@app.command()
def accuracy(
    arm: Annotated[str, typer.Argument(help="dense, int8, or a fitted method as in 'teal(prompt=0.5):FOLDER'.")],
    model: Annotated[str, typer.Option("--model", help="zoo:NAME, packaged:NAME, local:FOLDER, "
                                     "local:FILE.gguf or local:ID@REVISION.")],
    tasks: Annotated[str | None, typer.Option("--tasks", help="By lm-eval's names, with commas between them.",
                                              show_default="those of R-Sparse's paper")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents of each task.",
                                              show_default="all")] = None,
    include_path: Annotated[Path | None, typer.Option("--include-path", help="A folder with further tasks in "
                                                      "lm-eval's YAML.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sequences in one pass of dense.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the processor.",
                                                show_default="one a core; zoo: one")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Accuracy on public tasks, as lm-evaluation-harness measures it, with a method applied."""
    from dataclasses import asdict

    from vivace.errors import UsageError
    from vivace.machine.optional_packages import require_lm_eval

    require_torch()
    require_lm_eval()
    from vivace.tracks.efficiency.accuracy import PAPER_TASKS, find_tasks, measure_accuracy, require_measurable
    from vivace.tracks.efficiency.measured_models import find_target, folder_of_fitted, loaded
    from vivace_methods.protocol import MethodError
    from vivace_methods.registry import parse_arm

    own = settings_of(home, None).home
    zoo = own / "zoo"
    try:
        asked = parse_arm(arm)
        require_measurable(asked, batch_size, folder_of_fitted(zoo))
        _require_dtype(dtype)
        target = find_target(model, None, own)
        if target.checkpoint is None:
            raise UsageError("random: models have no tokenizer, and public tasks are text.")
        names = list(PAPER_TASKS) if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
        if not names:
            raise UsageError("--tasks names no task.")
        found = find_tasks(names, include_path)
        _use_threads(threads or (None if target.origin.are_times_real else 1))
        folder = target.checkpoint.fetched()
        made, tokenizer = loaded(folder, None, None, dtype=dtype, device=device, seed=1)
        if tokenizer is None:
            raise UsageError(f"The model in {folder} has no tokenizer, and public tasks are text.")
        rows = measure_accuracy(
            made,
            tokenizer,
            asked,
            found,
            limit=limit,
            batch_size=batch_size,
            folder_of=folder_of_fitted(zoo),
        )
    except MethodError as error:
        raise UsageError(str(error)) from error
    print_rows([asdict(row) for row in rows], format, ACCURACY_COLUMNS)


DIAGNOSIS_COLUMNS = {
    "measure": lambda row: row["kind"],
    "ranking": lambda row: row["setting"],
    "layer": lambda row: row["layer"],
    "mean": lambda row: f"{row['value']:.3f}",
    "n": lambda row: str(row["n"]),
}


@app.command()
def diagnose(
    track: Annotated[str, typer.Argument(help="How each ranking of a prompt's tokens by its methods compares with "
                                         "the answer-informed oracle, layer by layer.")],
    model: Annotated[str, typer.Option("--model", help="zoo:NAME, packaged:NAME, local:FOLDER, "
                                     "local:FILE.gguf, local:ID@REVISION or random:NAME.")],
    tasks: Annotated[list[str] | None, typer.Option("--tasks", help="What is asked, name(setting=value), …")] = None,
    keep: Annotated[float, typer.Option("--keep", help="Of the prompt: up to 1 a share, above 1 tokens.")] = 0.2,
    draft: Annotated[str | None, typer.Option("--draft", help="A smaller model of the same tokenizer, whose ranking "
                                              "is held against the oracle too: a folder or zoo:NAME.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Samples of each task.")] = 8,
    most_tokens: Annotated[int | None, typer.Option("--most-tokens", min=1, help="The longest answer, in tokens.",
                                                    show_default="each task's own")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Fewer layers of a random: model.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of samples and random weights.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda.", show_default="auto")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.",
                                              show_default="auto")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the processor.",
                                                show_default="one a core; zoo: one")] = None,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:  # fmt: skip
    """What a track's methods go by, layer by layer, recorded as a run whose heat maps the leaderboard draws."""
    from dataclasses import asdict

    from vivace.cli.running import execution
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.efficiency import arm_board, diagnoses
    from vivace_methods.families import FAMILIES

    family = FAMILIES.get(track)
    if family is None or not family.ranked_by:
        ranked = ", ".join(name for name, its in FAMILIES.items() if its.ranked_by)
        raise UsageError(f"There are rankings to diagnose on the track {ranked}, and none on '{track}'.")
    require_torch()

    arms = [f"{family.ranked_by}(keep={keep})"]
    if draft is not None:
        arms.append(f"{family.ranked_by_draft}(keep={keep}):{draft}")
    asked = {
        "track": track, "model": model, "arms": arms, "baseline": family.baseline, "tasks": tasks,
        "limit": limit, "repeats": 1, "most-tokens": most_tokens, "layers": layers, "seed": seed, "device": device,
        "dtype": dtype, "threads": threads, "memory": False,
    }  # fmt: skip
    settings = settings_of(home, database)
    outcome = execution.run_here(execution.spec_from({}, asked), settings, retry_errors=False, force=False)
    found = open_for_reading(settings)
    assert found is not None
    arm = next((row.arm for row in arm_board(found, run=outcome.run_id) if row.method == family.ranked_by), "")
    rows = [asdict(row) for row in diagnoses(found, outcome.run_id, arm) if row.setting]
    found.close()
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    print_rows(sorted(rows, key=lambda row: kinds.index(row["kind"])), format, DIAGNOSIS_COLUMNS)
    execution.say_where(outcome, settings)
    raise typer.Exit(outcome.exit_code)


def _require_dtype(dtype: str) -> None:
    from vivace.errors import UsageError

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UsageError(f"--dtype takes float32, bfloat16 or float16, and not '{dtype}'.")


def _use_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _described(kind: type[Method]) -> dict[str, Any]:
    from dataclasses import asdict

    from vivace_methods.documentation import documentation_of

    said = documentation_of(kind)
    return {
        "name": kind.name,
        "family": kind.family,
        "summary": said.summary,
        "paper": kind.paper,
        "needs": list(kind.needs),
        "settings": [asdict(setting) for setting in said.settings],
        "documentation": inspect.getdoc(kind) or "",
        "paragraphs": list(said.paragraphs),
    }
