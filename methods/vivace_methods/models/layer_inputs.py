"""The inputs of some layers, kept as a model runs: what drafters go on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import anatomy


def layers_of(model: Any, numbers: Sequence[int]) -> dict[int, torch.nn.Module]:
    """Some layers of a model's text decoder by their numbers, from 0.

    Raises:
        MethodError: its layers are not found, or there is none of that number.
    """
    if not numbers:
        return {}
    found = _layers(model)
    if max(numbers) >= len(found):
        raise MethodError(f"{type(model).__name__} has {len(found)} layers, and none of the number {max(numbers)}.")
    return {each: found[each] for each in dict.fromkeys(numbers)}


def _layers(model: Any) -> list[torch.nn.Module]:
    """All layers; of an architecture that anatomy does not know, those that are where most have theirs."""
    try:
        return [layer.module for layer in anatomy(model).layers]
    except MethodError:
        found = getattr(getattr(model, "model", None), "layers", None)
        if found is None:
            raise
        return list(found)


@contextmanager
def tapping(layers: Mapping[int, torch.nn.Module]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the inputs of some layers, of the latest pass alone, while the context lasts.

    Args:
        layers: as `layers_of` gives them.

    Yields:
        Layer → its input, shape (rows, positions, hidden).
    """
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int, module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept[layer] = inputs[0] if inputs else named["hidden_states"]

    handles = [
        module.register_forward_pre_hook(partial(keep, layer), with_kwargs=True) for layer, module in layers.items()
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
