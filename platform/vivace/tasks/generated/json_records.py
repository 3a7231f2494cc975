"""Records written as JSON from a sentence that lists what they hold."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask

_WORDS = {
    "name": ("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Karin", "Leo"),
    "city": ("Athens", "Berlin", "Cairo", "Dublin", "Lima", "Madrid", "Oslo", "Paris", "Rome", "Tokyo"),
    "job": ("baker", "cook", "doctor", "driver", "farmer", "lawyer", "nurse", "painter", "pilot", "teacher"),
    "color": ("black", "blue", "brown", "green", "orange", "pink", "red", "white", "yellow"),
    "pet": ("bird", "cat", "dog", "fish", "hamster", "horse", "rabbit", "turtle"),
}
_FEWEST, _MOST = 3, 5
"""Fields of a record."""


@dataclass(frozen=True)
class JsonRecords(GeneratedTask):
    """A record of three to five fields is written as one JSON object, its fields in the order of the sentence."""

    name: ClassVar[str] = "json"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 96

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """Some fields in a random order, each with a random value."""
        fields = chance.sample([*_WORDS, "age", "member"], chance.randint(_FEWEST, _MOST))
        record = {field: _value(field, chance) for field in fields}
        listed = ", ".join(f"{field} {_said(value)}" for field, value in record.items())
        return Sample(
            id="",
            prompt=f"Write this record as JSON: {listed}.\n",
            references=(json.dumps(record),),
            slice=f"{len(fields)} fields",
        )


def _value(field: str, chance: random.Random) -> Any:
    if field == "age":
        return chance.randint(18, 99)
    return chance.random() < 0.5 if field == "member" else chance.choice(_WORDS[field])


def _said(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
