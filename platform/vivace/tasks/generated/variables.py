"""Chains of assignments in filler text: what is a variable's value, and which variables have it?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.filler import NAMES, scatter

_VALUES = 100
"""Values have two digits, each a word of its own."""
_VALUE_WORDS, _HOP_WORDS = 6, 5
"""Words and signs of an assignment of a value, and of one of a variable."""
_QUESTION_WORDS = {"value": 3, "names": 4, "trace": 3}
_OPENING_WORDS = 2
_MOST_HOPS = 8


@dataclass(frozen=True)
class Variables(GeneratedTask):
    """Variables are set to a value, or to what another is; a value is asked for, or all variables that have it.

    Variable tracking as in RULER (arXiv 2404.06654, section 3), in the filler that needles have. A chain of
    assignments begins with `let NAME = DIGIT DIGIT .` and goes on with `let NEXT = NAME .`, in that order, though
    other chains and filler come between. No variable is set twice, and no two chains have the same value.

    Attributes:
        length: of the prompt, in words and signs.
        chains: of assignments.
        hops: assignments of a variable to a further one, in each chain: it has one variable more than hops.
        ask: for the `value` of a chain's last variable, answered by its digits (`ask : NAME`); for its
            `trace`, answered by each variable back to the first and the value's digits (`trace : NAME`); or for the
            `names` of all variables that have a value, in the order of their assignments (`find : DIGIT DIGIT`).
    """

    name: ClassVar[str] = "variables"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 16

    length: int = 512
    chains: int = 2
    hops: int = 2
    ask: Literal["value", "trace", "names"] = "value"

    def __post_init__(self) -> None:
        """Refuse what fits into no prompt."""
        if not 1 <= self.hops <= _MOST_HOPS:
            raise UsageError(f"A chain of variables has one to {_MOST_HOPS} hops, not {self.hops}.")
        most = len(NAMES) // (self.hops + 1)
        if not 1 <= self.chains <= most:
            raise UsageError(f"With hops={self.hops}, variables have one to {most} chains, not {self.chains}.")
        if self._filled < 0:
            raise UsageError(
                f"Variables with chains={self.chains} and hops={self.hops} need a length of at least "
                f"{self.length - self._filled} words, not {self.length}."
            )

    @property
    def _filled(self) -> int:
        """Words of filler."""
        statements = self.chains * (_VALUE_WORDS + _HOP_WORDS * self.hops)
        return self.length - _OPENING_WORDS - statements - _QUESTION_WORDS[self.ask]

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """Chains that are mixed at random, each in its order."""
        each = self.hops + 1
        names = chance.sample(NAMES, self.chains * each)
        values = [" ".join(f"{value:02}") for value in chance.sample(range(_VALUES), self.chains)]
        chains = [names[first : first + each] for first in range(0, len(names), each)]
        assigned = [_assignments(chain, value) for chain, value in zip(chains, values, strict=True)]
        text, spans = scatter(_mixed(assigned, chance), self._filled, chance)
        chain, value = chains[0], values[0]
        question, answer = {
            "value": (f"ask : {chain[-1]}", value),
            "trace": (f"trace : {chain[-1]}", " ".join([*chain[-2::-1], value])),
            "names": (f"find : {value}", " ".join(chain)),
        }[self.ask]
        return Sample(
            id="",
            prompt=f"{text} {question}",
            references=(f" {answer} .",),
            evidence=tuple(spans[statement] for statement in assigned[0]),
        )


def _assignments(names: Sequence[str], value: str) -> list[str]:
    first = f"let {names[0]} = {value} ."
    return [first, *(f"let {following} = {name} ." for name, following in pairwise(names))]


def _mixed(chains: Sequence[Sequence[str]], chance: random.Random) -> list[str]:
    """The statements of all chains in one random order that keeps each chain's own."""
    turns = [place for place, chain in enumerate(chains) for _ in chain]
    chance.shuffle(turns)
    left = [iter(chain) for chain in chains]
    return [next(left[place]) for place in turns]
