"""A budget on a model's routers: in passes that verify drafts, tokens go to the experts of a shortlist alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, Literal

import torch

from vivace_kernels.speculation.budgeted_routing import budgeted_routing
from vivace_kernels.speculation.routing import LEAST_MASS, Rule
from vivace_methods.models.ledger import Pass
from vivace_methods.models.passes import Passes
from vivace_methods.protocol import Attached
from vivace_methods.speculation.budgets.base import BudgetRule, Routed, shortlist
from vivace_methods.speculation.budgets.routers import Router
from vivace_methods.speculation.budgets.sum_rule import SumRule
from vivace_methods.speculation.speculative_decoder import SpeculativeDecoder, speculating

Policy = Literal["substitution", "truncation"]


@dataclass(frozen=True)
class Budget:
    """How the routers of a model are bounded.

    Attributes:
        counts: experts that each layer with experts may read.
        rule: that chooses them.
        policy: `substitution` sends a token on to its best experts of the shortlist; `truncation` drops those of its
            own that are not on it.
        root_exact: whether the root's own experts are on the shortlist in any case.
        weighted: whether tokens count by the probability that the drafter gives to the path that leads to them.
    """

    counts: Sequence[int]
    rule: BudgetRule
    policy: Policy = "substitution"
    root_exact: bool = False
    weighted: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is the paper's own, which a kernel computes in one launch."""
        return type(self.rule) is SumRule and not self.root_exact and not self.weighted


@dataclass(frozen=True)
class BudgetEffect:
    """What a budget did to one layer in one pass; on the device.

    Attributes:
        natural: experts that the router chose, shape (tokens, experts of each).
        listed: whether each expert was on the shortlist, or the numbers of those that were.
        sums: of the probability that the tokens gave to each, shape (experts,).
    """

    natural: torch.Tensor
    listed: torch.Tensor
    sums: torch.Tensor


@contextmanager
def budgeted(passes: Passes, routers: Sequence[Router], budget: Budget) -> Iterator[None]:
    """Bound the experts of verifying passes while the context lasts; prompts are read, and drafts made, without.

    What the budget did in each layer is noted of each pass, as `figures_of` explains it.

    Args:
        passes: of the model.
        routers: of the model.
        budget: a count for each router, at least as large as the experts of a token.
    """
    bounding = _Bounding(passes, budget)
    with ExitStack() as hooks:
        for router, count in zip(routers, budget.counts, strict=True):
            if count < router.experts or not budget.rule.is_fixed:
                hook = partial(bounding.bound, router, count)
                hooks.callback(router.module.register_forward_hook(hook).remove)
        yield


@contextmanager
def speculating_within(
    model: Any, decoder: SpeculativeDecoder, routers: Sequence[Router], budget: Budget
) -> Iterator[Attached]:
    """Drafts verified under a budget while the context lasts.

    Args:
        model: the target.
        decoder: with a drafter made for it.
        routers: of the model.
        budget: as `budgeted` takes it.
    """
    with speculating(model, decoder) as attached, budgeted(attached.passes, routers, budget):
        of_passes = attached.figures
        yield replace(attached, figures=lambda passes: {**of_passes(passes), **figures_of(passes)})


class _Bounding:
    """What routers give under a budget.

    Args:
        passes: of the model.
        budget: as `budgeted` takes it.
    """

    def __init__(self, passes: Passes, budget: Budget) -> None:
        self._passes, self._budget = passes, budget
        self._seen: dict[int, BudgetEffect] = {}

    def bound(
        self,
        router: Router,
        count: int,
        module: Any,
        given: tuple[Any, ...],
        routed: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """After a router: where the tokens of a draft are sent."""
        if self._passes.kind != "verify":
            return None
        logits, weights, natural = routed
        budget = self._budget
        if budget.is_plain and not router.sigmoid:
            found = budgeted_routing(logits, Rule(router.active, count, budget.policy, router.renormalised))
            self._note(router, BudgetEffect(natural, found.shortlist, found.scores))
            return logits, found.weights.to(weights.dtype), found.index.to(natural.dtype)
        choice, values = router.thoughts(logits)
        tree = self._passes.tree
        shares = choice
        if budget.weighted and tree is not None and tree.logs is not None:
            shares = choice * tree.logs.exp().to(choice)[:, None]
        listed, scores = shortlist(budget.rule, Routed(shares, natural, count), root_exact=budget.root_exact)
        self._note(router, BudgetEffect(natural, listed, choice.sum(0)))
        index, own = sent(router, choice, values, natural, listed, scores, budget.policy)
        return logits, own.to(weights.dtype), index.to(natural.dtype)

    def _note(self, router: Router, seen: BudgetEffect) -> None:
        if router.layer in self._seen or not self._seen:  # another pass than the one before
            self._seen = {}
            self._passes.ledger.note(budget=partial(_by_layer, self._seen))
        self._seen[router.layer] = seen


def sent(
    router: Router,
    choice: torch.Tensor,
    values: torch.Tensor,
    natural: torch.Tensor,
    listed: torch.Tensor,
    scores: torch.Tensor,
    policy: Policy,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where tokens are sent, given a shortlist: experts and their weights, each of shape (tokens, experts of each).

    No expert that is not on the shortlist is ever named: a place that is dropped names the most important one of it,
    with weight 0, for naming an expert is what loads it.

    Args:
        router: of the layer.
        choice: what experts are chosen by, shape (tokens, experts).
        values: what weights are made of, shape (tokens, experts).
        natural: the experts that the router chose.
        listed: whether each expert is on the shortlist, shape (experts,).
        scores: how much each matters.
        policy: as `Budget` has it.
    """
    if policy == "substitution":
        index = choice.masked_fill(~listed, float("-inf")).topk(router.active, -1).indices
    else:
        index = natural
    kept = listed[index]  # a shortlist may be shorter than a token's experts are many
    weights = values.gather(1, index).where(kept, 0.0)
    spare = scores.masked_fill(~listed, float("-inf")).argmax()
    if router.renormalised:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(LEAST_MASS)
    return index.where(kept, spare), weights * router.scale


def figures_of(passes: Sequence[Pass]) -> dict[str, Any]:
    """What a budget did, for the leaderboard.

    By layer, as means over the passes: `kept_mass` is the part of the draft's probability that the shortlist holds,
    `natural_slots` the part of the places in which the router had chosen an expert of the shortlist,
    `natural_experts` the different experts that it had chosen, and `uncovered` the part of the passes in which the
    shortlist lacked one of them. The means over all layers have `mean_` before their names.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for one in passes:
        for name, layers in one.budget.items():
            for layer, value in layers.items():
                found.setdefault(name, {}).setdefault(layer, []).append(value)
    means = {name: {layer: fmean(each) for layer, each in layers.items()} for name, layers in found.items()}
    return {**means, **{f"mean_{name}": fmean(layers.values()) for name, layers in means.items()}}


def _by_layer(seen: Mapping[int, BudgetEffect]) -> dict[str, dict[str, float]]:
    rows = {str(layer): _row(each) for layer, each in seen.items()}
    names = next(iter(rows.values()), {})
    return {name: {layer: round(row[name], 6) for layer, row in rows.items()} for name in names}


def _row(seen: BudgetEffect) -> dict[str, float]:
    natural, sums = seen.natural.cpu(), seen.sums.cpu()
    listed = seen.listed.cpu()
    if listed.dtype != torch.bool:
        listed = torch.zeros_like(sums, dtype=torch.bool).index_fill(0, listed, True)
    inside = listed[natural]
    return {
        "kept_mass": float(sums[listed].sum() / sums.sum()),
        "natural_slots": float(inside.double().mean()),
        "natural_experts": float(natural.unique().numel()),
        "uncovered": float(not bool(inside.all())),
    }
