"""The thresholds of CATS: below which an activated gate leaves its neuron out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.linears import Group, find_groups
from vivace_methods.sparsity.applying.mlps import Mlp, SparseMlp
from vivace_methods.sparsity.fitting.calibration import DECODED
from vivace_methods.sparsity.fitting.layers import Fitted, halves, threshold_of
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe
from vivace_methods.sparsity.fitting.walk import Walk


def fit_gates(
    model: Any,
    mlps: Sequence[Mlp],
    texts: Sequence[torch.Tensor],
    *,
    sparsity: float,
    sequential: bool,
    on_step: Callable[[int, int], None],
) -> dict[str, Fitted]:
    """A threshold for each MLP's activated gate.

    Args:
        model: with nothing applied.
        mlps: of the model, in the order in which they are met.
        texts: token ids, each of shape (1, length).
        sparsity: over all linear layers of a block.
        sequential: whether each MLP is calibrated on what the sparse ones before it give, or all on dense ones.
        on_step: told of the MLPs that are done and of all.

    Returns:
        Name of each `up_proj` and `down_proj` → what was fitted.

    Raises:
        MethodError: these layers alone cannot be left out so far, or gates are not finite.
    """
    dropped = _dropped(model, mlps, sparsity)
    fitted: dict[str, Fitted] = {}
    gates = [Group((mlp.gate_name,), (mlp.gate,)) for mlp in mlps]
    walk = Walk(model, gates, texts)
    with ExitStack() as applied:
        for number, mlp in enumerate(mlps):
            (inputs,) = walk.inputs([gates[number]])
            its = _fitted(mlp, inputs, dropped)
            fitted |= {mlp.up_name: its, mlp.down_name: its}
            if sequential:
                nobody = torch.zeros(2, dtype=torch.int32, device=model.device)
                sparse = SparseMlp(mlp, its.recipe.threshold, nobody, prompt=DECODED, weights=None)
                applied.enter_context(sparse.applied())
            on_step(number + 1, len(mlps))
    return fitted


def _fitted(mlp: Mlp, texts: Sequence[torch.Tensor], dropped: float) -> Fitted:
    fit, check = halves(texts)
    gates = mlp.activate(mlp.gate(fit))
    if not bool(torch.isfinite(gates).all()):
        raise MethodError(
            f"On the calibration text, {mlp.gate_name} gives numbers that are not finite: a threshold would mean "
            "nothing. Load the model as bfloat16 or float32, or calibrate on other text."
        )
    threshold = threshold_of(gates.float().abs(), 1 - dropped)
    checked, raised = mlp.activate(mlp.gate(check)), mlp.up(check)
    exact = mlp.down(checked * raised).float()
    lost = exact - mlp.down(torch.where(checked.abs() <= threshold, 0, checked) * raised).float()
    error = float(lost.square().sum() / exact.square().sum().clamp_min(1e-30))
    return Fitted(ModuleRecipe(dropped, 1.0, 0, "gate", threshold, error), None)


def _dropped(model: Any, mlps: Sequence[Mlp], sparsity: float) -> float:
    """The share of neurons that gives the sparsity of all seven layers."""
    whole = sum(module.weight.numel() for group in find_groups(model) for module in group.modules)
    theirs = sum(mlp.up.weight.numel() + mlp.down.weight.numel() for mlp in mlps)
    dropped: float = sparsity * whole / theirs
    if dropped >= 1:
        raise MethodError(
            f"cats leaves out weights of up_proj and down_proj alone, {theirs / whole:.1%} of all here: its "
            f"sparsity must be below {theirs / whole:.3f}, and {sparsity} was asked for."
        )
    return dropped
