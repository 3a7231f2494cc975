"""Long lists of words, of which some come more often than the others: which?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

from vivace.tasks.base import Sample, Span
from vivace.tasks.fitted.english import ADJECTIVES, COMMON, MOST_THINGS, letters, things
from vivace.tasks.fitted.writer import Writer

_TOP, _TIMES, _OTHERS = 10, (30, 3), (6, 1)
"""Words that are asked for; how often they and the others come in a long list, and in a short one."""
_SHOWN = (4, 12)
"""Of the example's list: the words that are asked for, and the others."""
_LONG = 250
"""Other words from which on a list is long."""
_CODED, _ASKED, _EXPONENT, _WORDS_EACH = 6, 3, 2.0, 50
"""Of made-up words: letters of each, how many are asked for, how fast they become rarer (a power of their rank), and
words of the text for each different one."""


def write_common(chance: random.Random, size: int) -> Sample:
    """A numbered list in which ten words come ten or six times as often as so many others; a small one goes first."""
    words = [*chance.sample(COMMON, len(COMMON)), *chance.sample(ADJECTIVES, len(ADJECTIVES))]
    shown, top, others = words[: sum(_SHOWN)], words[sum(_SHOWN) : sum(_SHOWN) + _TOP], words[sum(_SHOWN) + _TOP :]
    if size > len(others):
        others += [name.replace(" ", "-") for name in things(chance, min(size - len(others), MOST_THINGS))]
    often, seldom = _TIMES if size >= _LONG else _OTHERS
    writer = Writer()
    writer.add("Below is a numbered list of words. Some of them come more often than the others; remember those.")
    first = shown[: _SHOWN[0]]
    writer.add(f"Example: {_numbered([*first * 3, *shown[_SHOWN[0] :]], chance)}", "\n\n")
    writer.add(f"{_question(len(first))} {', '.join(first)}.", "\n")
    listed = [*top * often, *others[:size] * seldom]
    chance.shuffle(listed)
    spans = []
    for place, word in enumerate(listed, start=1):
        at = writer.add(f"{place}. {word}", " " if place > 1 else "\n\n")
        if word in top:
            spans.append(Span(at.end - len(word), at.end))
    question, _, begun = _question(_TOP).partition("\n")
    writer.add(f"{question}\n", "\n\n")
    return Sample("", writer.text, tuple(top), tuple(spans), begun=begun)


def _question(count: int) -> str:
    return f"Which {count} words come most often in the list?\nThe {count} words that come most often are:"


def _numbered(words: Sequence[str], chance: random.Random) -> str:
    shuffled = chance.sample(words, len(words))
    return " ".join(f"{place}. {word}" for place, word in enumerate(shuffled, start=1))


def write_frequent(chance: random.Random, size: int) -> Sample:
    """A text of so many made-up words, drawn by Zipf's law with exponent 2; the three commonest are asked for.

    Each word takes the share of the text that the law gives its rank, less what rounding takes, so that which are the
    commonest is never a matter of luck; the commonest of all is shown as dots and not asked for, as in RULER.
    """
    kinds = max(_ASKED + 2, size // _WORDS_EACH)
    weights = [rank**-_EXPONENT for rank in range(1, kinds + 1)]
    whole = sum(weights)
    counts = [max(1, round(size * weight / whole)) for weight in weights]
    # In a short text two ranks may come equally often, which no one could tell apart.
    for place in range(_ASKED, -1, -1):
        counts[place] = max(counts[place], counts[place + 1] + 1)
    names: dict[str, None] = {}
    while len(names) < kinds - 1:
        names[letters(chance, _CODED).lower()] = None
    coded = ["...", *names]
    text = [word for word, count in zip(coded, counts, strict=True) for _ in range(count)]
    chance.shuffle(text)
    top = coded[1 : _ASKED + 1]
    writer = Writer()
    writer.add(
        "Below is a text of made-up words. Dots stand for what cannot be read. Remember which words come most often."
    )
    head = writer.add(" ".join(text), "\n\n").start
    starts = accumulate((len(word) + 1 for word in text), initial=head)
    spans = tuple(Span(start, start + len(word)) for start, word in zip(starts, text, strict=False) if word in top)
    writer.add(f"Which {_ASKED} words come most often? Leave out the dots.\n", "\n\n")
    return Sample("", writer.text, tuple(top), spans, begun=f"The {_ASKED} words that come most often are:")
