"""What a prompt that is read in part must take: seconds of a model's own products and attention, as measured here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vivace_methods.models.anatomy import LayerShapes, Shapes, anatomy
from vivace_methods.models.ledger import Pass

Work = Callable[[], object]
MOST_TIMES = 5
"""That a layer is timed, of which the least counts; fewer where it takes long."""


def seconds_of(work: Work, device: torch.device) -> float:
    """What work takes until the device has done it."""
    _wait(device)
    begun = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Rates:
    """How fast one layer is with some numbers of tokens.

    Attributes:
        tokens: numbers of tokens, ascending.
        products: operations per second of the layer but for its attention: its matrix products, and whatever else is
            done to each token, which is part of their time.
        attention: operations per second of causal attention.
    """

    tokens: Sequence[int]
    products: Sequence[float]
    attention: Sequence[float]

    def products_at(self, tokens: int) -> float:
        """Of so many tokens; between two measured numbers of them it is in between."""
        return float(np.interp(tokens, self.tokens, self.products))

    def attention_at(self, tokens: int) -> float:
        """Of so many tokens."""
        return float(np.interp(tokens, self.tokens, self.attention))

    def as_json(self) -> dict[str, Any]:
        """In operations per second, by tokens."""
        return {
            "products_flops_per_s": dict(zip(map(str, self.tokens), self.products, strict=True)),
            "attention_flops_per_s": dict(zip(map(str, self.tokens), self.attention, strict=True)),
        }


class Bench:
    """A model whose layers are timed.

    Args:
        model: a causal language model of transformers with layers that are alike, and full attention by torch.

    Attributes:
        device: on which it lies.
        shapes: of its layers.
    """

    def __init__(self, model: Any) -> None:
        self._anatomy, self._dtype = anatomy(model), model.dtype
        self.device: torch.device = model.device
        self.shapes: Shapes = self._anatomy.shapes

    def rates(self, counts: Iterable[int], turn: int = 0) -> Rates:
        """The rates of one layer, each time of another one.

        Args:
            counts: of tokens.
            turn: chooses the layer.
        """
        layer = self._anatomy.layers[turn % len(self._anatomy.layers)]
        its = self.shapes.layers[turn % len(self._anatomy.layers)]
        tokens = sorted(set(counts))
        products, attention = [], []
        with torch.inference_mode():
            self._timed(layer, its, tokens[0], 1)  # to warm up
            for count in tokens:
                whole, attended = self._timed(layer, its, count, min(max(tokens[-1] // count, 2), MOST_TIMES))
                products.append(2 * count * its.matrices / max(whole - attended, 1e-9))
                attention.append(pairs_flops(its, causal_pairs(count)) / attended)
        return Rates(tokens, products, attention)

    def _timed(self, layer: Any, its: LayerShapes, count: int, times: int) -> tuple[float, float]:
        """The least seconds of a layer over some tokens, and of its attention alone."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        decoder = self._anatomy.decoder
        hidden = torch.randn(1, count, self.shapes.hidden, device=self.device, dtype=self._dtype)
        places = torch.arange(count, device=self.device)[None]
        rotations = decoder.rotary_emb(hidden, places)
        size = its.query // its.heads
        queries = torch.randn(1, its.heads, count, size, device=self.device, dtype=self._dtype)
        keys, values = torch.randn(
            2, 1, its.key_value_heads, count, size, device=self.device, dtype=self._dtype
        ).unbind(0)  # fmt: skip
        attend = ALL_ATTENTION_FUNCTIONS[decoder.config._attn_implementation]

        def whole() -> object:
            return layer.module(hidden, attention_mask=None, position_embeddings=rotations, position_ids=places)

        def attention() -> object:
            return attend(layer.attention, queries, keys, values, None, dropout=0.0, scaling=size**-0.5)

        taken = [(seconds_of(whole, self.device), seconds_of(attention, self.device)) for _ in range(times)]
        return min(each for each, _ in taken), min(each for _, each in taken)


@dataclass(frozen=True)
class Bounds:
    """The seconds that passes must take at measured rates.

    Attributes:
        shapes: of the model.
        rates: of its layers.
        draft: of the model whose passes are drafts; None where there are none.
    """

    shapes: Shapes
    rates: Rates
    draft: Bounds | None = None

    def seconds(self, passes: Iterable[Pass]) -> float:
        """Of all passes together."""
        total = 0.0
        for one in passes:
            drafted = self.draft if one.kind == "draft" else self
            total += 0.0 if drafted is None else drafted.of_pass(one)
        return total

    def of_pass(self, one: Pass) -> float:
        """Of one pass of this model."""
        total = 2 * self.shapes.head * one.logits / self.rates.products_at(max(self.rates.tokens))
        for number, its in enumerate(self.shapes.layers):
            tokens = one.tokens if one.layer_tokens is None else one.layer_tokens[number]
            if not tokens:
                continue
            products = tokens * its.matrices
            for name, through in one.linear_tokens.items():
                if f"layers.{number}." in name:
                    products += self.shapes.linears[name] * (through - tokens)
            pairs = causal_pairs(tokens, one.context) if one.layer_pairs is None else one.layer_pairs[number]
            total += 2 * products / self.rates.products_at(tokens)
            total += pairs_flops(its, pairs) / self.rates.attention_at(tokens)
        return total


def causal_pairs(tokens: int, context: int = 0) -> int:
    """Pairs of a token and a position that it looks at."""
    return tokens * context + tokens * (tokens + 1) // 2


def pairs_flops(its: LayerShapes, pairs: int) -> float:
    """Operations of so many pairs in one layer: a product with a key and one with a value."""
    return 4.0 * its.query * pairs
