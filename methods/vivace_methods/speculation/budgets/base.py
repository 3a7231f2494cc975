"""What a budget rule is: it says which experts of a layer the tokens of a draft may share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Routed:
    """What a router thinks of the tokens of a draft in one layer.

    Attributes:
        shares: of each expert in the thoughts of each token, float32, shape (tokens, experts): a softmax over all
            experts, each token's row multiplied with its weight where tokens have weights. The root's row is first.
        natural: the experts that the router chose, shape (tokens, experts of each).
        budget: experts that the layer may read.
    """

    shares: torch.Tensor
    natural: torch.Tensor
    budget: int

    @property
    def experts(self) -> int:
        """Of each token."""
        return int(self.natural.shape[1])


class BudgetRule(ABC):
    """Chooses the experts of a layer that the tokens of a draft share; one file each, as a frozen dataclass.

    A rule sees its layer alone, anew in each verifying pass, and must not wait for the device.
    """

    name: ClassVar[str]
    """As `rule=` of `moe-spec` writes it."""
    is_fixed: ClassVar[bool] = True
    """Whether as many experts are read as the budget has, so that a budget of all of them changes nothing."""

    @abstractmethod
    def scores(self, routed: Routed) -> torch.Tensor:
        """How much each expert matters to the draft, shape (experts,); the highest are read, as many as may be."""

    def count(self, scores: torch.Tensor, routed: Routed) -> torch.Tensor | int:
        """Experts that are read: the layer's budget, or fewer, but no fewer than a token has.

        Args:
            scores: in the order in which experts are taken.
            routed: what the router thinks.
        """
        return routed.budget


def shortlist(rule: BudgetRule, routed: Routed, *, root_exact: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each expert may be read, and how much it matters, each of shape (experts,).

    Of experts that matter as much the ones with lower numbers come first.

    Args:
        rule: that scores the experts.
        routed: what the router thinks.
        root_exact: whether the root's experts are taken first, within the budget: the root is a token that is
            written already, and what the model says after it is used in any case.
    """
    import torch

    scores = rule.scores(routed)
    order = scores.index_fill(0, routed.natural[0], float("inf")) if root_exact else scores
    places = order.sort(descending=True, stable=True).indices
    within = torch.arange(len(places), device=places.device) < rule.count(scores[places], routed)
    return torch.zeros_like(within).scatter(0, places, within), scores
