"""A crude expert budget, which shows that a mixture's quality falls by degrees and tells rules apart.

It waits for the real one: a method of speculation with a budget will take its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

ExpertRule = Literal["softmax", "count", "random"]


@contextmanager
def expert_budget(model: Any, rule: ExpertRule, budget: int, seed: int = 0) -> Iterator[None]:
    """Let the tokens of a pass share a few experts of each layer, while the context lasts.

    Each token then takes its best ones among those that are kept, weighted as the model would have weighted them.

    Args:
        model: a mixture of experts of transformers, whose routers give logits, weights and indices.
        rule: which experts are kept: those with the largest sum of softmax over the tokens; those that most tokens
            would have taken; or some at random.
        budget: experts that are kept in each layer, at least as many as a token takes.
        seed: of the random rule.
    """
    import torch

    chance = torch.Generator().manual_seed(seed)
    active = model.config.num_experts_per_tok

    def restrict(router: Any, inputs: Any, routed: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        logits, weights, indices = routed
        probabilities = logits.float().softmax(-1)
        experts = probabilities.shape[-1]
        if rule == "softmax":
            worth = probabilities.sum(0)
        elif rule == "count":
            worth = torch.bincount(indices.flatten(), minlength=experts).float()
        else:
            worth = torch.rand(experts, generator=chance)
        left_out = torch.ones(experts, dtype=torch.bool)
        left_out[worth.topk(budget).indices] = False
        chosen, picked = probabilities.masked_fill(left_out, -1.0).topk(active, -1)
        if model.config.norm_topk_prob:
            chosen = chosen / chosen.sum(-1, keepdim=True)
        return logits, chosen.to(weights.dtype), picked

    with ExitStack() as hooks:
        for layer in model.model.layers:
            hooks.callback(layer.mlp.gate.register_forward_hook(restrict).remove)
        yield
