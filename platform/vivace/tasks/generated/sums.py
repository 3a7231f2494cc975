"""Additions and subtractions, answered column by column as they are done on paper."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from vivace.tasks.base import Sample, Span
from vivace.tasks.generated.base import GeneratedTask

COLUMNS = ("ones", "tens", "hundreds")


@dataclass(frozen=True)
class Sums(GeneratedTask):
    """Numbers of three digits are added or subtracted; each column's line and the result must be right.

    Attributes:
        operation: `addition`, `subtraction`, or `both`, where every sample is either at random.
    """

    name: ClassVar[str] = "sums"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 96

    operation: Literal["addition", "subtraction", "both"] = "both"

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """Two numbers from 100 to 999, the larger one first where they are subtracted."""
        first, second = chance.randint(100, 999), chance.randint(100, 999)
        adds = chance.random() < 0.5 if self.operation == "both" else self.operation == "addition"
        if not adds:
            first, second = max(first, second), min(first, second)
        sum_text = f"{first} {'+' if adds else '-'} {second}"
        prompt = f"Work out {sum_text}, column by column.\n"
        start = prompt.index(sum_text)
        return Sample(
            id="",
            prompt=prompt,
            references=(addition(first, second) if adds else subtraction(first, second),),
            evidence=(Span(start, start + len(sum_text)),),
            slice="addition" if adds else "subtraction",
        )


def addition(first: int, second: int) -> str:
    """The columns of a sum of two numbers of three digits, and the sum."""
    lines, carry = [], 0
    for column, (one, other) in zip(COLUMNS, _digits(first, second), strict=True):
        carried = " + 1" if carry else ""
        total = one + other + carry
        carry = total // 10
        after = f", write {total % 10}, carry 1" if carry else ""
        lines.append(f"{column}: {one} + {other}{carried} = {total}{after}")
    return "\n".join([*lines, f"sum: {first + second}"])


def subtraction(first: int, second: int) -> str:
    """The columns of a difference of two numbers of three digits, and the difference, which is not negative."""
    lines, borrowed = [], 0
    for column, (one, other) in zip(COLUMNS, _digits(first, second), strict=True):
        taken = f"- {other}{' - 1' if borrowed else ''}"
        left = one - other - borrowed
        if left < 0:
            lines.append(f"{column}: {one} {taken} < 0, borrow 1: {one + 10} {taken} = {left + 10}")
        else:
            lines.append(f"{column}: {one} {taken} = {left}")
        borrowed = int(left < 0)
    return "\n".join([*lines, f"difference: {first - second}"])


def _digits(first: int, second: int) -> list[tuple[int, int]]:
    """The digits of both, the ones first."""
    return [(first // ten % 10, second // ten % 10) for ten in (1, 10, 100)]
