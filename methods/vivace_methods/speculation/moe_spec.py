"""MoE-Spec: EAGLE-3 on a mixture of experts, whose verifying passes read no more experts than a budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vivace_methods.protocol import Attached, MethodError
from vivace_methods.speculation.budgets.mixtures import ExpertLayer
from vivace_methods.speculation.budgets.registry import parse_rule
from vivace_methods.speculation.eagle3 import Eagle3


@dataclass(frozen=True)
class MoeSpec(Eagle3):
    """Drafts as `eagle-3` makes them; each layer of the pass that verifies them reads at most so many experts.

    Source: McDanel et al., arXiv 2602.16052. The experts that the draft's tokens give the most probability in sum are
    read, in each layer and pass anew; tokens go to the best of these, or lose those of their own that are not among
    them. The prompt is read, and drafts are made, without a budget. What is written is exact only for a budget of all
    experts: under a smaller one the model itself says something else.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of a tree that one pass verifies, its root among them; 0 drafts a chain.
        top_k: in a tree, candidates that a token has, and tokens of one depth that are followed.
        growth: of a tree: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: whether chains are drawn from what the drafter thinks, where the request draws.
        budget: experts that a layer may read in a pass, from those of one token up to all; none is half of all.
        budgets: one for each layer with experts in their place, as `16/12/8/16`.
        policy: `substitution` sends a token to its best experts of those that are read; `truncation` drops those of
            its own that are not read.
        rule: which experts are read: `sum`, the paper's; `coverage(share=0.9)`, as few as hold that part of the
            probability, within the budget.
        root_exact: whether those that the root's own router chose are read in any case, within the budget.
        weight: `prob` counts each token by the probability that the drafter gives to its path; `none` all alike.
        sigmoid: whether routers that choose by sigmoids (DeepSeek-V3) are bounded, too: an extension of our own, in
            which scores are sums of the sigmoids with the router's bias, and its groups are not looked at.
    """

    name: ClassVar[str] = "moe-spec"
    paper: ClassVar[str] = "MoE-Spec: Expert Budgeting for Efficient Speculative Decoding, arXiv 2602.16052"
    exact: ClassVar[bool] = False

    budget: int | None = None
    budgets: str = ""
    policy: Literal["substitution", "truncation"] = "substitution"
    rule: str = "sum"
    root_exact: bool = False
    weight: Literal["none", "prob"] = "none"
    sigmoid: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_rule(self.rule)
        if self.budget is not None and self.budget < 1:
            raise MethodError(f"The setting budget of {self.name} must be at least 1, not {self.budget}.")
        if self.budgets:
            if self.budget is not None:
                raise MethodError(f"{self.name} takes a budget for all layers or budgets for each, not both.")
            _numbers(self.budgets)

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        """Speculate under the budget while the context lasts."""
        from vivace_methods.speculation.budgets.budgeted import Budget, speculating_within
        from vivace_methods.speculation.budgets.routers import routers_of

        decoder = self.decoder(model, fitted)
        routers = routers_of(model, self.name, sigmoid=self.sigmoid)
        mixtures = [ExpertLayer(router.layer, router.experts, router.active) for router in routers]
        budget = Budget(
            self._counts(type(model).__name__, mixtures),
            parse_rule(self.rule),
            self.policy,
            self.root_exact,
            self.weight == "prob",
        )
        with speculating_within(model, decoder, routers, budget) as attached:
            yield attached

    def knows(self, architecture: str) -> bool:
        """None: budgets are held against the experts that a model has."""
        return False

    def check_model(self, configuration: Any) -> None:
        """Refuse a model without experts, and budgets that none of its layers can keep to."""
        from vivace_methods.speculation.budgets.routers import mixtures_of_model

        super().check_model(configuration)
        if mixtures := mixtures_of_model(configuration, self.name, sigmoid=self.sigmoid):
            self._counts(configuration.model_type, mixtures)

    def _counts(self, model: str, mixtures: Sequence[ExpertLayer]) -> list[int]:
        """The budget of each layer with experts.

        Raises:
            MethodError: fewer experts than a token has, or more than there are, or another number of budgets than
                of layers.
        """
        listed = _numbers(self.budgets) if self.budgets else [self.budget] * len(mixtures)
        if len(listed) != len(mixtures):
            raise MethodError(
                f"{self.name} has {len(listed)} budgets, and {model} has {len(mixtures)} layers with experts: write "
                "one for each."
            )
        counts = [count or max(its.experts // 2, its.active) for count, its in zip(listed, mixtures, strict=True)]
        for count, its in zip(counts, mixtures, strict=True):
            if count < its.active:
                raise MethodError(
                    f"A budget of {count} experts is too small for layer {its.layer} of {model}, whose router sends "
                    f"each token to {its.active}: write budget={its.active} or more."
                )
            if count > its.experts:
                raise MethodError(
                    f"A budget of {count} experts bounds nothing in layer {its.layer} of {model}, which has "
                    f"{its.experts}: write budget={its.experts} or less."
                )
        return counts


def _numbers(budgets: str) -> list[int | None]:
    """The budgets in `16/12/8`.

    Raises:
        MethodError: it is not written so.
    """
    pieces = budgets.split("/")
    if not all(piece.strip().isdecimal() and int(piece) > 0 for piece in pieces):
        raise MethodError(f"The setting budgets must be numbers with / between them, as 16/12/8, not {budgets!r}.")
    return [int(piece) for piece in pieces]
