"""Accuracy on public tasks by lm-evaluation-harness, around a model to which a method is applied."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from vivace_methods.arms import Arm, FolderOf

PAPER_TASKS = (
    "winogrande",
    "piqa",
    "sciq",
    "openbookqa",
    "hellaswag",
    "boolq",
    "arc_easy",
    "arc_challenge",
    "wikitext",
)
"""The tasks of R-Sparse (arXiv 2504.19449) by lm-eval's names; its tenth, `xsum`, needs a further package."""

SEED = 1234
"""Of numpy and of few-shot examples, lm-eval's own; Python's is 0 there."""


@dataclass(frozen=True)
class Accuracy:
    """One metric of one task.

    Attributes:
        task: by lm-eval's name.
        metric: by lm-eval's name, with its filter where it has one.
        value: as lm-eval gives it: accuracies are from 0 to 1, perplexities from 1.
        stderr: standard error of the value; None where lm-eval gives none.
        n: documents that were asked.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int


def require_measurable(arm: Arm, batch_size: int, folder_of: FolderOf) -> None:
    """Refuse, before anything is loaded, an arm whose log-likelihoods would not be what its settings say.

    Args:
        arm: `dense`, rounded weights, or a method of activation sparsity with its recipe.
        batch_size: sequences in one pass.
        folder_of: finds the arm's recipe.

    Raises:
        UsageError: it is one.
        MethodError: there is no recipe, or it was fitted with other settings.
    """
    from vivace_methods.families import FAMILIES
    from vivace_methods.protocol import Need, Role

    (member, *others) = arm.members
    method = member.method
    if others or not FAMILIES[method.family].in_any_pass:
        raise UsageError(f"{arm.name} changes no log-likelihoods: accuracy is measured of dense and sparse arms.")
    if Role.LAYERS not in method.roles or Need.RECIPE not in method.needs:
        return
    if member.fitted is None:
        raise UsageError(
            f"{method.label} needs a recipe: write {method.label}:FOLDER with one of `vivace methods fit`."
        )
    if method.settings.get("prompt") == 0:
        raise UsageError(
            f"{arm.label} reads prompts densely, and a log-likelihood is one pass over a prompt, so nothing would be "
            "sparse: set prompt=0.1 as R-Sparse's released code does, 0.5 as TEAL's, or 1.0 for every token."
        )
    if batch_size > 1:
        raise UsageError(
            "Sparse arms are measured with --batch-size 1: in a batch, padding would count among a prompt's last "
            "tokens."
        )
    method.check_fitted(folder_of(member.fitted))


def find_tasks(names: Sequence[str], include: Path | None) -> dict[str, Any]:
    """Tasks of lm-eval with their documents by their names, those of a group or tag one by one.

    Args:
        names: as lm-eval knows them.
        include: a folder with further tasks in lm-eval's YAML; they come before lm-eval's own of the same name.

    Raises:
        UsageError: there is no such task or folder, or the task cannot be made.
        UnreachableError: its data is not on this machine and cannot be fetched.
    """
    import numpy
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise UsageError(f"There is no folder '{include}'; --include-path takes one with tasks in lm-eval's YAML.")
    manager = None
    if include is not None:
        manager = TaskManager(include_path=include, include_defaults=False)
    if manager is None or not set(names) <= set(manager.all_subtasks):
        manager = TaskManager(include_path=include)  # reads thousands of files: seconds
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise UsageError(
            f"lm-eval has no task '{unknown[0]}'; `lm-eval ls tasks` lists its own, and --include-path adds others."
        )
    random.seed(0)  # some tasks draw their documents
    numpy.random.seed(SEED)
    found: dict[str, Any] = {}
    for name in names:
        try:
            with _quiet():
                found |= manager.load([name])["tasks"]
        except ConnectionError as error:
            raise UnreachableError(f"The data of the task {name} cannot be fetched: {_one_line(error)}.") from error
        except Exception as error:  # tasks are code and data of others, and raise what they like
            raise UsageError(f"lm-eval cannot make the task {name}: {_one_line(error)}.") from error
    for task in found.values():
        task.set_fewshot_seed(SEED)
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
    return found


def measure_accuracy(
    model: Any,
    tokenizer: Any,
    arm: Arm,
    tasks: Mapping[str, Any],
    *,
    limit: int | None,
    batch_size: int,
    folder_of: FolderOf,
) -> list[Accuracy]:
    """Ask a model with a method applied; it is as it was afterwards.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        tokenizer: its own.
        arm: as `require_measurable` lets pass.
        tasks: as `find_tasks` gives them.
        limit: documents of each task; None for all.
        batch_size: sequences in one pass.
        folder_of: finds the arm's recipe.

    Returns:
        A row for each metric of each task, in the order of the tasks.

    Raises:
        MethodError: the recipe cannot be read, or is not for this model and these settings.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    with _quiet(), arm.attach(model, folder_of):
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        # Not `simple_evaluate`: it loads tasks only after the model, and asks git and pip about this machine.
        results = lm_eval.evaluate(wrapped, {"tasks": dict(tasks)}, limit=limit, log_samples=False)
    return [
        row
        for name, metrics in results["results"].items()
        for row in _rows(name, metrics, results["n-samples"][name]["effective"])
    ]


def _rows(task: str, metrics: dict[str, Any], n: int) -> Iterator[Accuracy]:
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = metrics.get(f"{metric}_stderr,{filtered}")
        name = metric if filtered == "none" else key
        yield Accuracy(task, name, float(value), float(stderr) if isinstance(stderr, float) else None, n)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep stdout to data, and back advice on options that nobody here can set; progress goes on to stderr."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(before)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
