"""What passes of a model have to move and to compute, from its shapes alone: the measure of every floor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import Anatomy, LayerShapes, Shapes, shapes
from vivace_methods.models.ledger import Pass


@dataclass(frozen=True)
class Cost:
    """The least that forward passes move between memory and processor, and what they compute.

    Attributes:
        weight_bytes: weights, each read once in a pass.
        cache_bytes: keys and values, read and written.
        flops: floating-point operations of the matrix products, two for each multiplication with its addition.
            Norms, biases, activations and softmax are left out: they are below a percent at real sizes.
    """

    weight_bytes: float
    cache_bytes: float
    flops: float

    @property
    def bytes(self) -> float:
        """Everything that is moved. Activations are left out: they can stay close to the processor."""
        return self.weight_bytes + self.cache_bytes

    def __add__(self, other: Cost) -> Cost:
        """Of both, one after the other."""
        return Cost(
            self.weight_bytes + other.weight_bytes, self.cache_bytes + other.cache_bytes, self.flops + other.flops
        )


def cost(model: Any, passes: Iterable[Pass], dtype: torch.dtype) -> Cost:
    """What passes moved and computed.

    Each pass reads every weight that it needs once: all of a layer but its experts, of these the ones that were
    counted (or, where nobody counted, as many as even routing would bring), the head if it gave logits, and a row of
    the embedding, or of the inputs in its place, for each token. Each layer reads the keys and values that its tokens
    look at, and writes theirs; a sliding window bounds both.

    Args:
        model: its anatomy, its shapes, or its configuration.
        passes: as a ledger has them.
        dtype: of weights and cache.

    Raises:
        MethodError: an architecture whose costs are not known, or passes of another model.
    """
    its = _shapes_of(model)
    alike = Counter(its.layers)
    total = _Numbers()
    for one in passes:
        total.weights += one.weights
        total.flops += 2 * one.weights * one.tokens * one.sequences
        if one.kind != "draft":
            _add(total, its, alike, one)
    size = dtype.itemsize
    return Cost(float(size * total.weights + total.stored), float(size * total.cached), float(total.flops))


def decode_cost(model: Any, context: int, dtype: torch.dtype) -> Cost:
    """Of one decoded token.

    Args:
        model: its anatomy, its shapes, or its configuration.
        context: positions in the cache, the token's own not among them.
        dtype: of weights and cache.
    """
    return cost(model, [Pass("decode", 1, context)], dtype)


def prefill_cost(model: Any, length: int, dtype: torch.dtype) -> Cost:
    """Of reading a prompt whole, with causal attention and the logits of its last token alone.

    Args:
        model: its anatomy, its shapes, or its configuration.
        length: of the prompt, in tokens.
        dtype: of weights and cache.
    """
    return cost(model, [Pass("read", length, 0)], dtype)


def pass_cost(model: Any, context: int, tokens: int, dtype: torch.dtype) -> Cost:
    """Of one pass over some tokens that follow a context, with the logits of each: how drafts are verified.

    Args:
        model: its anatomy, its shapes, or its configuration.
        context: positions in the cache, those of the pass not among them.
        tokens: in the pass.
        dtype: of weights and cache.
    """
    return cost(model, [Pass("verify", tokens, context, logits=tokens)], dtype)


def greedy_cost(model: Any, prompt: int, answer: int, dtype: torch.dtype) -> Cost:
    """Of a whole generation without any method: the prompt in one pass, then one token a pass.

    Args:
        model: its anatomy, its shapes, or its configuration.
        prompt: tokens of the prompt.
        answer: tokens of the answer, at least one; the first comes with the prompt's pass.
        dtype: of weights and cache.
    """
    decoded = [Pass("decode", 1, prompt + place) for place in range(answer - 1)]
    return cost(model, [Pass("read", prompt, 0), *decoded], dtype)


def greedy_memory(
    model: Any,
    prompt: int,
    answer: int,
    dtype: torch.dtype,
    *,
    whole_attention: bool = False,
    copied_experts: bool = False,
) -> int:
    """About how many bytes a generation takes beside the weights: the cache, and what a layer keeps of a prompt.

    Args:
        model: its anatomy, its shapes, or its configuration.
        prompt: tokens of the prompt.
        answer: tokens of the answer.
        dtype: of weights and cache.
        whole_attention: whether every token's attention to every other is written out, as `eager` does.
        copied_experts: whether each token copies the weights of its experts, as `batched_mm` does.
    """
    its, size = _shapes_of(model), dtype.itemsize
    cache = sum(layer.key_values * _bounded(prompt + answer, layer.window) for layer in its.layers)
    kept = size * (cache + its.vocabulary)
    # Layers come one after the other, and the memory of one is used again by the next.
    kept += max(size * prompt * _activations(layer, its.hidden) for layer in its.layers)
    if whole_attention:  # scores, a softmax in 32 bits, and the same again in the type of the weights
        kept += max(layer.heads for layer in its.layers) * prompt**2 * (2 * size + 4)
    if copied_experts:
        kept += max(size * prompt * layer.active * layer.expert for layer in its.layers)
    return int(kept)


def _activations(layer: LayerShapes, hidden: int) -> int:
    """Numbers that a layer keeps of each token of a prompt at once, about."""
    inner = (layer.mlp + layer.shared) // hidden  # three times the width of a dense MLP, for its three matrices
    if layer.experts:  # tokens are sorted by their experts, and their results are put back
        inner += layer.active * (layer.expert // hidden + 2 * hidden)
    return 2 * hidden + max(layer.query + layer.key_values, inner)


@dataclass
class _Numbers:
    """Sums over passes: weights that were read, bytes of those that are stored in a type of their own, numbers of the
    cache that were moved, operations."""

    weights: float = 0
    stored: int = 0
    cached: int = 0
    flops: float = 0


def _shapes_of(model: Any) -> Shapes:
    if isinstance(model, Shapes):
        return model
    return model.shapes if isinstance(model, Anatomy) else shapes(model)


def _add(total: _Numbers, its: Shapes, alike: Counter[LayerShapes], one: Pass) -> None:
    rows = one.sequences * one.tokens
    total.weights += its.norm + min(rows, its.vocabulary) * its.hidden
    if one.logits:
        total.weights += its.head
        total.flops += 2 * its.head * one.sequences * one.logits
    for layer, many, each in _layers(its, alike, one):
        if not each.tokens:  # a pass that was ended before
            continue
        rows = one.sequences * each.tokens
        # An expert's biases are read with it, and are no product.
        experts = layer.different_experts(rows) if each.experts is None else each.experts
        routed = rows * layer.active if each.routed is None else each.routed
        total.weights += many * (layer.matrices + layer.vectors + experts * (layer.expert + layer.expert_vectors))
        moved = _looked_at(each.context, layer.window) + _bounded(each.kept, layer.window)
        total.cached += many * layer.key_values * one.sequences * moved
        usual = _pairs(each.tokens, each.context, one.depths, layer.window) if each.pairs is None else each.pairs
        pairs = one.sequences * usual
        total.flops += 2 * many * (rows * layer.matrices + routed * layer.expert + 2 * layer.query * pairs)
    _add_reads(total, its, one)
    _add_linear_tokens(total, its, one)


def _add_reads(total: _Numbers, its: Shapes, one: Pass) -> None:
    """Replace what linear layers hold by what was read for them."""
    for name, read in one.read.items():
        held, layer = _linear(its, name)
        tokens = one.tokens if one.layer_tokens is None else one.layer_tokens[layer]
        total.weights += read - held
        total.flops += 2 * (read - held) * one.sequences * tokens
    for name, stored in one.read_bytes.items():
        held, _ = _linear(its, name)
        total.weights -= one.read.get(name, held)
        total.stored += stored


def _linear(its: Shapes, name: str) -> tuple[int, int]:
    """The weights that a linear layer holds, and the number of the layer that it is in."""
    inner = _LAYER.search(name)
    if inner is None or inner[1] not in its.linears:
        raise MethodError(f"A pass read {name}, and this {its.architecture} has no such linear layer.")
    return its.linears[inner[1]], int(inner[2])


def _add_linear_tokens(total: _Numbers, its: Shapes, one: Pass) -> None:
    """Replace the tokens of a block by those that went through each of its linear layers."""
    for name, tokens in one.linear_tokens.items():
        held, layer = _linear(its, name)
        usual = one.tokens if one.layer_tokens is None else one.layer_tokens[layer]
        total.flops += 2 * held * one.sequences * (tokens - usual)
        total.weights -= 0 if tokens else held


_LAYER = re.compile(r"(?:^|\.)(layers\.(\d+)\..+)$")


@dataclass(frozen=True)
class _InLayer:
    """What a pass did in one layer: tokens, positions before it and kept of it, experts read, and pairs of tokens
    with experts and with positions."""

    tokens: int
    context: int
    kept: int
    pairs: int | None
    experts: int | None
    routed: int | None


def _layers(its: Shapes, alike: Counter[LayerShapes], one: Pass) -> Iterator[tuple[LayerShapes, int, _InLayer]]:
    """Each layer with how many there are of it, and what the pass did in it; layers with one story are told once."""
    told = (one.layer_tokens, one.layer_context, one.layer_kept, one.experts, one.routed, one.layer_pairs)
    if not any(each is not None for each in told):
        same = _InLayer(one.tokens, one.context, one.tokens, None, None, None)
        yield from ((layer, many, same) for layer, many in alike.items())
        return
    mixtures = sum(layer.experts > 0 for layer in its.layers)
    tokens = _per_layer(its, one.layer_tokens, one.tokens, len(its.layers))
    kept = tokens if one.layer_kept is None else _per_layer(its, one.layer_kept, 0, len(its.layers))
    context = _per_layer(its, one.layer_context, one.context, len(its.layers))
    pairs = _per_layer(its, one.layer_pairs, None, len(its.layers))
    experts, routed = (iter(_per_layer(its, counts, None, mixtures)) for counts in (one.experts, one.routed))
    for number, layer in enumerate(its.layers):
        counts = (next(experts), next(routed)) if layer.experts else (None, None)
        yield layer, 1, _InLayer(tokens[number], context[number], kept[number], pairs[number], *counts)


def _per_layer(its: Shapes, told: Sequence[Any] | None, usual: Any, layers: int) -> Sequence[Any]:
    if told is None:
        return [usual] * layers
    if len(told) != layers:
        raise MethodError(
            f"A pass tells of {len(told)} layers, and this {its.architecture} has {layers} of that kind."
        )
    return told


def _bounded(positions: int, window: int | None) -> int:
    return positions if window is None else min(positions, window)


def _looked_at(context: int, window: int | None) -> int:
    """Positions of the cache that the first token of a pass looks at: those after it look at no earlier ones."""
    return context if window is None else min(context, window - 1)


def _pairs(tokens: int, context: int, depths: tuple[int, ...] | None, window: int | None) -> int:
    """Pairs of a token of a pass and a position that it looks at, in one layer.

    Args:
        tokens: of the pass.
        context: positions before it.
        depths: of the tokens in their tree; None for a chain.
        window: positions that a token looks at; None for all.
    """
    if depths is not None:
        return sum(_bounded(context + depth + 1, window) for depth in depths)
    # The token at place i, counted from 1, looks at context + i positions, or at as many as the window holds.
    growing = tokens if window is None else min(tokens, max(window - context, 0))
    pairs = growing * context + growing * (growing + 1) // 2
    return pairs if window is None else pairs + (tokens - growing) * window
