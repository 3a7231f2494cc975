"""Speculation on a mixture of experts whose drafts share the experts that some of their tokens want most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from vivace_methods.protocol import Attached, MethodError
from vivace_methods.speculation.eagle3 import Eagle3


@dataclass(frozen=True)
class Piggyback(Eagle3):
    """Drafts of EAGLE-3; in verifying passes each token keeps its first experts, and shares those of the others.

    Source: OEA, arXiv 2511.02237, which does so with the tokens of a batch. As many experts are read as the draft's
    tokens want first, all together.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of a tree that one pass verifies, its root among them; 0 drafts a chain.
        top_k: in a tree, candidates that a token has, and tokens of one depth that are followed.
        growth: of a tree: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: whether chains are drawn from what the drafter thinks, where the request draws.
        own: experts that each token keeps; 0 for half of those that it has.
    """

    name: ClassVar[str] = "piggyback"
    paper: ClassVar[str] = "OEA, Opportunistic Expert Activation, arXiv 2511.02237"
    exact: ClassVar[bool] = False

    own: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own < 0:
            raise MethodError(f"The setting own of {self.name} must be at least 1, not {self.own}.")

    def knows(self, architecture: str) -> bool:
        """None: budgets are held against the experts that a model has."""
        return False

    def check_model(self, configuration: Any) -> None:
        """Refuse a model without experts, and more experts of a token's own than it has."""
        from vivace_methods.speculation.budgets.routers import mixtures_of_model

        super().check_model(configuration)
        mixtures = mixtures_of_model(configuration, self.name, sigmoid=False)
        self._own(min((each.active for each in mixtures), default=self.own))

    def _own(self, active: int) -> int:
        """Experts that each token keeps, of so many."""
        if self.own > active:
            raise MethodError(f"{self.name} keeps {self.own} experts of each token, and a token has {active}.")
        return self.own or max(1, active // 2)

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        """Speculate with shared experts while the context lasts."""
        from vivace_methods.speculation.budgets.budgeted import Budget, speculating_within
        from vivace_methods.speculation.budgets.piggyback_rule import PiggybackRule
        from vivace_methods.speculation.budgets.routers import routers_of

        decoder = self.decoder(model, fitted)
        routers = routers_of(model, self.name, sigmoid=False)
        rule = PiggybackRule(self._own(min(router.active for router in routers)))
        budget = Budget([router.experts for router in routers], rule)
        with speculating_within(model, decoder, routers, budget) as attached:
            yield attached
