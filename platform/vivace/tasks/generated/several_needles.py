"""Needles of which several are asked for at once, in the closed vocabulary that a model of the zoo can learn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.filler import NAMES, scatter
from vivace.tasks.generated.needles import VALUES

_NOTE_WORDS, _OPENING_WORDS, _QUESTION_WORDS = 6, 2, 2
"""Words and signs of a note, of the opening, and of the question beside its keys."""
_ANSWER_WORDS = 3
_MOST_NOTES = 12
"""Whose answer is let through."""


@dataclass(frozen=True)
class SeveralNeedles(GeneratedTask):
    """Of notes among filler text, all of one key are asked for, or those of several keys.

    Multi-value and multi-query retrieval as in RULER (arXiv 2404.06654, section 3), in the words of `needles`: a note
    is `note : KEY VALUE VALUE .`, and `ask : KEY KEY` is answered by the values of each key, keys in the order of the
    question and a key's notes in that of the text: `VALUE VALUE . VALUE VALUE .`. No value occurs twice. As many keys
    as the length allows make it a haystack of needles.

    Attributes:
        length: of the prompt, in words and signs.
        keys: different ones in a prompt.
        values: notes of each key.
        asked: keys that are asked for.
    """

    name: ClassVar[str] = "several_needles"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = _MOST_NOTES * _ANSWER_WORDS + 4

    length: int = 512
    keys: int = 4
    values: int = 1
    asked: int = 2

    def __post_init__(self) -> None:
        """Refuse what fits into no prompt, or no answer."""
        if self.keys < 1 or self.values < 1 or self.keys * self.values > len(VALUES) // 2 or self.keys > len(NAMES):
            raise UsageError(
                f"several_needles has 1 to {len(VALUES) // 2} notes, each with values of its own, and "
                f"keys={self.keys} with values={self.values} are {self.keys * self.values}."
            )
        if not 1 <= self.asked <= self.keys or self.asked * self.values > _MOST_NOTES:
            raise UsageError(
                f"Of {self.keys} keys with {self.values} notes each, several_needles asks for 1 to "
                f"{min(self.keys, _MOST_NOTES // self.values)}, not {self.asked}."
            )
        if self._filled < 0:
            raise UsageError(
                f"several_needles with keys={self.keys}, values={self.values} and asked={self.asked} need a length "
                f"of at least {self.length - self._filled} words, not {self.length}."
            )

    @property
    def _filled(self) -> int:
        """Words of filler."""
        notes = self.keys * self.values * _NOTE_WORDS
        return self.length - _OPENING_WORDS - notes - _QUESTION_WORDS - self.asked

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """Notes at random places of a random filler, in random order."""
        keys = chance.sample(NAMES, self.keys)
        values = chance.sample(VALUES, 2 * self.keys * self.values)
        pairs = [f"{one} {other}" for one, other in zip(values[::2], values[1::2], strict=True)]
        owners = [key for key in keys for _ in range(self.values)]
        notes = {f"note : {key} {pair} .": pair for key, pair in zip(owners, pairs, strict=True)}
        shuffled = chance.sample(list(notes), len(notes))
        text, spans = scatter(shuffled, self._filled, chance)
        wanted = [note for note in notes if note.split()[2] in keys[: self.asked]]
        in_order = sorted(wanted, key=lambda note: (keys.index(note.split()[2]), spans[note].start))
        return Sample(
            id="",
            prompt=f"{text} ask : {' '.join(keys[: self.asked])}",
            references=(" ".join(["", *(f"{notes[note]} ." for note in in_order)]),),
            evidence=tuple(sorted((spans[note] for note in wanted), key=lambda span: span.start)),
        )
