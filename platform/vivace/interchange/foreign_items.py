"""Results of other tools as `vivace export` writes them: a line for each try at each sample, to be read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.text import json_rows
from vivace.interchange.samples import EvaluationOrigin, SampleFile, TriedSample, TryOutcome, finite

WHAT = "results"
_TEXTS = ("result", "tool", "tool_version", "task", "task_version", "data", "model", "score")


def read_foreign_items(path: Path) -> list[SampleFile]:
    """Every result in a file of `vivace export`.

    Raises:
        UsageError: the file cannot be read, or a line of it is none of a result of another tool.
    """
    results: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for place, row in json_rows(path, WHAT):
        if absent := [name for name in (*_TEXTS, "sample", "value", "unscored_reason") if name not in row]:
            said = (
                " A judging's items go back with `vivace import audio-multichallenge --verdicts`."
                if "criterion" in row
                else ""
            )
            raise UsageError(f'{place} has no "{absent[0]}", so it is of no result of another tool.{said}')
        if wrong := [name for name in _TEXTS if not isinstance(row[name], str)]:
            raise UsageError(f'{place} has a "{wrong[0]}" that is no text.')
        results[row["result"]].append((place, row))
    return [_result(path, rows) for rows in results.values()]


def _result(path: Path, rows: list[tuple[str, dict[str, Any]]]) -> SampleFile:
    place, first = rows[0]
    reported, settings = _object(first, "reported", place), _object(first, "settings", place)
    figures = {str(name): finite(value) for name, value in reported.items()}
    if absent := [name for name, value in figures.items() if value is None]:
        raise UsageError(f"{place}: {absent[0]} is {reported[absent[0]]!r:.60}, and no number.")
    better = first.get("more_is_better")
    return SampleFile(
        path=path,
        tool=first["tool"],
        task=first["task"],
        model=first["model"],
        score=first["score"],
        samples=_samples([(place, row) for place, row in rows if row["sample"] is not None]),
        reported={name: value for name, value in figures.items() if value is not None},
        more_is_better=better if isinstance(better, bool) else None,
        notes=tuple(str(note) for note in first.get("notes") or ()),
        origin=EvaluationOrigin(
            version=first["tool_version"],
            task_version=first["task_version"],
            data=first["data"],
            made_at=first.get("made_at"),
            settings={str(name): str(value) for name, value in settings.items()},
            planned=_count(first, "planned", place),
            scored=_count(first, "scored", place),
            independent=first.get("independent") is not False,
        ),
    )


def _object(row: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    found = row.get(name) or {}
    if not isinstance(found, dict):
        raise UsageError(f'{place}: "{name}" is no object.')
    return found


def _count(row: Mapping[str, Any], name: str, place: str) -> int | None:
    found = row.get(name)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**31):
        raise UsageError(f'{place}: "{name}" is {found!r:.60}, and no count.')
    return found


def _samples(rows: list[tuple[str, dict[str, Any]]]) -> dict[str, TriedSample]:
    tries: dict[str, dict[int, TryOutcome]] = defaultdict(dict)
    first: dict[str, dict[str, Any]] = {}
    for place, row in rows:
        id, attempt = str(row["sample"]), _count(row, "attempt", place) or 0
        if attempt in tries[id]:
            raise UsageError(f"{place}: try {attempt} at the sample {id} comes again.")
        if str(row.get("asked")) != str(first.setdefault(id, row).get("asked")):
            raise UsageError(f"{place}: the sample {id} asks something else than before.")
        tries[id][attempt] = _outcome(row, place)
    return {
        id: TriedSample(
            id, str(first[id].get("asked") or ""), str(first[id].get("text") or ""),
            tuple(outcome for _, outcome in sorted(found.items())),
        )
        for id, found in tries.items()
    }  # fmt: skip


def _outcome(row: Mapping[str, Any], place: str) -> TryOutcome:
    value, reason, counted = row["value"], row["unscored_reason"], row.get("counted")
    if (value is None) == (reason is None):
        raise UsageError(f"{place} has a value and a reason why there is none, or neither.")
    numbers = [finite(each) for each in (value, counted)]
    if any(number is None and each is not None for number, each in zip(numbers, (value, counted), strict=True)):
        raise UsageError(f"{place} has a value that is no number.")
    return TryOutcome(numbers[0], None if reason is None else str(reason), numbers[1])
