"""Expert budgets while many prompts are decoded together: MoE-Spec's own, beside rules that know less or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.speculation.budgets.base import BudgetRule, Routed
from vivace_methods.speculation.budgets.sum_rule import SumRule

if TYPE_CHECKING:
    import torch

ExpertRule = Literal["softmax", "count", "random"]


@dataclass(frozen=True)
class CountRule(BudgetRule):
    """The experts that most tokens would have taken."""

    name: ClassVar[str] = "count"

    def scores(self, routed: Routed) -> torch.Tensor:
        """How many tokens chose each."""
        return routed.natural.flatten().bincount(minlength=routed.shares.shape[1]).float()


@dataclass(frozen=True)
class RandomRule(BudgetRule):
    """Some experts at random."""

    name: ClassVar[str] = "random"

    chance: torch.Generator = field(repr=False)

    def scores(self, routed: Routed) -> torch.Tensor:
        """Another worth in each layer of each pass."""
        import torch

        return torch.rand(routed.shares.shape[1], generator=self.chance)


@contextmanager
def expert_budget(model: Any, rule: ExpertRule, budget: int, seed: int = 0) -> Iterator[None]:
    """Let the tokens of a pass share a few experts of each layer, as those of a draft do, while the context lasts.

    Each token takes its best experts of those that are kept, weighted as the model would have weighted them.

    Args:
        model: a mixture of experts of transformers.
        rule: which experts are kept: those with the largest sum of softmax over the tokens (MoE-Spec's); those that
            most tokens would have taken; or some at random.
        budget: experts that are kept in each layer, at least as many as a token takes.
        seed: of the random rule.
    """
    import torch

    from vivace_methods.models.passes import passes_of
    from vivace_methods.speculation.budgets.budgeted import Budget, budgeted
    from vivace_methods.speculation.budgets.routers import routers_of

    rules: dict[ExpertRule, BudgetRule] = {
        "softmax": SumRule(), "count": CountRule(), "random": RandomRule(torch.Generator().manual_seed(seed)),
    }  # fmt: skip
    routers = routers_of(model, "an expert budget", sigmoid=False)
    bounded = Budget([budget] * len(routers), rules[rule])
    with passes_of(model) as passes, budgeted(passes, routers, bounded), passes.of("verify"):
        yield
