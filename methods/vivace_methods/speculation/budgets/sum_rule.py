"""The rule of MoE-Spec: the experts with the highest sums of probability over the draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vivace_methods.speculation.budgets.base import BudgetRule, Routed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SumRule(BudgetRule):
    """The experts to whom the draft's tokens give the most probability in sum, as many as the budget has.

    Source: McDanel et al., MoE-Spec, arXiv 2602.16052: probabilities over all experts, not over the chosen alone; the
    root counts like any other token.
    """

    name: ClassVar[str] = "sum"

    def scores(self, routed: Routed) -> torch.Tensor:
        """The plain sum."""
        return routed.shares.sum(0)
