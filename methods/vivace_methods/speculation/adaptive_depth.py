"""Speculation that drafts as far as it pays, and not at all where it does not: utility-driven depth."""

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
class AdaptiveDepth(Eagle3):
    """Chains of EAGLE-3 whose depth follows from what they bring and cost; where nothing pays, nothing is drafted.

    Source: Saxena et al., "Utility-Driven Speculative Decoding for Mixture-of-Experts" (Cascade), arXiv 2506.20675.
    As there, test phases and longer set phases take turns, and drafting that does not pay is tried again ever later.
    Other than there, what passes cost is measured once, before the first answer, so that the same prompt is answered
    in the same steps again; and one test of the deepest chain tells of all shorter ones.

    Attributes:
        depth: of the longest chains, at least 1.
        tokens: 0: chains alone are drafted.
        top_k: of no effect on chains.
        growth: of no effect on chains.
        drawn: whether chains are drawn from what the drafter thinks, where the request draws.
        tests: steps in which a test drafts the longest chains.
        holds: steps for which the best depth is kept.
    """

    name: ClassVar[str] = "adaptive-depth"
    paper: ClassVar[str] = "Utility-Driven Speculative Decoding for Mixture-of-Experts, arXiv 2506.20675"

    depth: int = 6
    tests: int = 4
    holds: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens:
            raise MethodError(f"{self.name} drafts chains alone: leave out tokens={self.tokens}.")
        for setting in ("tests", "holds"):
            if getattr(self, setting) < 1:
                raise MethodError(
                    f"The setting {setting} of {self.name} must be at least 1, not {getattr(self, setting)}."
                )

    def pace(self, model: Any, drafter: Drafter) -> Pace:
        """By utility."""
        from vivace_methods.speculation.pacing.costs import measured_costs
        from vivace_methods.speculation.pacing.utility import Utility

        measure = partial(measured_costs, drafter=drafter, depth=self.depth, tokens=self.depth + 1)
        return Utility(self.depth, self.tests, self.holds, measure)
