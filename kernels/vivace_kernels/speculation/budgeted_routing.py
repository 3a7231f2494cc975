"""Routing under a budget on whatever device a router's logits lie."""

from __future__ import annotations

import importlib.util

import torch

from vivace_kernels.speculation.routing import MOST_EXPERTS, Routing, Rule, reference

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def budgeted_routing(logits: torch.Tensor, rule: Rule) -> Routing:
    """Route a draft, by the fastest way for the device.

    Equal scores and equal probabilities go to the expert with the lower number; probabilities that are no numbers
    come last, and come out as the weights that they are.

    Args:
        logits: of the router, shape (tokens, experts), of any floating type.
        rule: of the layer. A budget of more experts than there are is one of all.

    Raises:
        ValueError: fewer experts than the rule gives each token.
    """
    if logits.ndim != 2 or logits.shape[1] < rule.experts:
        raise ValueError(
            f"The router's logits have shape {tuple(logits.shape)}, and each of (tokens, experts) is sent to "
            f"{rule.experts}."
        )
    if logits.device.type == "cuda" and logits.shape[1] <= MOST_EXPERTS and _HAS_TRITON:
        from vivace_kernels.speculation.routing_gpu import budgeted_routing_gpu

        return budgeted_routing_gpu(logits, rule)
    return reference(logits, rule, torch.float32)
