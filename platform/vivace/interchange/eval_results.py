"""Results for a model's card on the Hugging Face hub: `.eval_results/NAME.yaml`, written by the hub's own classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from vivace.errors import UsageError
from vivace.files.text import parse_yaml, read_text
from vivace.interchange.provenance import bounded, moment
from vivace.interchange.samples import EvaluationOrigin, SampleFile, finite

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

    from vivace.store.queries.board import BoardRow

_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TASK = re.compile(r"[a-z0-9][a-z0-9_.-]*")
METRICS = ("apr", "ars")
HUB = "hub"
"""As a tool: whoever put the file there does not say what made it."""


def eval_results_yaml(row: BoardRow, dataset: str | None = None, source: str | None = None) -> str:
    """The file's text: rates from 0 to 1 of the tasks `apr` and `ars`, and of each axis as `apr_inference_memory`.

    What the form has no field for (interval, coverage, judge) stands in the notes.

    Args:
        row: of the board.
        dataset: id of the benchmark's dataset on the hub; None where the run's data are of there.
        source: an address that shows the results.

    Raises:
        UsageError: a row that is not ranked, data that have no id on the hub, an address that is none.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    entries = [_entry(row, task, value, notes, dataset, source) for task, value, notes in _results(row)]
    for entry in entries:
        check_entry(entry)
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def read_eval_results(text: str) -> list[EvalResultEntry]:
    """The entries of such a file, each checked, for the hub's own parser takes any value and date.

    Raises:
        UsageError: it is no such file, or an entry holds what is none of its kind.
    """
    from huggingface_hub import parse_eval_result_entries

    try:
        content = parse_yaml(text)
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            raise TypeError("it is no list of entries")
        entries = parse_eval_result_entries(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"These are no results of the hub's form ({error}).") from error
    for entry in entries:
        check_entry(entry)
    return entries


def read_hub_results(path: Path, model: str | None) -> list[SampleFile]:
    """The entries of a file as results, each a figure alone: what is behind it the form does not hold.

    Args:
        path: of a file in `.eval_results/` of a model's repository.
        model: whose repository that is.

    Raises:
        UsageError: it cannot be read, is no such file, or says one thing twice.
    """
    entries = read_eval_results(read_text(path, "results"))
    seen: set[tuple[Any, ...]] = set()
    for entry in entries:
        key = (entry.dataset_id, entry.task_id, entry.dataset_revision, entry.notes)
        if key in seen:
            raise UsageError(f"'{path}' has two values for {entry.task_id} of {entry.dataset_id}.")
        seen.add(key)
    return [_figure(path, entry, model or "") for entry in entries]


def _figure(path: Path, entry: EvalResultEntry, model: str) -> SampleFile:
    told = {"revision": entry.dataset_revision, "notes": entry.notes, "source": entry.source_url}
    return SampleFile(
        path=path,
        tool=HUB,
        task=entry.dataset_id,
        model=model,
        score=entry.task_id,
        samples={},
        reported={"value": float(entry.value)},
        origin=EvaluationOrigin(
            data=entry.dataset_id,
            made_at=None if entry.date is None else str(entry.date),
            settings=bounded({name: value for name, value in told.items() if value is not None}),
        ),
    )


def check_entry(entry: EvalResultEntry) -> None:
    """See that an entry holds what its fields are for.

    Raises:
        UsageError: a value that is no finite number, a date that is none, a dataset or task that has no id's form, or
            a source that is no address.
    """
    value: Any = entry.value
    if finite(value) is None:
        raise UsageError(f"The value of {entry.task_id} is {value!r}, and no number.")
    if not isinstance(entry.dataset_id, str) or _DATASET.fullmatch(entry.dataset_id) is None:
        raise UsageError(f"'{entry.dataset_id}' is no id of a dataset on the hub: write OWNER/NAME.")
    if not isinstance(entry.task_id, str) or _TASK.fullmatch(entry.task_id) is None:
        raise UsageError(f"'{entry.task_id}' is no id of a task.")
    if entry.date is not None:
        moment(str(entry.date), f"The date of {entry.task_id}")
    if entry.source_url is not None and urlsplit(str(entry.source_url)).scheme not in ("http", "https"):
        raise UsageError(f"'{entry.source_url}' is no address of a page: write https://….")


def _results(row: BoardRow) -> Sequence[tuple[str, float, str]]:
    """Task, value and notes of each rate that is known."""
    slices = {"": row.figures, **{f"_{axis.lower()}": figures for axis, figures in row.axes.items()}}
    found = []
    for name, figures in slices.items():
        for metric in METRICS:
            value, low, high = (getattr(figures, field) for field in (metric, f"{metric}_low", f"{metric}_high"))
            if value is None:
                continue
            interval = "" if low is None else f"95 % interval {low:.4f} to {high:.4f}; "
            notes = (
                f"{interval}{figures.n} conversations, {figures.criteria - figures.unscored} of {figures.criteria} "
                f"criteria scored; data {row.data} {row.data_revision[:12]}; {row.input_form} in, "
                f"{row.output_form} out; judge {row.judge} {row.judge_fingerprint[:12]}; Vivace, "
                f"judging {row.judging}"
            )
            found.append((metric + name, value, notes))
    return found


def _entry(
    row: BoardRow, task: str, value: float, notes: str, dataset: str | None, source: str | None
) -> EvalResultEntry:
    from huggingface_hub import EvalResultEntry

    if row.standing != "ranked":
        raise UsageError(
            f"This row stands apart on the board ({row.standing}): what is known of a part is no result of the whole."
        )
    named = dataset or row.data
    if _DATASET.fullmatch(named) is None:
        raise UsageError(f"'{named}' is no dataset of the hub; name the benchmark's with --dataset-id OWNER/NAME.")
    return EvalResultEntry(
        dataset_id=named,
        task_id=task,
        value=value,
        dataset_revision=row.data_revision if dataset is None else None,
        date=row.date.isoformat(),
        source_url=source,
        source_name=None if source is None else "Vivace",
        notes=notes,
    )
