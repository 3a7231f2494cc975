"""What a tool recorded of one evaluation: every sample with what was asked, and how each try at it came out."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST = 1e100
"""A larger figure is no result; sums of such would leave the range of numbers."""
MOST = 2**31 - 1
ABSENT = "not in the file"
"""Why a try that was planned is unscored, where the file says nothing of it."""


@dataclass(frozen=True)
class TryOutcome:
    """How one try at a sample came out.

    Attributes:
        value: None where it is unscored.
        unscored: why it is; None where it is not.
        counted: what the tool itself counts it as; None where it leaves it out.
    """

    value: float | None
    unscored: str | None = None
    counted: float | None = None

    @classmethod
    def of(cls, value: float) -> TryOutcome:
        """A try that was scored."""
        return cls(value, None, value)


@dataclass(frozen=True)
class TriedSample:
    """A question with its tries.

    Attributes:
        id: as the tool writes it; tools number samples after shuffling, so it names no question.
        asked: a hash of what was asked and of what was to come out.
        text: how the question begins.
        outcomes: of each try (inspect: epoch), at least one.
    """

    id: str
    asked: str
    text: str
    outcomes: tuple[TryOutcome, ...]

    @property
    def value(self) -> float | None:
        """The mean of the tries that were scored; None where none was."""
        return _mean([each.value for each in self.outcomes])

    @property
    def counted(self) -> float | None:
        """The same as the tool itself counts."""
        return _mean([each.counted for each in self.outcomes])


@dataclass(frozen=True)
class EvaluationOrigin:
    """Where an evaluation comes from, as its file says.

    Attributes:
        version: of the tool; empty where the file does not say.
        task_version: of the task; empty where it has none.
        data: the data set's name; empty where the file does not say.
        made_at: when it was evaluated, as the file writes it and unchecked; None where it does not say.
        settings: that make the figures: shots, limits, seeds, generation parameters, revisions.
        planned: tries that were planned, and may be more than the file holds; None where it does not say.
        scored: tries that were, of a file that has figures alone; None where it does not say.
        independent: whether samples are, so that their spread tells an interval.
    """

    version: str = ""
    task_version: str = ""
    data: str = ""
    made_at: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    planned: int | None = None
    scored: int | None = None
    independent: bool = True


@dataclass(frozen=True)
class SampleFile:
    """One score of one evaluation, as a file holds it.

    Attributes:
        path: of the file.
        tool: `inspect` or `lm-eval`.
        task: its name.
        model: its name; empty where the file does not say.
        score: the score that was read, as the tool names it.
        samples: by their ids; empty where the file has figures alone.
        reported: the tool's own figures of that score, by the metric's name.
        more_is_better: None where nothing says so.
        notes: what a reader of the comparison should know of the file.
        origin: where it comes from.
    """

    path: Path
    tool: str
    task: str
    model: str
    score: str
    samples: Mapping[str, TriedSample]
    reported: Mapping[str, float] = field(default_factory=dict)
    more_is_better: bool | None = None
    notes: tuple[str, ...] = ()
    origin: EvaluationOrigin = field(default_factory=EvaluationOrigin)

    @property
    def outcomes(self) -> list[TryOutcome]:
        """Of all tries at all samples."""
        return [outcome for sample in self.samples.values() for outcome in sample.outcomes]

    @property
    def unscored(self) -> dict[str, int]:
        """Reason → tries without a score, those that were planned and are not in the file among them."""
        found = Counter(each.unscored for each in self.outcomes if each.unscored is not None)
        known = len(self.outcomes) if self.samples else self.origin.scored
        absent = 0 if known is None else (self.origin.planned or 0) - known
        return {**found, **({ABSENT: absent} if absent > 0 else {})}

    def as_json(self) -> dict[str, Any]:
        """What there is in the file, in numbers: three values of ours beside what the tool reports."""
        values = [each.value for each in self.outcomes if each.value is not None]
        return {
            "file": str(self.path),
            "tool": self.tool,
            "task": self.task,
            "model": self.model,
            "score": self.score,
            "samples": len(self.samples),
            "tries": len(self.outcomes),
            "scored": len(values),
            "right": sum(value == 1 for value in values),
            "partly": sum(0 < value < 1 for value in values),
            "wrong": sum(value == 0 for value in values),
            "unscored": self.unscored,
            "value": _mean([sample.value for sample in self.samples.values()]),
            "reported": dict(self.reported),
            "notes": list(self.notes),
        }


def finite(value: Any) -> float | None:
    """A number that a tool wrote; None of anything else, of truth values, and of what is not finite or too large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def count(value: Any) -> int | None:
    """A count that a tool wrote, as a number or in a text; None of anything else."""
    try:
        number = finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None
    return int(number) if number is not None and number.is_integer() and 0 <= number <= MOST else None


def content_hash(content: Any) -> str:
    """A hash of JSON content that does not depend on the order of its fields."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
