"""Statements that say the codes of things, hidden in text, and questions after them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vivace.tasks.base import Sample
from vivace.tasks.fitted.english import MOST_THINGS, essay, identifiers, listed, noise, numbers, things
from vivace.tasks.fitted.writer import Writer, anywhere, scatter

_HEAD = "The text below says the codes of some things. Read it carefully; you will be asked about them."
_ONE, _FURTHER = "The code of the {thing} is {code}.", "One of the codes of the {thing} is {code}."


@dataclass(frozen=True)
class Hidden:
    """What is hidden and what is asked.

    Attributes:
        hay: what it is hidden in: an essay, five sentences again and again, or more statements of the same kind, so
            that the size is the number of statements.
        codes: numbers of seven digits, or UUIDs.
        keys: things whose codes are told.
        values: codes of each thing.
        asked: things whose codes are asked for.
    """

    hay: Literal["essay", "noise", "needles"] = "essay"
    codes: Literal["number", "uuid"] = "number"
    keys: int = 1
    values: int = 1
    asked: int = 1

    def write(self, chance: random.Random, size: int, places: Sequence[float] = ()) -> Sample:
        """A text of so many sentences, or statements, with its question.

        Args:
            chance: draws things, codes and text.
            size: sentences of an essay or of noise, or statements.
            places: of the statements, each the share of the text that goes before it; at random by default.
        """
        keys = min(max(size, self.asked), MOST_THINGS) if self.hay == "needles" else self.keys
        names = things(chance, keys)
        codes = self._codes(chance, keys * self.values)
        told = _ONE if self.values == 1 else _FURTHER
        owners = [name for name in names for _ in range(self.values)]
        statements = [told.format(thing=name, code=code) for name, code in zip(owners, codes, strict=True)]
        wanted = self.asked * self.values
        writer = Writer()
        writer.add(_HEAD)
        filler: Iterator[str] = essay(chance) if self.hay == "essay" else noise()
        if self.hay == "needles":
            filler, size = iter(()), 0
        spans = scatter(writer, statements, filler, size, places or anywhere(chance, len(statements)))
        question, begun = self._question(names[: self.asked])
        writer.add(f"{question}\n", "\n\n")
        return Sample(
            "",
            writer.text,
            tuple(codes[:wanted]),
            tuple(sorted(spans[:wanted], key=lambda span: span.start)),
            begun=begun,
        )

    def _codes(self, chance: random.Random, count: int) -> list[str]:
        return numbers(chance, count) if self.codes == "number" else identifiers(chance, count)

    def _question(self, names: Sequence[str]) -> tuple[str, str]:
        """What is asked, and how the answer begins."""
        asked = listed([f"the {name}" for name in names])
        if self.values > 1:
            return f"What are all the codes of {asked}?", f"The codes of {asked} are"
        if len(names) > 1:
            return f"What are the codes of {asked}?", f"The codes of {asked}, in this order, are"
        return f"What is the code of {asked}?", f"The code of {asked} is"
