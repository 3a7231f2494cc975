"""Variables that are set to a number or to each other, in a text of noise: which of them have a value?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from vivace.tasks.base import Sample
from vivace.tasks.fitted.english import letters, noise, numbers
from vivace.tasks.fitted.writer import Writer, anywhere, scatter

_VARIABLES, _DIGITS = 5, 5
_HEAD = (
    "The text below sets variables to numbers or to other variables. Follow them; you will be asked which variables "
    "have a value."
)


def write_chain(chance: random.Random, size: int) -> Sample:
    """Five variables, each but the first set to the one before it, in so many sentences of noise; all are asked for.

    A smaller text with its answer goes before, as an example.
    """
    shown, asked = (_chain(chance) for _ in range(2))
    writer = Writer()
    writer.add(_HEAD)
    writer.add(f"Example: {' '.join(_statements(*shown))}", "\n\n")
    writer.add(f"{_question(shown[1])}\n{_begun(shown[1])} {', '.join(shown[0])}.", "\n")
    statements = _statements(*asked)
    spans = scatter(writer, statements, noise(), size, sorted(anywhere(chance, len(statements))))
    writer.add(f"{_question(asked[1])}\n", "\n\n")
    return Sample("", writer.text, tuple(asked[0]), tuple(spans), begun=_begun(asked[1]))


def _chain(chance: random.Random) -> tuple[list[str], str]:
    names: list[str] = []
    while len(names) < _VARIABLES:
        name = letters(chance, 5)
        if name not in names:
            names.append(name)
    return names, numbers(chance, 1, _DIGITS)[0]


def _statements(names: Sequence[str], value: str) -> list[str]:
    return [f"Let {names[0]} be {value}.", *(f"Let {later} be {name}." for name, later in pairwise(names))]


def _question(value: str) -> str:
    return f"Which {_VARIABLES} variables have the value {value}?"


def _begun(value: str) -> str:
    return f"The variables that have the value {value} are"
