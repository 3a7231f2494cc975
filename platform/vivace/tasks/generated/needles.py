"""Needles in filler text, in a closed vocabulary of words that a model of the zoo can learn to find them in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.filler import NAMES, scatter, split

VALUES = split(
    """
    amber ant azure badger bear beaver beige black blue bronze brown camel cat cherry copper coral cow crane
    crimson crow deer dog duck eagle falcon fox goat golden goose green grey hare hawk horse indigo ivory lemon
    lilac lion lynx magenta maroon mole mouse olive orange otter owl pink plum purple rabbit raven red ruby
    silver snail swan tiger turtle violet white wolf yellow
    """
)
_NOTE_WORDS, _HOP_WORDS, _OTHER_WORDS = 6, 5, 5
"""Words and signs of a note, of a further hop to it, and of opening and question together."""
_MOST_HOPS = 4
_QUARTERS = ("first", "second", "third", "last")


@dataclass(frozen=True)
class Needles(GeneratedTask):
    """Of several notes among filler text, one is asked for by its key; it may be known by another key only.

    A note is `note : KEY VALUE VALUE .`. With more than one hop, each note's key has a further one,
    `set : FURTHER KEY .`, and so on; the last is asked for, and the answer names every key on the way:
    `ask : FURTHER` is answered by `KEY VALUE VALUE .`. No key or value occurs in two notes of a prompt. It is
    single-key and multi-key retrieval as in RULER (arXiv 2404.06654, section 3), in a filler whose words have four
    successors each.

    Every word and sign has a blank before it, except the first, and so has the answer: each is then one token of the
    zoo's tokenizer, the same wherever it stands.

    Attributes:
        length: of the prompt, in words and signs.
        keys: notes in a prompt.
        hops: from the key that is asked for to the values; 1 asks for the note's own key.
    """

    name: ClassVar[str] = "needles"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 16

    length: int = 512
    keys: int = 4
    hops: int = 1

    def __post_init__(self) -> None:
        """Refuse what fits into no prompt."""
        if not 1 <= self.hops <= _MOST_HOPS:
            raise UsageError(f"A needle lies one to {_MOST_HOPS} hops away, not {self.hops}.")
        most = min(len(NAMES) // self.hops, len(VALUES) // 2)
        if not 1 <= self.keys <= most:
            raise UsageError(f"With hops={self.hops}, needles have one to {most} keys, not {self.keys}.")
        shortest = _OTHER_WORDS + self.keys * (_NOTE_WORDS + _HOP_WORDS * (self.hops - 1))
        if self.length < shortest:
            raise UsageError(
                f"Needles with keys={self.keys} and hops={self.hops} need a length of at least {shortest} words, "
                f"not {self.length}."
            )

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """Notes at random places of a random filler, in random order."""
        keys, values = chance.sample(NAMES, self.keys * self.hops), chance.sample(VALUES, 2 * self.keys)
        chains = [keys[first : first + self.hops] for first in range(0, len(keys), self.hops)]
        needles = [_needles(chain, values[2 * place : 2 * place + 2]) for place, chain in enumerate(chains)]
        asked, *_ = chains
        wanted, *_ = needles
        statements = [statement for needle in needles for statement in needle]
        chance.shuffle(statements)
        filled = self.length - _OTHER_WORDS - sum(len(statement.split()) for statement in statements)
        text, spans = scatter(statements, filled, chance)
        evidence = tuple(spans[statement] for statement in wanted)
        return Sample(
            id="",
            prompt=f"{text} ask : {asked[0]}",
            references=(" ".join(["", *asked[1:], *values[:2], "."]),),
            evidence=evidence,
            slice=f"{_QUARTERS[4 * evidence[-1].start // len(text)]} quarter",
        )


def _needles(chain: Sequence[str], values: Sequence[str]) -> list[str]:
    """What leads from the first key of a chain to the values, in the order in which it is needed."""
    steps = [f"set : {further} {key} ." for further, key in pairwise(chain)]
    return [*steps, f"note : {chain[-1]} {' '.join(values)} ."]
