"""Samples that lm-evaluation-harness writes with `--log_samples`: one file a task, a line a document and filter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import json_rows, read_text
from vivace.interchange.samples import SampleFile, TriedSample, TryOutcome, content_hash, finite
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.json_text import parse_json

NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
LONGEST_RESULTS = 2**26
_SHOWN = 80
"""Characters of a question."""


def read_lm_eval_samples(path: Path, score: str | None = None) -> SampleFile:
    """The samples of a task.

    Args:
        path: of `samples_TASK_DATE.jsonl`; what was reported is read from `results_DATE.json` beside it, if there.
        score: `metric` or `metric,filter`, as its results name them; None for the only one.

    Raises:
        UsageError: it cannot be read or holds no such samples, there is no such score, or there are several.
    """
    rows = _rows(path)
    metric, chosen = _chosen([row for _, row in rows], path, score)
    samples = _samples(rows, metric, chosen)
    named = NAME.fullmatch(path.name)
    task = named["task"] if named else path.stem
    results = _results(path.with_name(f"results_{named['date']}.json")) if named else {}
    key = f"{metric},{chosen}"
    value = finite(mapping(mapping(results, "results"), task).get(key))
    better = mapping(mapping(results, "higher_is_better"), task).get(metric)
    return SampleFile(
        path=path,
        tool="lm-eval",
        task=task,
        model=str(results.get("model_name") or mapping(results, "config").get("model_args") or path.parent.name),
        score=key,
        samples=samples,
        reported={} if value is None else {key: value},
        more_is_better=better if isinstance(better, bool) else None,
    )


def read_lm_eval_scores(path: Path) -> dict[str, dict[str, TriedSample] | None]:
    """The samples of a task under each `metric,filter`; None where documents have no value of their own.

    Raises:
        UsageError: it cannot be read or holds no such samples.
    """
    rows = _rows(path)
    found: dict[str, dict[str, TriedSample] | None] = {}
    for key in _keys([row for _, row in rows]):
        metric, _, chosen = key.rpartition(",")
        adds_up = any(isinstance(row.get(metric), list | dict | str) for _, row in rows if _filter(row) == chosen)
        found[key] = None if adds_up else _samples(rows, metric, chosen)
    return found


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows = json_rows(path, "samples")
    for place, row in rows:
        if "doc_id" not in row or not ("doc_hash" in row or "doc" in row):
            raise UsageError(f"{place} is no sample of lm-eval: it has no doc_id, or neither doc nor doc_hash.")
    return rows


def _samples(rows: Sequence[tuple[str, Mapping[str, Any]]], metric: str, chosen: str) -> dict[str, TriedSample]:
    samples: dict[str, TriedSample] = {}
    for place, row in rows:
        if _filter(row) != chosen:
            continue
        id = str(row["doc_id"])
        if id in samples:
            raise UsageError(f"{place}: the document {id} comes again; two runs were written into one file.")
        asked = content_hash([row.get("doc_hash") or row.get("doc"), row.get("target_hash") or row.get("target")])
        samples[id] = TriedSample(id, asked, _text(row), (_outcome(row.get(metric), metric, place),))
    return samples


def _filter(row: Mapping[str, Any]) -> str:
    return str(row.get("filter", "none"))


def _results(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = parse_json(read_text(path, "results", LONGEST_RESULTS))
    except ValueError as error:
        raise UsageError(f"The results '{path}' are not JSON ({error}).") from error
    return content if isinstance(content, dict) else {}


def mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What an object holds under a name, if that is an object; else an empty one."""
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _chosen(rows: Sequence[Mapping[str, Any]], path: Path, score: str | None) -> tuple[str, str]:
    """The metric and the filter."""
    names = _keys(rows)
    if not names:
        raise UsageError(f"The samples '{path}' have no metrics.")
    asked = [each for each in names if score is None or each == score or each.rpartition(",")[0] == score]
    if not asked:
        meant = did_you_mean(score or "", names)
        raise UsageError(f"'{path}' has no score '{score}'{meant}; it has {'; '.join(names)}.")
    if len(asked) > 1:
        raise UsageError(f"'{path}' has several scores ({'; '.join(asked)}): choose one with --score.")
    metric, _, filtered = asked[0].rpartition(",")
    return metric, filtered


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every `metric,filter`, in the order in which they come."""
    return list(dict.fromkeys(f"{metric},{_filter(row)}" for row in rows for metric in _metrics(row)))


def _metrics(row: Mapping[str, Any]) -> list[str]:
    listed = row.get("metrics")
    return [str(each) for each in listed] if isinstance(listed, list) else []


def _text(row: Mapping[str, Any]) -> str:
    document = row.get("doc")
    if isinstance(document, dict):
        document = next((value for value in document.values() if isinstance(value, str)), "")
    return " ".join(str(document or "").split())[:_SHOWN]


def _outcome(value: Any, metric: str, place: str) -> TryOutcome:
    if value is None:
        return TryOutcome(None, "no score")
    if isinstance(value, list | dict | str):
        raise UsageError(f"{place}: '{metric}' is no number, and adds up over documents only as lm-eval does it.")
    number = float(value) if isinstance(value, bool) else finite(value)
    return TryOutcome(None, "not a number") if number is None else TryOutcome.of(number)
