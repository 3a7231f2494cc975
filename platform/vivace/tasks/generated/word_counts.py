"""Texts of a few words, some of them common, and the question which are the commonest or how often one occurs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Span
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.filler import NAMES, OPENING

_OTHER_WORDS = {"most": 4, "count": 5}
"""Words and signs of opening and question together."""
_MOST_ASKED = 4
_LEAST_EACH = 4
"""So many times the number of different words is the shortest text: shorter ones would nearly always be undecided."""


@dataclass(frozen=True)
class WordCounts(GeneratedTask):
    """The commonest words of a text are asked for, or how often one of its words occurs: the whole text counts.

    Aggregation as in RULER's common and frequent words (arXiv 2404.06654, section 3). Words are drawn one by one, the
    second commonest half as often as the first, the third a third as often (Zipf's law). Where the words
    that are asked for are not more than any other, or as many as each other, the text is drawn again.

    Attributes:
        length: of the prompt, in words and signs.
        words: different ones that may occur.
        ask: for the commonest words (`most :`), or for the `count` of one (`count : WORD`), digit by digit.
        top: how many of the commonest words, the commonest first.
    """

    name: ClassVar[str] = "word_counts"
    metric: ClassVar[str] = "exact_match"
    most_tokens: ClassVar[int] = 16

    length: int = 256
    words: int = 8
    ask: Literal["most", "count"] = "most"
    top: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be decided."""
        if not 2 <= self.words <= len(NAMES):
            raise UsageError(f"The setting words of word_counts must be 2 to {len(NAMES)}, not {self.words}.")
        if not 1 <= self.top <= min(_MOST_ASKED, self.words - 1):
            raise UsageError(
                f"The setting top of word_counts must be 1 to {_MOST_ASKED} and below words, not {self.top}."
            )
        shortest = _LEAST_EACH * self.words + _OTHER_WORDS[self.ask]
        if self.length < shortest:
            raise UsageError(
                f"With words={self.words}, word_counts need a length of at least {shortest} words, not {self.length}."
            )

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """A text in which what is asked for is decided."""
        words = chance.sample(NAMES, self.words)
        weights = list(accumulate(1 / rank for rank in range(1, self.words + 1)))
        while True:
            text = chance.choices(words, cum_weights=weights, k=self.length - _OTHER_WORDS[self.ask])
            if self.ask == "count":
                asked = chance.choice(sorted(set(text)))
                return _sample(text, {asked}, f"count : {asked}", " ".join(str(text.count(asked))))
            counts = Counter(dict.fromkeys(words, 0))
            counts.update(text)
            ranked = counts.most_common(self.top + 1)
            if all(count > following for (_, count), (_, following) in pairwise(ranked)):
                commonest = [word for word, _ in ranked[: self.top]]
                return _sample(text, set(commonest), "most :", " ".join(commonest))


def _sample(text: Sequence[str], needed: Set[str], question: str, answer: str) -> Sample:
    """The sample whose evidence is every occurrence of the words that are needed."""
    starts = accumulate((len(word) + 1 for word in text), initial=len(OPENING) + 1)
    spans = (Span(start, start + len(word)) for start, word in zip(starts, text, strict=False) if word in needed)
    return Sample("", f"{OPENING} {' '.join(text)} {question}", (f" {answer} .",), tuple(spans))
