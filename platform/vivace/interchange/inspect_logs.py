"""Logs of inspect_ai, read without it: `.eval` archives and `.json` files (its log version 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import LONGEST_ROWS, read_text
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
from vivace.interchange.zip_members import LONGEST_MEMBER, Archive, archive
from vivace.output.printable import json_text
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.json_text import parse_report

VERDICTS = {"C": 1.0, "P": 0.5, "I": 0.0}
"""Its letters for correct, partially correct and incorrect; N, no answer, it counts as 0, and here is unscored."""
NO_ANSWER = "N"
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_WHOLE = re.compile(r"samples/[^/]+\.json")
_IN_PIECES = re.compile(r"samples/[^/]+/sample\.json")
LONGEST_SCORES = 100_000
"""Characters of the values of a sample's scores; of all samples they are kept at once."""
LONGEST_NUMBER = 12
"""Digits of the number of an attachment."""
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
        id, epoch = str(sample["id"]), str(sample.get("epoch", 1))
        if any(each["epoch"] == epoch for each in self.tries.get(id, ())):
            raise UsageError(
                f"{place}: epoch {epoch} of sample {id} comes again; two runs were written into one log."
            )
        scores, attachments = sample.get("scores"), sample.get("attachments")
        values = {
            str(name): score.get("value") if isinstance(score, dict) else None
            for name, score in (scores.items() if isinstance(scores, dict) else ())
        }
        if len(json_text(values)) > LONGEST_SCORES:
            raise UsageError(f"The values of the scores in {place} are longer than {LONGEST_SCORES:,} characters.")
        question = _question(sample, attachments if isinstance(attachments, dict) else {})
        found = {
            "epoch": epoch,
            "asked": content_hash(question),
            "text": _text(question["input"])[:_SHOWN],
            "scores": values,
            "unscored": "error" if sample.get("error") else "invalidated" if sample.get("invalidation") else None,
        }
        self.tries.setdefault(id, []).append(found)


def read_inspect_log(path: Path, score: str | None = None) -> SampleFile:
    """The samples of a log under one score.

    Args:
        path: of a `.eval` archive or of a log in JSON.
        score: the scorer's name, `scorer.field` where its values have fields; None for the log's headline score, or
            the only one.

    Raises:
        UsageError: it cannot be read or is no log, has no samples, or there is no such score, or several.
    """
    log = _read(path)
    return _scored(log, path, *_chosen(log, path, score))


def read_inspect_scores(path: Path) -> list[SampleFile]:
    """The samples of a log under each of its scores, a score with fields once for each of them.

    Values that are lists have no one number, and are left out with a note at the others.

    Raises:
        UsageError: as `read_inspect_log`, or no score has numbers.
    """
    log = _read(path)
    found, lists = [], []
    for name in dict.fromkeys([*_planned(log.header), *_seen(log.tries.values())]):
        values = [each["scores"].get(name) for epochs in log.tries.values() for each in epochs]
        if not any(name in each["scores"] for epochs in log.tries.values() for each in epochs):
            continue  # a field's own figures stand among the planned ones under its name alone
        if any(isinstance(value, list) for value in values):
            lists.append(name)
            continue
        parts = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
        found += [_scored(log, path, name, part) for part in parts or [None]]
    if not found:
        raise UsageError(f"'{path}' has no score with a number for each sample.")
    note = tuple(f"the values of {name} are lists, and are left out" for name in lists)
    return [replace(each, notes=(*each.notes, *note)) for each in found]


def _read(path: Path) -> _Log:
    log = _of_archive(path) if path.suffix == ".eval" else _of_json(path)
    if not log.tries:
        raise UsageError(f"'{path}' has no samples; the log was written without them, or nothing had ended.")
    return log


def _scored(log: _Log, path: Path, chosen: str, part: str | None) -> SampleFile:
    samples = {}
    for id, epochs in log.tries.items():
        asked = {each["asked"] for each in epochs}
        if len(asked) > 1:
            raise UsageError(f"'{path}' asks different things in the epochs of sample {id}; it is damaged.")
        outcomes = [
            _outcome(each, chosen, part, path) for each in sorted(epochs, key=lambda each: str(each["epoch"]))
        ]
        samples[id] = TriedSample(id, epochs[0]["asked"], epochs[0]["text"], tuple(outcomes))
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
        origin=_origin(log.header),
    )


def _origin(header: Mapping[str, Any]) -> EvaluationOrigin:
    spec = _mapping(header, "eval")
    config, data = _mapping(spec, "config"), _mapping(spec, "dataset")
    asked = _mapping(spec, "model_generate_config")
    settings = {
        **{key: config[key] for key in ("limit", "epochs", "epochs_reducer") if config.get(key) is not None},
        **{f"generation {key}": value for key, value in asked.items() if value is not None},
        **{f"task {key}": value for key, value in _mapping(spec, "task_args").items() if value is not None},
    }
    epochs, ids = config.get("epochs"), data.get("sample_ids")
    planned = count(_mapping(header, "results").get("total_samples"))
    if planned is None and isinstance(ids, list):
        planned = len(ids) * (count(epochs) or 1)
    return EvaluationOrigin(
        version=str(_mapping(spec, "packages").get("inspect_ai") or ""),
        task_version=str(spec.get("task_version") or ""),
        data=str(data.get("name") or data.get("location") or ""),
        made_at=spec.get("created"),
        settings=bounded(settings),
        planned=planned,
    )


def _of_archive(path: Path) -> _Log:
    with archive(path) as opened:
        start = next((name for name in ("header.json", "_journal/start.json") if name in opened.names), None)
        if start is None:
            raise UsageError(f"'{path}' is no log of inspect: it has neither header.json nor _journal/start.json.")
        header = _json(opened.read(start), f"'{start}' in '{path}'")
        if not isinstance(header, dict):
            raise UsageError(f"'{start}' in '{path}' is no object.")
        log = _Log({"status": "started", **header} if start != "header.json" else header)
        for name in opened.names:
            place = f"'{name}' in '{path}'"
            if _WHOLE.fullmatch(name):
                log.add(_json(opened.read(name), place), place)
            elif _IN_PIECES.fullmatch(name):
                log.add(_put_together(opened, name, place), place)
    return log


def _put_together(opened: Archive, name: str, place: str) -> Any:
    """A sample in pieces, as far as it is read here: its shell has all but messages, events and attachments.

    Attachments lie in lists beside it, each named by the number of its first, and the shell refers to them by number.
    """
    content = opened.read(name)
    sample = _json(content, place)
    if not isinstance(sample, dict) or b"attachment://" not in content:
        return sample
    folder = name.removesuffix("sample.json") + "attachments/"
    attachments: dict[str, Any] = {}
    room = LONGEST_MEMBER
    for part in opened.names:
        number = part.removeprefix(folder).removesuffix(".json")
        if not (part.startswith(folder) and number.isdecimal() and len(number) <= LONGEST_NUMBER):
            continue
        piece = opened.read(part)
        room -= len(piece)
        listed = _json(piece, f"'{part}' beside {place}")
        if room < 0 or not isinstance(listed, list):
            raise UsageError(f"The attachments of {place} are no lists, or longer than {LONGEST_MEMBER:,} bytes.")
        attachments |= {str(int(number) + place_in_it): text for place_in_it, text in enumerate(listed)}
    return {**sample, "attachments": attachments}


def _of_json(path: Path) -> _Log:
    content = _json(read_text(path, "log", LONGEST_ROWS).encode(), f"'{path}'")
    if isinstance(content, dict) and "lm_eval_version" in content:
        raise UsageError(f"'{path}' holds sums of lm-eval; give the samples beside it, samples_TASK_DATE.jsonl.")
    if not isinstance(content, dict) or not isinstance(content.get("eval"), dict):
        raise UsageError(f"'{path}' is no log of inspect: it has no `eval`.")
    log = _Log(content)
    listed = content.get("samples")
    for number, sample in enumerate(listed if isinstance(listed, list) else [], start=1):
        log.add(sample, f"Sample {number} of '{path}'")
    return log


def _json(content: bytes, place: str) -> Any:
    try:
        check_size(content)
        return parse_report(content)
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
    """Content with what lies elsewhere in the log put in its place.

    Raises:
        UsageError: that would be endless.
    """
    room = LONGEST_MEMBER

    def put_in(part: Any) -> Any:
        nonlocal room
        if isinstance(part, dict):
            return {key: put_in(value) for key, value in part.items()}
        if isinstance(part, list):
            return [put_in(value) for value in part]
        if isinstance(part, str) and part.startswith("attachment://"):
            found = attachments.get(part.removeprefix("attachment://"), part)
            room -= len(found) if isinstance(found, str) else 0
            if room < 0:
                raise UsageError(f"A sample's attachments are longer than {LONGEST_MEMBER:,} characters.")
            return found if isinstance(found, str) else part
        return part

    return put_in(content)


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


def _outcome(found: Mapping[str, Any], name: str, part: str | None, path: Path) -> TryOutcome:
    scores = found["scores"]
    if found["unscored"] is not None and name not in scores:
        return TryOutcome(None, found["unscored"])
    value = scores.get(name)
    if part is not None:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list | dict):
        raise UsageError(f"Values of the score '{name}' in '{path}' are lists; there is no one value to compare.")
    return outcome_of(value)


def outcome_of(value: Any) -> TryOutcome:
    """What a value of inspect's says, and what it counts as there.

    Args:
        value: a letter of its menu, a number, a truth value, or their texts; None where there is none.
    """
    if value is None:
        return TryOutcome(None, "no score")
    if isinstance(value, str):
        number = VERDICTS.get(value, WORDS.get(value.lower()))
        if number is None and value != NO_ANSWER:
            number = _number(value)
        if number is None:
            return TryOutcome(None, "no answer" if value == NO_ANSWER else "off the menu", 0.0)
        return TryOutcome.of(number)
    number = float(value) if isinstance(value, bool) else finite(value)
    return TryOutcome(None, "not a number") if number is None else TryOutcome.of(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return finite(number)


def _reported(header: Mapping[str, Any], name: str, part: str | None) -> dict[str, float]:
    """Its own metrics of the score."""
    listed = _mapping(header, "results").get("scores")
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and each.get("name") == (part or name) and each.get("scorer", name) in (name, part):
            metrics = _mapping(each, "metrics")
            return {
                str(metric): number
                for metric, told in metrics.items()
                if isinstance(told, dict) and (number := finite(told.get("value"))) is not None
            }
    return {}
