"""Needles in filler text, in a closed vocabulary of words that a model of the zoo can learn to find them in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Span
from vivace.tasks.generated import GeneratedTask


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_FILLER = _split(
    """
    about above across after again along although always among around away because before behind below beside
    between beyond but by down during early even far for from here how in into later less like long more near
    never next nor now of often on once only or out over quite rather since slowly soon still than then there
    through together under until very while
    """
)
_KEYS = _split(
    """
    anchor apple arrow basket bell blanket boat book bottle brush bucket button candle carpet chain chair clock
    cloud coat coin cup curtain desk door drum engine fence flute fork garden gate glove hammer hat helmet jar
    kite ladder lamp lantern letter map mirror needle paper pencil piano pillow pipe plate rope saddle shoe
    spoon stone table tent tower train violin wagon wallet wheel window
    """
)
_VALUES = _split(
    """
    amber ant azure badger bear beaver beige black blue bronze brown camel cat cherry copper coral cow crane
    crimson crow deer dog duck eagle falcon fox goat golden goose green grey hare hawk horse indigo ivory lemon
    lilac lion lynx magenta maroon mole mouse olive orange otter owl pink plum purple rabbit raven red ruby
    silver snail swan tiger turtle violet white wolf yellow
    """
)
_SUCCESSORS = 4
_OPENING = "text :"
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
        most = min(len(_KEYS) // self.hops, len(_VALUES) // 2)
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
        keys, values = chance.sample(_KEYS, self.keys * self.hops), chance.sample(_VALUES, 2 * self.keys)
        chains = [keys[first : first + self.hops] for first in range(0, len(keys), self.hops)]
        needles = [_needles(chain, values[2 * place : 2 * place + 2]) for place, chain in enumerate(chains)]
        asked, *_ = chains
        wanted, *_ = needles
        statements = [statement for needle in needles for statement in needle]
        chance.shuffle(statements)
        filled = self.length - _OTHER_WORDS - sum(len(statement.split()) for statement in statements)
        text, spans = _scatter(statements, filled, chance)
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


def _scatter(statements: Sequence[str], filled: int, chance: random.Random) -> tuple[str, dict[str, Span]]:
    """Filler of so many words with the statements at random places of it, and where each of them came to stand."""
    cuts = sorted(chance.randint(0, filled) for _ in statements)
    filler = _filler(filled, chance)
    text, spans, written = _OPENING, {}, 0
    for statement, cut in zip(statements, cuts, strict=True):
        text = " ".join([text, *filler[written:cut], statement])
        spans[statement] = Span(len(text) - len(statement), len(text))
        written = cut
    return " ".join([text, *filler[written:]]), spans


def _filler(count: int, chance: random.Random) -> list[str]:
    """Words of a chain in which each has four successors, and all occur equally often in the long run."""
    words, place = [], chance.randrange(len(_FILLER))
    for _ in range(count):
        words.append(_FILLER[place])
        place = (_SUCCESSORS * place + chance.randrange(_SUCCESSORS)) % len(_FILLER)
    return words
