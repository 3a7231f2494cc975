"""Speculation that verifies no more of a tree than pays: cut by the measured cost of passes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import MethodError
from vivace_methods.speculation.eagle3 import Eagle3

if TYPE_CHECKING:
    from vivace_methods.speculation.drafters.base import Drafter
    from vivace_methods.speculation.pacing.base import Pace


@dataclass(frozen=True)
class CutTree(Eagle3):
    """Trees of EAGLE-3, of which the part is verified that gives the most expected tokens for its measured time.

    Source: EVICT, arXiv 2605.00342: the tree is cut to its likeliest part, by expected acceptance over cost. What
    passes cost is measured once, before the first answer.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of the tree before it is cut, its root among them, at least 2.
        top_k: candidates that a token has, and tokens of one depth that are followed.
        growth: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: false: trees are not drawn.
    """

    name: ClassVar[str] = "cut-tree"
    paper: ClassVar[str] = "EVICT, arXiv 2605.00342"

    tokens: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tokens:
            raise MethodError(f"{self.name} cuts trees: write tokens=2 or more.")

    def pace(self, model: Any, drafter: Drafter) -> Pace:
        """By cutting."""
        from vivace_methods.speculation.pacing.costs import measured_costs
        from vivace_methods.speculation.pacing.cut_pace import Cutting

        return Cutting(partial(measured_costs, drafter=drafter, depth=self.depth, tokens=self.tokens))
