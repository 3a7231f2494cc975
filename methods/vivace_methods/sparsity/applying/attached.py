"""Sparse layers on a model, whoever then calls it: what `attach` of activation sparsity puts there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from vivace_methods.decoding.plain import PlainDecoder
from vivace_methods.models import implementations
from vivace_methods.models.ledger import Pass
from vivace_methods.models.passes import Passes, passes_of
from vivace_methods.protocol import Attached, Compile
from vivace_methods.sparsity.applying.groups import (
    LayerReads,
    SparseGroup,
    applied_groups,
    figures_of,
    packed_group,
    reading,
)
from vivace_methods.sparsity.applying.linears import Group, find_groups
from vivace_methods.sparsity.fitting.layers import Fitted
from vivace_methods.sparsity.fitting.recipe import Recipe

Applied = AbstractContextManager[tuple[torch.Tensor, list[LayerReads]]]
"""Sparse layers in a model while the context lasts: kept channels of decoded tokens so far, int32, shape (layers,),
and what each layer reads."""


@contextmanager
def attached(model: Any, apply: Callable[[Passes], Applied], compile: Compile) -> Iterator[Attached]:
    """A model with sparse layers, whose passes are recorded.

    Args:
        model: of transformers.
        apply: puts the layers there.
        compile: how the step of a single token is compiled.
    """
    with ExitStack() as contexts:
        passes = contexts.enter_context(passes_of(model))
        counts, reads = contexts.enter_context(apply(passes))
        contexts.enter_context(passes.ledger.counter(counts, reading(reads)))
        products = contexts.enter_context(implementations.products(model))
        untouched = weights_of_blocks(model) - sum(layer.dense for layer in reads)

        def figures(passes: Sequence[Pass]) -> dict[str, Any]:
            return {**({"products": products} if products else {}), **figures_of(passes, reads, untouched)}

        decoder = PlainDecoder(model, compile=compile)
        yield Attached(passes, usual_decoder=decoder, figures=figures, prepare=_meet_one_token)


@contextmanager
def sparse_linears(
    model: Any, groups: Sequence[Group], recipe: Recipe, prompt: float, passes: Passes | None, *, levels: bool
) -> Iterator[tuple[torch.Tensor, list[LayerReads]]]:
    """Linear layers of a model that leave out what their inputs do not need.

    Args:
        model: of transformers.
        groups: its layers.
        recipe: fitted to them.
        prompt: share of a prompt's last tokens that is read sparsely too.
        passes: of the model; None where nothing is verified.
        levels: whether weights are rounded to eight bits.
    """
    fitted = fitted_of(recipe)
    counts = torch.zeros(sum(len(group.names) for group in groups), dtype=torch.int32, device=model.device)
    sparse, reads, first = [], [], 0
    for group in groups:
        its_counts = counts[first : first + len(group.names)]
        sparse.append(SparseGroup(group, packed_group(group, fitted, levels=levels), its_counts, prompt, passes))
        first += len(group.names)
        reads += [
            LayerReads.of(name, module, recipe.modules[name].rank, levels=levels)
            for name, module in zip(group.names, group.modules, strict=True)
        ]
    with applied_groups(sparse):
        yield counts, reads


def fitted_of(recipe: Recipe) -> dict[str, Fitted]:
    """The layers of a recipe."""
    return {name: Fitted(module, recipe.factors.get(name)) for name, module in recipe.modules.items()}


def weights_of_blocks(model: Any) -> int:
    """Of the seven linear layers of all blocks, whether a method applies to them or not."""
    return sum(int(module.weight.numel()) for group in find_groups(model) for module in group.modules)


def _meet_one_token(model: Any) -> None:
    """Let sparse layers try their kernels on what a token brings, so that no answer has to wait for that."""
    if model.device.type != "cpu":
        return  # graphs are captured in the warm-up, and kernels tried there
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
