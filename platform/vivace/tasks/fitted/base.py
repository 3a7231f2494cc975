"""Samples that are written in the size in which they fill a length, in the tokens of whoever is asked."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from vivace.errors import UsageError
from vivace.tasks.base import CountTokens, Sample, Task

_MOST_TRIES = 24
"""Sizes that are tried for a sample. Tokens grow about evenly with the size, so that a few are enough; where a
tokenizer is stranger than that, the largest sample that was seen to fit is taken."""


@dataclass(frozen=True)
class FittedTask(Task):
    """A task whose samples fill a length.

    Each sample is drawn from a seed of its own, which is made of the task's settings, the seed that is asked for and
    the sample's place: neither other samples nor the search for the size change what is in it.
    """

    @abstractmethod
    def length_of(self, index: int) -> int:
        """The length of a sample in tokens: of the prompt and the longest answer together."""

    @abstractmethod
    def write(self, chance: random.Random, size: int, index: int) -> Sample:
        """A sample of so many units (sentences, words, paragraphs), at least one; its id is filled in later.

        Args:
            chance: in the same state for all sizes of a sample.
            size: of what there may be more or less of.
            index: of the sample, for tasks that go through cases in turn.
        """

    def samples(self, count: int | None, seed: int) -> list[Sample]:
        """The first samples, their lengths counted in words and signs, for no tokenizer is known yet.

        Raises:
            UsageError: no count is given, and there is no end; or not even the smallest sample fits the length.
        """
        if count is None:
            raise UsageError(f"The task {self.name} makes as many samples as are wanted: say how many.")
        return [self._fitting(seed, index, words_and_signs) for index in range(count)]

    def fitted(self, sample: Sample, tokens: CountTokens) -> Sample:
        """The same sample in the size in which it fills the length, counted in a model's tokens.

        Raises:
            UsageError: not even the smallest sample fits the length.
        """
        seed, _, index = sample.id.rpartition("-")
        return self._fitting(int(seed), int(index), tokens)

    def _fitting(self, seed: int, index: int, tokens: CountTokens) -> Sample:
        settings = "/".join(map(str, self.settings.values()))

        def write(size: int) -> Sample:
            chance = random.Random(f"{self.name}/{settings}/{seed}/{index}")
            return replace(self.write(chance, size, index), id=f"{seed}-{index}")

        length = self.length_of(index)
        found = largest_that_fits(write, tokens, length - self.most_tokens)
        if found is None:
            shortest = tokens(write(1)) + self.most_tokens
            raise UsageError(
                f"The smallest sample of {self.name} takes {shortest:,} tokens with its longest answer of "
                f"{self.most_tokens}, and the length is {length:,}: ask for a greater length."
            )
        return found


def words_and_signs(sample: Sample) -> int:
    """About the tokens of a prompt, where no tokenizer is known."""
    return len(sample.prompt.split()) + len(sample.begun.split())


def largest_that_fits(write: Callable[[int], Sample], tokens: CountTokens, room: int) -> Sample | None:
    """The largest sample whose prompt has at most so many tokens; None where that of size 1 has more.

    No size is above the room, for every unit takes a token at least. It looks between the largest size that fits and
    the smallest that does not, where a straight line through both crosses the room, and halves now and then; after a
    bounded number of tries it takes what it has.
    """
    best = write(1)
    low, used = 1, tokens(best)
    if used > room:
        return None
    each = 0.0
    high, above = room + 1, None
    for attempt in range(_MOST_TRIES):
        if high - low <= 1:
            break
        size = _between(low, used, high, above, room, each, attempt)
        sample = write(size)
        count = tokens(sample)
        if count <= room:
            each = max(0.0, (count - used) / (size - low))
            low, used, best = size, count, sample
        else:
            high, above = size, count
    return best


def _between(low: int, used: int, high: int, above: int | None, room: int, each: float, attempt: int) -> int:
    """The next size to try, above one that fits and below one that does not.

    Args:
        low: fits.
        used: tokens that it takes.
        high: does not fit.
        above: tokens that it takes; None where it was not tried.
        room: for tokens.
        each: tokens that each further unit took last; 0 where that is not known.
        attempt: how many were tried.
    """
    if above is not None:
        crossing = low + int((high - low) * (room - used) / (above - used))
        guess = crossing if attempt % 3 else (low + high) // 2
    elif each:
        guess = low + int((room - used) / each * 1.02) + 1
    else:
        guess = 2 * low
    return min(max(guess, low + 1), high - 1)
