"""Results of lm-evaluation-harness: `results_DATE.json`, every task with its figures, and the samples behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import read_text
from vivace.interchange.lm_eval_samples import LONGEST_RESULTS, NAME, mapping, read_lm_eval_scores
from vivace.interchange.provenance import bounded, check_size
from vivace.interchange.samples import EvaluationOrigin, SampleFile, TriedSample, count, finite
from vivace_rubrics.json_text import parse_report

_SETTINGS = (
    "model",
    "model_args",
    "model_revision",
    "model_dtype",
    "limit",
    "gen_kwargs",
    "batch_size",
    "random_seed",
)
"""What of its `config` makes a result, or tells where it comes from."""


def read_lm_eval_results(paths: Sequence[Path]) -> list[SampleFile]:
    """Every figure of result files, a metric and filter of a task each, with its samples where their file is given.

    Args:
        paths: of `results_DATE.json` and `samples_TASK_DATE.jsonl` in any order; of samples whose results are not
            given, those beside them are read.

    Raises:
        UsageError: a file that cannot be read or is none of them, samples of no results, or a value that is none.
    """
    samples = {path.absolute(): path for path in paths if path.suffix == ".jsonl"}
    results = {path.absolute(): path for path in paths if path.suffix != ".jsonl"}
    for path in samples.values():
        beside = _results_of(path)
        results.setdefault(beside.absolute(), beside)
    found = [file for path in results.values() for file in _figures(path, list(samples.values()))]
    if not found:
        raise UsageError("These files hold no figure of lm-eval.")
    return found


def _results_of(samples: Path) -> Path:
    """The results that were written with samples."""
    named = NAME.fullmatch(samples.name)
    if named is None:
        raise UsageError(f"'{samples}' is not called samples_TASK_DATE.jsonl, so that its results cannot be found.")
    return samples.with_name(f"results_{named['date']}.json")


def _figures(path: Path, samples: Sequence[Path]) -> Iterator[SampleFile]:
    content = _content(path)
    its = {}
    for each in samples:
        named = NAME.fullmatch(each.name)
        if named is not None and _results_of(each).absolute() == path.absolute():
            its[named["task"]] = each
    tasks = content["results"]
    if unknown := sorted(its.keys() - tasks.keys()):
        raise UsageError(f"The results '{path}' have no task '{unknown[0]}', of which there are samples.")
    for task, figures in tasks.items():
        if not isinstance(figures, dict):
            raise UsageError(f"The results '{path}' hold no figures of the task '{task}'.")
        recorded = read_lm_eval_scores(its[task]) if task in its else {}
        for key, value in figures.items():
            if "," not in key or key.partition(",")[0].endswith("_stderr") or value in ("N/A", "", None):
                continue
            yield _figure(path, content, str(task), key, recorded)


def _content(path: Path) -> dict[str, Any]:
    text = read_text(path, "results", LONGEST_RESULTS)
    try:
        check_size(text.encode())
        content = parse_report(text)
    except ValueError as error:
        raise UsageError(f"The results '{path}' are not JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UsageError(f"'{path}' holds no results of lm-eval: it has no `results`.")
    if "lm_eval_version" not in content and "configs" not in content:
        raise UsageError(f"'{path}' holds no results of lm-eval: it has neither `configs` nor `lm_eval_version`.")
    return content


def _figure(
    path: Path,
    content: Mapping[str, Any],
    task: str,
    key: str,
    recorded: Mapping[str, Mapping[str, TriedSample] | None],
) -> SampleFile:
    metric, _, filtered = key.partition(",")
    figures = mapping(mapping(content, "results"), task)
    value = finite(figures[key])
    if value is None:
        raise UsageError(f"'{path}': {key} of {task} is {figures[key]!r:.60}, and no number.")
    error = finite(figures.get(f"{metric}_stderr,{filtered}"))
    samples = recorded.get(key, {})
    notes = []
    if samples is None:
        notes.append("lm-eval adds this one up over documents, which have no value of their own")
    if task in mapping(content, "groups"):
        notes.append("a group of tasks")
    return replace(
        described(content, path, task),
        score=key,
        samples=samples or {},
        reported={metric: value, **({} if error is None else {"stderr": error})},
        more_is_better=_better(content, task, metric),
        notes=tuple(notes),
    )


def _better(content: Mapping[str, Any], task: str, metric: str) -> bool | None:
    better = mapping(mapping(content, "higher_is_better"), task).get(metric)
    return better if isinstance(better, bool) else None


def described(content: Mapping[str, Any], path: Path, task: str) -> SampleFile:
    """A task of results, without any figure."""
    config, of_task = mapping(content, "config"), mapping(mapping(content, "configs"), task)
    counted = mapping(mapping(content, "n-samples"), task)
    shots = mapping(content, "n-shot").get(task)
    settings = {
        **{name: config[name] for name in _SETTINGS if config.get(name) not in (None, {}, "")},
        **({"shots": shots} if shots is not None else {}),
        **({"system instruction": content["system_instruction"]} if content.get("system_instruction") else {}),
        **({"chat template": content["chat_template_sha"]} if content.get("chat_template_sha") else {}),
        **({"split": of_task["test_split"]} if of_task.get("test_split") else {}),
        **(
            {"documents": counted["original"]}
            if counted.get("original") not in (None, counted.get("effective"))
            else {}
        ),
    }
    version = mapping(content, "versions").get(task)
    return SampleFile(
        path=path,
        tool="lm-eval",
        task=task,
        model=str(content.get("model_name") or config.get("model_args") or path.parent.name),
        score="",
        samples={},
        origin=EvaluationOrigin(
            version=str(content.get("lm_eval_version") or ""),
            task_version="" if version in (None, "N/A") else str(version),
            data=" ".join(str(of_task[name]) for name in ("dataset_path", "dataset_name") if of_task.get(name)),
            made_at=content.get("date"),
            settings=bounded(settings),
            planned=count(counted.get("effective")),
        ),
    )
