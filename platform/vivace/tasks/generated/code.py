"""Short functions written from a description: code that is decided by its prompt, though nothing runs it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask

_FUNCTIONS = ("collect", "compute", "find", "gather", "measure", "process", "scan", "solve", "survey", "tally")
_LISTS = ("amounts", "entries", "grades", "heights", "numbers", "points", "prices", "scores", "values", "weights")
_ITEMS = ("amount", "entry", "grade", "height", "number", "point", "price", "score", "value", "weight")

_TEMPLATES = (
    (
        "adds up all {items}, starting from {limit}",
        "total = {limit}\nfor {item} in {items}:\n    total = total + {item}\nreturn total",
    ),
    (
        "counts the {items} above {limit}",
        "count = 0\nfor {item} in {items}:\n    if {item} > {limit}:\n        count = count + 1\nreturn count",
    ),
    (
        "returns the largest of the {items}, and at least {limit}",
        "best = {limit}\nfor {item} in {items}:\n    if {item} > best:\n        best = {item}\nreturn best",
    ),
    (
        "finds the smallest of the {items}, and at most {limit}",
        "best = {limit}\nfor {item} in {items}:\n    if {item} < best:\n        best = {item}\nreturn best",
    ),
    (
        "keeps the {items} below {limit}",
        "kept = []\nfor {item} in {items}:\n    if {item} < {limit}:\n        kept.append({item})\nreturn kept",
    ),
    (
        "multiplies each of the {items} by {limit}",
        "result = []\nfor {item} in {items}:\n    result.append({item} * {limit})\nreturn result",
    ),
)
"""What a function does, and its body."""


@dataclass(frozen=True)
class Code(GeneratedTask):
    """A loop of a few lines of Python is written out; it must be the one text that the description asks for."""

    name: ClassVar[str] = "code"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 96

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """One of six loops, with its names and its limit."""
        what, body = chance.choice(_TEMPLATES)
        kind = chance.randrange(len(_LISTS))
        function = f"{chance.choice(_FUNCTIONS)}_{_LISTS[chance.randrange(len(_LISTS))]}"
        names = {"items": _LISTS[kind], "item": _ITEMS[kind], "limit": chance.randint(2, 99)}
        lines = body.format(**names).splitlines()
        return Sample(
            id="",
            prompt=f"Write a function {function} that {what.format(**names)}.\n",
            references=("\n".join([f"def {function}({names['items']}):", *(f"    {line}" for line in lines)]),),
            slice=what.split()[0],
        )
