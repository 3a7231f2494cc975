"""Routing of a draft's tokens under a budget: they share a shortlist of experts, chosen by their probabilities.

A verifying pass loads every expert that any token of the draft is sent to. The shortlist holds those that matter most
to the draft as a whole, and tokens are sent to no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

Policy = Literal["substitution", "truncation"]
"""What becomes of a token's expert that is not on the shortlist: its place goes to the token's next one that is, or
it is dropped."""
POLICIES: tuple[Policy, ...] = get_args(Policy)
MOST_EXPERTS = 128
"""That the kernel compares with each other; more go the way of torch, which CUDA graphs capture as well."""
LEAST_MASS = 1e-9
"""By which a token's kept probabilities are divided at least, where a model renormalises: it may keep none."""


@dataclass(frozen=True)
class Rule:
    """How a layer routes a draft.

    Source: McDanel et al., MoE-Spec, arXiv 2602.16052.

    Attributes:
        experts: of each token.
        budget: experts on the shortlist, at least as many as each token has.
        policy: see `Policy`.
        renormalised: whether a token's weights are divided by their sum, as the model itself does or does not.
    """

    experts: int
    budget: int
    policy: Policy = "substitution"
    renormalised: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.experts <= self.budget:
            raise ValueError(
                f"A budget of {self.budget} experts cannot serve tokens of {self.experts} each: it must be at least "
                "as many, and a token has at least one."
            )
        if self.policy not in POLICIES:
            raise ValueError(f"There is no policy {self.policy}; there are {', '.join(POLICIES)}.")


@dataclass(frozen=True)
class Routing:
    """Where a draft's tokens are sent.

    Attributes:
        index: int64, shape (tokens, experts of each), all of them on the shortlist. A dropped place names the
            shortlist's first expert, so that no other is loaded for it.
        weights: float32, of the same shape; zero in dropped places.
        shortlist: int64, shape (budget,), the experts by falling score.
        scores: float32, shape (experts,): each one's probabilities, summed over the draft.
    """

    index: torch.Tensor
    weights: torch.Tensor
    shortlist: torch.Tensor
    scores: torch.Tensor


def reference(logits: torch.Tensor, rule: Rule, dtype: torch.dtype = torch.float64) -> Routing:
    """What all ways must come to, in torch; scores and weights are of the type in which it is computed."""
    probabilities = torch.softmax(logits.to(dtype), -1)
    scores = probabilities.sum(0)
    shortlist = _falling(scores)[: rule.budget]
    on_it = torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, shortlist, True)
    if rule.policy == "substitution":
        # Below every probability, and also below what is no number.
        eligible = probabilities.nan_to_num(-1).masked_fill(~on_it, -2)
        index = _falling(eligible)[:, : rule.experts]
        weights, least = probabilities.gather(1, index), torch.finfo(dtype).tiny
    else:
        index = _falling(probabilities)[:, : rule.experts]
        kept = on_it[index]
        weights, least = probabilities.gather(1, index).where(kept, 0), LEAST_MASS
        index = index.where(kept, shortlist[0])
    if rule.renormalised:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(least)
    return Routing(index, weights, shortlist, scores)


def _falling(values: torch.Tensor) -> torch.Tensor:
    """Places along the last dimension by falling value, equal ones in their order."""
    return values.nan_to_num(-1).argsort(dim=-1, descending=True, stable=True)
