"""A chain as long as it pays, or none: by what tests of a few passes gave, and what passes cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vivace_methods.speculation.pacing.base import Pace
from vivace_methods.speculation.pacing.costs import PassCosts

LONGEST_HOLD = 8
"""By how much more than usual drafting is left off at most, where it does not pay."""


class Utility(Pace):
    """Tests how many drafts stand, and then keeps to the depth of the highest utility for a while.

    The utility of a depth is what a step gives, in tokens, over what it costs, in steps of one token; below 1
    nothing is drafted, for twice as long each time.

    Args:
        deepest: that is tested.
        tests: steps of a test.
        holds: steps that the depth is kept for.
        measure: gives the costs of a model.
    """

    def __init__(self, deepest: int, tests: int, holds: int, measure: Callable[[Any], PassCosts]) -> None:
        self._deepest, self._tests, self._holds = deepest, tests, holds
        self._measure, self._costs = measure, PassCosts((1, 2), (1.0, 1.0), (0, 1), (0.0, 0.0))
        self.begin()

    def prepare(self, model: Any) -> None:
        """Measure the costs."""
        self._costs = self._measure(model)

    def begin(self) -> None:
        """Begin with a test."""
        self._stood: list[int] = []
        self._held, self._left, self._longer = self._deepest, 0, 1

    def depth(self, most: int) -> int:
        """The deepest in a test; then the one that pays best."""
        return min(most, self._held if self._left else self._deepest)

    def verified(self, drafted: int, stood: int) -> None:
        """Count a test's step, or one of those that the depth is kept for."""
        if self._left:
            self._left -= 1
            return
        if drafted < self._deepest:
            return  # at the answer's end
        self._stood.append(stood)
        if len(self._stood) == self._tests:
            self._held = max(range(self._deepest + 1), key=self._utility)
            self._longer = 1 if self._held else min(2 * self._longer, LONGEST_HOLD)
            self._left = self._holds * (1 if self._held else self._longer)
            self._stood = []

    def _utility(self, depth: int) -> float:
        """A test of the deepest chain tells of all shorter ones."""
        tokens = 1 + sum(min(stood, depth) for stood in self._stood) / len(self._stood)
        seconds = self._costs.of_drafting(depth) + self._costs.of_verifying(depth + 1)
        return tokens * self._costs.of_verifying(1) / seconds
