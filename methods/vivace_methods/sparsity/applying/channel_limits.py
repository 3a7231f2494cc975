"""From a layer's recipe to the magnitude below which each of its input channels is left to the low-rank part."""

from __future__ import annotations

import hashlib

import torch

from vivace_kernels.sparsity.packed import Factors
from vivace_methods.sparsity.fitting.criteria import Criterion
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe

ALWAYS = -1.0
"""A threshold that every score is above."""
_MOST = torch.finfo(torch.float32).max
"""Not infinity: an infinite input must still be kept, so that it comes out."""


def channel_limits(name: str, recipe: ModuleRecipe, weight: torch.Tensor, factors: Factors | None) -> torch.Tensor:
    """The limits of one layer's input channels.

    Args:
        name: of the layer, from which random ones are drawn.
        recipe: of the layer.
        weight: shape (outputs, inputs).
        factors: of its low-rank part, or None.

    Returns:
        float32, shape (inputs,): a channel is dropped where its magnitude is at most this.
    """
    inputs = weight.shape[1]
    if recipe.criterion == "none":
        return torch.full((inputs,), _MOST, device=weight.device)
    if recipe.criterion == "gate":
        return torch.zeros(inputs, device=weight.device)  # what the gate dropped is zero
    if recipe.criterion == "random":
        chance = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
        limits = torch.full((inputs,), ALWAYS)
        limits[torch.randperm(inputs, generator=chance)[: round(recipe.threshold * inputs)]] = _MOST
        return limits.to(weight.device)
    scale = channel_scale(recipe.criterion, weight, factors)
    return (recipe.threshold / scale).nan_to_num(nan=ALWAYS).clamp(-_MOST, _MOST)


def channel_scale(criterion: Criterion, weight: torch.Tensor, factors: Factors | None) -> torch.Tensor:
    """What an input's magnitude is multiplied with to judge its channel.

    Under `column-norm` it is the norm of the column of W (as in WINA, arXiv 2505.19427, and in the released code of
    R-Sparse, whose scale, the norm of a row of V · S, is that of W's column). Under `residual-norm` it is that of the
    column of W - W_r, what dropping the channel loses. Without a low-rank part they are the same.

    Returns:
        float32, shape (inputs,).
    """
    if criterion == "magnitude":
        return torch.ones(weight.shape[1], device=weight.device)
    return residual(weight, factors if criterion == "residual-norm" else None).norm(dim=0)


def residual(weight: torch.Tensor, factors: Factors | None) -> torch.Tensor:
    """W - W_r in float32, shape (outputs, inputs)."""
    whole = weight.detach().float()
    return whole if factors is None else whole - factors.up.to(whole) @ factors.down.to(whole)
