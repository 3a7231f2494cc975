"""A tree cut where another token costs more than it brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vivace_methods.decoding.trees import Tree
from vivace_methods.speculation.pacing.base import Pace
from vivace_methods.speculation.pacing.costs import PassCosts


class Cutting(Pace):
    """Verifies the likeliest part of a tree, as large as gives the most tokens for its time.

    Args:
        measure: gives the costs of a model.
    """

    def __init__(self, measure: Callable[[Any], PassCosts]) -> None:
        self._measure, self._costs = measure, PassCosts((1, 2), (1.0, 1.0), (0, 1), (0.0, 0.0))

    def prepare(self, model: Any) -> None:
        """Measure the costs."""
        self._costs = self._measure(model)

    def cut(self, tree: Tree) -> Tree:
        """The part whose expected tokens over its seconds are the most.

        A node stands with the probability that the drafter gives to its path; the likeliest nodes are a tree.
        """
        if tree.logs is None:
            return tree
        falling = tree.logs.sort(descending=True, stable=True)
        expected = falling.values.exp().cumsum(0).tolist()  # the root's 1 is the token that any pass gives
        drafted = self._costs.of_drafting(max(tree.depths))
        best = max(
            range(1, len(tree) + 1),
            key=lambda count: expected[count - 1] / (drafted + self._costs.of_verifying(count)),
        )
        return tree.part(sorted(falling.indices[:best].tolist()))
