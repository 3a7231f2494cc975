"""Samples that are made here from a seed, in two lots that never meet: one to train on and one to ask."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import count as counting

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Task

HELD_OUT_OF = 8
"""One prompt in so many is kept for asking."""


@dataclass(frozen=True)
class GeneratedTask(Task):
    """A task whose samples are drawn at random, each from a seed of its own.

    Which lot a sample belongs to depends on its prompt alone, so that no sample that is asked was ever trained on.
    """

    @abstractmethod
    def draw(self, chance: random.Random) -> Sample:
        """One sample, of either lot; its id is filled in later."""

    def samples(self, count: int | None, seed: int) -> list[Sample]:
        """The first samples of the lot that is asked.

        Raises:
            UsageError: no count is given, and there is no end.
        """
        if count is None:
            raise UsageError(f"The task {self.name} makes as many samples as are wanted: say how many.")
        return [self.sample(seed, index, held_out=True) for index in range(count)]

    def sample(self, seed: int, index: int, *, held_out: bool) -> Sample:
        """One sample of a lot, which depends on nothing but the arguments and the task."""
        for attempt in counting():
            drawn = self.draw(random.Random(f"{self.name}/{seed}/{index}/{attempt}"))
            if is_held_out(drawn.prompt) is held_out:
                return replace(drawn, id=f"{seed}-{index}")
        raise AssertionError  # attempts have no end


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the lot that is asked and never trained on."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) % HELD_OUT_OF == 0
