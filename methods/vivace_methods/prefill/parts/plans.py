"""Where in the model a prompt is pruned: at a layer inside its one pass, in several steps, before it, or nowhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vivace_methods.errors import MethodError

Select = Literal["after-block", "before-mlp", "before-attention"]
Positions = Literal["kept", "compacted"]


@dataclass(frozen=True)
class Plan:
    """Where a prompt is pruned, in a model of a certain number of layers.

    Attributes:
        stops: layer, from 0 → how much of the prompt goes on behind it, as `selectors.budget` has it.
        once: whether of all stops only the first is taken at which the ranking is settled, or the last one.
        select: where in the layer of a stop tokens are left out: after the block; after its attention; or before it,
            where keys and values are made of all tokens, and everything else of the kept ones alone.
        restart: how much of the prompt goes into the first layer; None where the prompt is not pruned before.
        positions: whether, then, kept tokens stand where they stood, or move together.
    """

    stops: Mapping[int, float] = field(default_factory=dict)
    once: bool = False
    select: Select = "after-block"
    restart: float | None = None
    positions: Positions = "kept"

    def keeps(self) -> list[float]:
        """All shares of the prompt that go on somewhere."""
        return [*self.stops.values(), *([] if self.restart is None else [self.restart])]


def layer_of(layer: int | None, layers: int, name: str, usual: float = 0.5) -> int:
    """The number of a layer, from 0.

    Args:
        layer: as it was asked for; None for the one at the usual depth.
        layers: of the model.
        name: of the method.
        usual: depth, of all layers, rounded down.

    Raises:
        MethodError: the model has no such layer.
    """
    found = math.floor(usual * layers) if layer is None else layer
    if not 0 <= found < layers:
        raise MethodError(
            f"{name} is to prune at layer {found}, and the model has layers 0 to {layers - 1}: choose one of them."
        )
    return found


def at_layer(layer: int, keep: float, select: Select = "after-block") -> Plan:
    """Once, at a layer (FastKV, CLAA, the oracle)."""
    return Plan({layer: keep}, select=select)


def where_settled(earliest: int, latest: int, keep: float) -> Plan:
    """Once, at the first layer from `earliest` on at which the ranking is settled; at `latest` at last (ASL)."""
    return Plan(dict.fromkeys(range(earliest, latest + 1), keep), once=True)


def scheduled(stops: Mapping[int, float]) -> Plan:
    """In several steps (PyramidInfer, LazyLLM)."""
    return Plan(dict(sorted(stops.items())))


def restarted(keep: float, positions: Positions) -> Plan:
    """Before the first layer (GemFilter, SpecPrefill)."""
    return Plan(restart=keep, positions=positions)


def whole() -> Plan:
    """Nowhere: every token goes through every layer (SnapKV, H2O)."""
    return Plan()
