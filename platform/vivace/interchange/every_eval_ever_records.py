"""Records of Every Eval Ever 0.3.0, of whatever tool: each result with its samples, where they are given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import json_rows, read_text
from vivace.interchange.every_eval_ever import SCHEMA
from vivace.interchange.provenance import bounded, check_size
from vivace.interchange.samples import (
    EvaluationOrigin,
    SampleFile,
    TriedSample,
    TryOutcome,
    content_hash,
    count,
    finite,
)
from vivace_rubrics.json_text import parse_report

LONGEST_RECORD = 2**26
UNKNOWN_LEVEL = -1.0
"""The score that says in results with levels that the level is not known."""
_SHOWN = 80
"""Characters of a question."""


def read_every_eval_ever(paths: Sequence[Path]) -> list[SampleFile]:
    """Every result of records, with the lines of `…_samples.jsonl` that are of it, and ours of `…_unscored.jsonl`.

    Their verdicts know right and wrong alone: what has an error is unscored here, as is a level that is not known.
    Nothing tells which samples go together, so that their spread gives no interval; the record's own is kept.

    Args:
        paths: of records (`.json`) and of their lines (`.jsonl`) in any order.

    Raises:
        UsageError: a file that cannot be read or is none of the two, lines of no record, a score that is no number.
    """
    records = [(path, _record(path)) for path in paths if path.suffix != ".jsonl"]
    lines: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for path in (path for path in paths if path.suffix == ".jsonl"):
        if path.stat().st_size if path.is_file() else True:  # nothing unscored is a file without a line
            for place, row in json_rows(path, "lines"):
                lines[_key(row, place)].append((place, row))
    found = [file for path, record in records for file in _results(path, record, lines)]
    if lines:
        place, _ = next(iter(lines.values()))[0]
        raise UsageError(f"{place} is of no result in the records that are given with it.")
    if not found:
        raise UsageError("These files hold no result of Every Eval Ever; name its records (`.json`) too.")
    return found


def _record(path: Path) -> dict[str, Any]:
    text = read_text(path, "record", LONGEST_RECORD)
    try:
        check_size(text.encode())
        content = parse_report(text)
    except ValueError as error:
        raise UsageError(f"The record '{path}' is not JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("evaluation_results"), list):
        raise UsageError(f"'{path}' is no record of Every Eval Ever: it has no `evaluation_results`.")
    if not str(content.get("schema_version", "")).startswith("0."):
        raise UsageError(
            f"'{path}' is of schema {content.get('schema_version')!r:.20} of Every Eval Ever; {SCHEMA} is read."
        )
    return content


def _key(row: Mapping[str, Any], place: str) -> str:
    key = row.get("evaluation_result_id") or row.get("evaluation_name")
    if not isinstance(key, str) or "evaluation_id" not in row or "sample_id" not in row:
        raise UsageError(f"{place} is no line of Every Eval Ever: it has no evaluation_id, sample_id or name.")
    return f"{row['evaluation_id']}\n{key}"


def _results(
    path: Path, record: Mapping[str, Any], lines: dict[str, list[tuple[str, dict[str, Any]]]]
) -> list[SampleFile]:
    library, model = _object(record, "eval_library"), _object(record, "model_info")
    evaluation = str(record.get("evaluation_id") or "")
    whole = SampleFile(
        path=path,
        tool=str(library.get("name") or ""),
        task=evaluation.partition("/")[0],
        model=str(model.get("id") or model.get("name") or ""),
        score="",
        samples={},
        origin=EvaluationOrigin(
            version=str(library.get("version") or ""),
            made_at=_seconds(record.get("evaluation_timestamp")),
        ),
    )
    if not whole.tool:
        raise UsageError(f"'{path}' does not say which tool made its results (`eval_library`).")
    found = []
    for number, result in enumerate(record["evaluation_results"], start=1):
        place = f"Result {number} of '{path}'"
        if not isinstance(result, dict):
            raise UsageError(f"{place} is no object.")
        name = str(result.get("evaluation_name") or "")
        ids = [result.get("evaluation_result_id"), name]
        its = [each for id in dict.fromkeys(ids) if id for each in lines.pop(f"{evaluation}\n{id}", [])]
        found.append(_result(whole, result, name, its, place))
    return found


def _seconds(value: Any) -> Any:
    """A time as the schema has it, seconds in a text, as a number; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _result(
    whole: SampleFile, result: Mapping[str, Any], name: str, lines: Sequence[tuple[str, dict[str, Any]]], place: str
) -> SampleFile:
    metric, details = _object(result, "metric_config"), _object(result, "score_details")
    score = finite(details.get("score"))
    if score is None:
        raise UsageError(f"{place}: its score is {details.get('score')!r:.60}, and no number.")
    told, uncertain = _object(details, "details"), _object(details, "uncertainty")
    interval, error = _object(uncertain, "confidence_interval"), _object(uncertain, "standard_error")
    figures = {
        "score": score, "low": finite(interval.get("lower")), "high": finite(interval.get("upper")),
        "stderr": finite(error.get("value")),
    }  # fmt: skip
    lower = metric.get("lower_is_better")
    generation = _object(_object(result, "generation_config"), "generation_args")
    planned = count(told.get("planned")) or count(uncertain.get("num_samples"))
    unscored = count(told.get("unscored"))
    levels = metric.get("has_unknown_level") is True
    return replace(
        whole,
        score=name or str(metric.get("metric_id") or ""),
        samples=_samples(lines, levels),
        reported={key: value for key, value in figures.items() if value is not None},
        more_is_better=None if not isinstance(lower, bool) else not lower,
        origin=replace(
            whole.origin,
            data=str(_object(result, "source_data").get("dataset_name") or ""),
            settings=bounded({key: value for key, value in generation.items() if value is not None}),
            planned=planned,
            scored=None if planned is None or unscored is None else max(0, planned - unscored),
            independent=False,
        ),
    )


def _samples(lines: Sequence[tuple[str, Mapping[str, Any]]], levels: bool) -> dict[str, TriedSample]:
    found: dict[str, TriedSample] = {}
    tries: set[tuple[str, str]] = set()
    for place, line in lines:
        id, epoch = str(line["sample_id"]), str(_object(line, "metadata").get("epoch", ""))
        if (id, epoch) in tries:
            raise UsageError(f"{place}: the sample {id} comes again.")
        tries.add((id, epoch))
        question = _object(line, "input")
        asked = str(line.get("sample_hash") or content_hash(question))
        before = found.get(id)
        outcomes = (*(before.outcomes if before else ()), _outcome(line, levels, place))
        found[id] = TriedSample(id, asked, " ".join(str(question.get("raw") or "").split())[:_SHOWN], outcomes)
    return found


def _outcome(line: Mapping[str, Any], levels: bool, place: str) -> TryOutcome:
    if line.get("unscored_reason") is not None:  # a file of ours beside theirs
        return TryOutcome(None, str(line["unscored_reason"]))
    score = _object(line, "evaluation").get("score")
    value = float(score) if isinstance(score, bool) else finite(score)
    if value is None:
        raise UsageError(f"{place}: its score is {score!r:.60}, and no number.")
    if line.get("error"):
        return TryOutcome(None, "error", value)
    return TryOutcome(None, "level not known", None) if levels and value == UNKNOWN_LEVEL else TryOutcome.of(value)


def _object(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}
