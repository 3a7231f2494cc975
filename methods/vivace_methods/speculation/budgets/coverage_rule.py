"""As few experts as hold a given part of the probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vivace_methods.errors import MethodError
from vivace_methods.speculation.budgets.base import BudgetRule, Routed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CoverageRule(BudgetRule):
    """The fewest experts that hold this part of the draft's probability, and no more than the budget has.

    Source: the `probability` mode of the development code of MoE-Spec's first author (github.com/BradMcDanel/EAGLE);
    the paper has a fixed number.

    Attributes:
        share: of the probability, above 0 and at most 1.
    """

    name: ClassVar[str] = "coverage"
    is_fixed: ClassVar[bool] = False

    share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise MethodError(f"The share of the rule coverage must be above 0 and at most 1, not {self.share}.")

    def scores(self, routed: Routed) -> torch.Tensor:
        """The plain sum."""
        return routed.shares.sum(0)

    def count(self, scores: torch.Tensor, routed: Routed) -> torch.Tensor | int:
        """Those before which less than the share has been gathered."""
        before = scores.cumsum(0) - scores
        needed = (before < self.share * scores.sum()).sum()
        return needed.clamp(routed.experts, routed.budget)
