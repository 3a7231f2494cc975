"""Logs of inspect_ai, read without it: `.eval` archives and `.json` files (its log version 2)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import LONGEST_ROWS, read_text
from vivace.interchange.samples import Outcome, Sample, SampleFile, content_hash
from vivace.interchange.zip_members import archive
from vivace_methods.suggesting import did_you_mean
from vivace_rubrics.json_text import parse_json

VERDICTS = {"C": 1.0, "P": 0.5, "I": 0.0}
"""Its letters for correct, partially correct and incorrect; N, no answer, it counts as 0, and here is unscored."""
NO_ANSWER = "N"
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_WHOLE = re.compile(r"samples/[^/]+\.json")
_IN_PIECES = re.compile(r"samples/[^/]+/sample\.json")
_SHOWN = 80
"""Characters of a question."""


@dataclass
class _Log:
    """What is read of a log, before it is known which score is asked for."""

    header: Mapping[str, Any]
    tries: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Id → its epochs, each with `asked`, `text`, `scores` and `unscored`."""

    def add(self, sample: Any, place: str) -> None:
        if not isinstance(sample, dict) or "id" not in sample:
            raise UsageError(f"{place} is no sample of inspect.")
        attachments = sample.get("attachments")
        found = {
            "epoch": sample.get("epoch", 1),
            "asked": content_hash(_question(sample, attachments if isinstance(attachments, dict) else {})),
            "text": _text(sample.get("input"))[:_SHOWN],
            "scores": {
                str(name): score.get("value") if isinstance(score, dict) else None
                for name, score in (sample.get("scores") or {}).items()
            },
            "unscored": "error" if sample.get("error") else "invalidated" if sample.get("invalidation") else None,
        }
        self.tries.setdefault(str(sample["id"]), []).append(found)


def read_inspect_log(path: Path, score: str | None = None) -> SampleFile:
    """The samples of a log.

    Args:
        path: of a `.eval` archive or of a log in JSON.
        score: the scorer's name, `scorer.field` where its values have fields; None for the log's headline score, or
            the only one.

    Raises:
        UsageError: it cannot be read or is no log, has no samples, is in a form that needs inspect, or there is no
            such score, or several.
    """
    log = _of_archive(path) if path.suffix == ".eval" else _of_json(path)
    if not log.tries:
        raise UsageError(f"'{path}' has no samples; the log was written without them, or nothing had ended.")
    chosen, part = _chosen(log, path, score)
    samples = {}
    for id, epochs in log.tries.items():
        asked = {each["asked"] for each in epochs}
        if len(asked) > 1:
            raise UsageError(f"'{path}' asks different things in the epochs of sample {id}; it is damaged.")
        outcomes = [
            _outcome(each, chosen, part, path) for each in sorted(epochs, key=lambda each: str(each["epoch"]))
        ]
        samples[id] = Sample(id, epochs[0]["asked"], epochs[0]["text"], tuple(outcomes))
    spec = _mapping(log.header, "eval")
    status = log.header.get("status")
    return SampleFile(
        path=path,
        tool="inspect",
        task=str(spec.get("task", "")),
        model=str(spec.get("model", "")),
        score=chosen if part is None else f"{chosen}.{part}",
        samples=samples,
        reported=_reported(log.header, chosen, part),
        notes=()
        if status == "success"
        else (f"the log's status is {status or 'not known'}: samples may be missing",),
    )


def _of_archive(path: Path) -> _Log:
    with archive(path) as opened:
        start = next((name for name in ("header.json", "_journal/start.json") if name in opened.names), None)
        if start is None:
            raise UsageError(f"'{path}' is no log of inspect: it has neither header.json nor _journal/start.json.")
        header = _json(opened.read(start), f"'{start}' in '{path}'")
        if not isinstance(header, dict):
            raise UsageError(f"'{start}' in '{path}' is no object.")
        if any(map(_IN_PIECES.fullmatch, opened.names)):
            return _by_inspect(path)
        log = _Log({"status": "started", **header} if start != "header.json" else header)
        for name in filter(_WHOLE.fullmatch, opened.names):
            place = f"'{name}' in '{path}'"
            log.add(_json(opened.read(name), place), place)
    return log


def _by_inspect(path: Path) -> _Log:
    """Samples in pieces, which inspect itself puts together."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise UsageError(
            f"'{path}' holds samples in pieces, which inspect alone puts together: `pip install inspect_ai` beside "
            "Vivace, or write the log anew with `inspect log convert`."
        ) from error
    whole = parse_json(read_eval_log(str(path)).model_dump_json())
    log = _Log(whole)
    for number, sample in enumerate(whole.get("samples") or []):
        log.add(sample, f"Sample {number} of '{path}'")
    return log


def _of_json(path: Path) -> _Log:
    content = _json(read_text(path, "log", LONGEST_ROWS).encode(), f"'{path}'")
    if not isinstance(content, dict) or not isinstance(content.get("eval"), dict):
        raise UsageError(f"'{path}' is no log of inspect: it has no `eval`.")
    log = _Log(content)
    listed = content.get("samples")
    for number, sample in enumerate(listed if isinstance(listed, list) else [], start=1):
        log.add(sample, f"Sample {number} of '{path}'")
    return log


def _json(content: bytes, place: str) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        raise UsageError(f"{place} is not JSON ({error}).") from error


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _question(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> Any:
    """What was asked and what was to come out, without the ids that each log gives its messages anew."""
    asked = {"input": sample.get("input"), "choices": sample.get("choices"), "target": sample.get("target")}
    if isinstance(asked["input"], list):
        asked["input"] = [
            {"role": each.get("role"), "content": _content(each.get("content"))} if isinstance(each, dict) else each
            for each in asked["input"]
        ]
    else:
        asked["input"] = [{"role": "user", "content": asked["input"]}]
    return _attached(asked, attachments)


def _content(content: Any) -> Any:
    """The content of a message, a single text as that text."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict) and "text" in content[0]:
        return content[0]["text"]
    return content


def _attached(content: Any, attachments: Mapping[str, Any]) -> Any:
    """Content with what lies elsewhere in the log put in its place."""
    if isinstance(content, dict):
        return {key: _attached(value, attachments) for key, value in content.items()}
    if isinstance(content, list):
        return [_attached(value, attachments) for value in content]
    if isinstance(content, str) and content.startswith("attachment://"):
        return attachments.get(content.removeprefix("attachment://"), content)
    return content


def _text(content: Any) -> str:
    """What a person would know the question by: of a conversation the last message."""
    if isinstance(content, list):
        last = content[-1] if content else ""
        return _text(_content(last.get("content")) if isinstance(last, dict) and "content" in last else str(last))
    return " ".join(str(content).split())


def _chosen(log: _Log, path: Path, score: str | None) -> tuple[str, str | None]:
    """The scorer, and the field of its values where it has several."""
    names = list(dict.fromkeys([*_planned(log.header), *_seen(log.tries.values())]))
    if not names:
        raise UsageError(f"'{path}' has no scores.")
    if score is None:
        headline = _mapping(_mapping(log.header, "results"), "headline").get("score")
        if headline not in names and len(names) > 1:
            raise UsageError(f"'{path}' has several scores ({', '.join(names)}): choose one with --score.")
        name, part = (headline if headline in names else names[0]), None
    else:
        name = max((each for each in names if score == each or score.startswith(f"{each}.")), key=len, default=None)
        if name is None:
            raise UsageError(
                f"'{path}' has no score '{score}'{did_you_mean(score, names)}; it has {', '.join(names)}."
            )
        part = score[len(name) + 1 :] or None
    _check_part(log, path, name, part)
    return name, part


def _check_part(log: _Log, path: Path, name: str, part: str | None) -> None:
    values = [each["scores"].get(name) for epochs in log.tries.values() for each in epochs]
    parts = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
    if parts and part is None:
        told = ", ".join(f"{name}.{each}" for each in parts)
        raise UsageError(f"The score '{name}' in '{path}' has several values: choose with --score one of {told}.")
    if part is not None and part not in parts:
        raise UsageError(f"The score '{name}' in '{path}' has no value '{part}'{did_you_mean(part, parts)}.")


def _planned(header: Mapping[str, Any]) -> Iterator[str]:
    listed = _mapping(header, "results").get("scores")
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            yield each["name"]


def _seen(tries: Iterable[list[Mapping[str, Any]]]) -> Iterator[str]:
    for epochs in tries:
        for each in epochs:
            yield from each["scores"]


def _outcome(found: Mapping[str, Any], name: str, part: str | None, path: Path) -> Outcome:
    scores = found["scores"]
    if found["unscored"] is not None and name not in scores:
        return Outcome(None, found["unscored"])
    value = scores.get(name)
    if part is not None and isinstance(value, dict):
        value = value.get(part)
    if isinstance(value, list | dict):
        raise UsageError(f"Values of the score '{name}' in '{path}' are lists; there is no one value to compare.")
    return outcome_of(value)


def outcome_of(value: Any) -> Outcome:
    """What a value of inspect's says, and what it counts as there.

    Args:
        value: a letter of its menu, a number, a truth value, or their texts; None where there is none.
    """
    if value is None:
        return Outcome(None, "no score")
    if isinstance(value, str):
        number = VERDICTS.get(value, WORDS.get(value.lower()))
        if number is None and value != NO_ANSWER:
            number = _number(value)
        if number is None:
            return Outcome(None, "no answer" if value == NO_ANSWER else "off the menu", 0.0)
        return Outcome.of(number)
    number = float(value) if isinstance(value, int) and abs(value) < 2**53 else value
    if not isinstance(number, float) or not math.isfinite(number):
        return Outcome(None, "not a number")
    return Outcome.of(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _reported(header: Mapping[str, Any], name: str, part: str | None) -> dict[str, float]:
    """Its own metrics of the score."""
    listed = _mapping(header, "results").get("scores")
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and each.get("name") == (part or name) and each.get("scorer", name) in (name, part):
            metrics = _mapping(each, "metrics")
            return {
                str(metric): float(told["value"])
                for metric, told in metrics.items()
                if isinstance(told, dict) and isinstance(told.get("value"), int | float)
            }
    return {}
