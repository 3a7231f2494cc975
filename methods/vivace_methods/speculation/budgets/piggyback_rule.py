"""The experts that some token of the draft wants most: others go along on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vivace_methods.errors import MethodError
from vivace_methods.speculation.budgets.base import BudgetRule, Routed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PiggybackRule(BudgetRule):
    """Each token's first experts are read, and its others are chosen among all that are.

    Source: OEA, "Opportunistic Expert Activation", arXiv 2511.02237, with the tokens of a draft in place of a batch.
    A token alone has its first experts and no more.

    Attributes:
        own: experts of each token that are read in any case, at least 1.
    """

    name: ClassVar[str] = "piggyback"
    is_fixed: ClassVar[bool] = False

    own: int = 1

    def __post_init__(self) -> None:
        if self.own < 1:
            raise MethodError(f"The setting own of the rule piggyback must be at least 1, not {self.own}.")

    def scores(self, routed: Routed) -> torch.Tensor:
        """How many tokens want an expert so much."""
        import torch

        wanted = routed.shares.topk(min(self.own, routed.experts), -1).indices
        return torch.zeros_like(routed.shares).scatter(1, wanted, 1.0).sum(0)

    def count(self, scores: torch.Tensor, routed: Routed) -> torch.Tensor | int:
        """All that any token wants so much, within the budget."""
        return (scores > 0).sum().clamp(max=routed.budget)
