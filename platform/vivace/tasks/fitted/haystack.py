"""A needle in a haystack, at every depth of texts of several lengths: where does a model, or a method, lose it?"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.fitted.base import FittedTask
from vivace.tasks.fitted.needles import Hidden


@dataclass(frozen=True)
class Haystack(FittedTask):
    """One code of seven digits in an essay, put at each depth of each length in turn (needle in a haystack).

    The samples go through the cells in an order in which any number of them is spread over depths and lengths. How
    many answers are right in each cell is shown by length and depth.

    Attributes:
        shortest: length of the shortest text with the longest answer, in tokens of the model that is asked.
        longest: of the longest.
        lengths: how many there are from the shortest to the longest, evenly spaced.
        depths: places of the needle, evenly spaced from the beginning to the end.
    """

    name: ClassVar[str] = "haystack"
    metric: ClassVar[str] = "contains_all"
    most_tokens: ClassVar[int] = 32

    shortest: int = 1024
    longest: int = 4096
    lengths: int = 4
    depths: int = 5

    def __post_init__(self) -> None:
        """Refuse what makes no grid."""
        for setting in ("lengths", "depths"):
            if not 1 <= getattr(self, setting) <= _MOST:
                raise UsageError(f"The setting {setting} of haystack is 1 to {_MOST}, not {getattr(self, setting)}.")
        if not 1 <= self.shortest <= self.longest:
            raise UsageError(
                f"haystack goes from the shortest length to the longest: {self.shortest} to {self.longest} does not."
            )
        if self.lengths > 1 and self.longest - self.shortest < self.lengths - 1:
            raise UsageError(f"There are no {self.lengths} lengths from {self.shortest} to {self.longest}.")

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def length_of(self, index: int) -> int:
        """The length of the sample's cell."""
        return self._cell(index)[0]

    def write(self, chance: random.Random, size: int, index: int) -> Sample:
        """A needle at the depth of the sample's cell."""
        length, depth = self._cell(index)
        sample = Hidden().write(chance, size, [depth])
        return replace(sample, slice=f"{length:,} tokens, {depth:.0%} deep")

    def _cell(self, index: int) -> tuple[int, float]:
        """Length and depth: both change from a sample to the next, and all cells come before any comes again."""
        turn, row = divmod(index, self.lengths)
        column = (turn + row) % self.depths
        span = self.longest - self.shortest
        length = self.longest if self.lengths == 1 else self.shortest + round(span * row / (self.lengths - 1))
        return length, 0.5 if self.depths == 1 else column / (self.depths - 1)


_MOST = 100
