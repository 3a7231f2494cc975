"""What a step has to move and to compute, from the shapes alone: the measure of every floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.base import MethodError

ARCHITECTURES = ("llama", "olmoe", "qwen3", "qwen3_moe")


@dataclass(frozen=True)
class Cost:
    """The least that a forward pass moves between memory and processor, and what it computes.

    Attributes:
        weight_bytes: weights, each read once.
        cache_bytes: keys and values, read and written.
        flops: floating-point operations of the matrix products, two for each multiplication with its addition.
            Norms, activations and softmax are left out: they are below a percent at real sizes.
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


@dataclass(frozen=True)
class Shapes:
    """The numbers of a model's configuration that decide what a step costs.

    Attributes:
        attention: weights of one layer's four projections.
        attention_norms: weights of its norms on queries and keys.
        expert: weights of one expert's three matrices, or of a dense layer's.
        experts: in a layer; 1 where it is dense.
        active: experts that one token goes through.
        router: weights of the router; 0 where it is dense.
        key_values: numbers that one position keeps in one layer's cache.
        query: width of all queries of one layer.
        heads: of the queries.
    """

    layers: int
    hidden: int
    vocabulary: int
    attention: int
    attention_norms: int
    expert: int
    experts: int
    active: int
    router: int
    key_values: int
    query: int
    heads: int

    @classmethod
    def of(cls, configuration: Any) -> Shapes:
        """The shapes of a configuration of transformers.

        Raises:
            MethodError: an architecture whose costs are not known here, or layers that are not alike.
        """
        kind = configuration.model_type
        if kind not in ARCHITECTURES:
            raise MethodError(
                f"What a step of a '{kind}' model costs is not known; of {', '.join(ARCHITECTURES)} it is."
            )
        mixture = kind in ("olmoe", "qwen3_moe")
        if mixture and (getattr(configuration, "decoder_sparse_step", 1) != 1 or _dense_layers(configuration)):
            raise MethodError("What a step costs is known for models whose layers are all alike, and these are not.")
        hidden, heads = configuration.hidden_size, configuration.num_attention_heads
        width = getattr(configuration, "head_dim", None) or hidden // heads
        query, keys = heads * width, configuration.num_key_value_heads * width
        intermediate = configuration.moe_intermediate_size if kind == "qwen3_moe" else configuration.intermediate_size
        norms = {"llama": 0, "olmoe": query + keys, "qwen3": 2 * width, "qwen3_moe": 2 * width}
        return cls(
            layers=configuration.num_hidden_layers,
            hidden=hidden,
            vocabulary=configuration.vocab_size,
            attention=2 * hidden * query + 2 * hidden * keys,
            attention_norms=norms[kind],
            expert=3 * hidden * intermediate,
            experts=configuration.num_experts if mixture else 1,
            active=configuration.num_experts_per_tok if mixture else 1,
            router=hidden * configuration.num_experts if mixture else 0,
            key_values=2 * keys,
            query=query,
            heads=heads,
        )

    def weights(self, experts: float, embeddings: int) -> float:
        """Weights that a pass reads.

        Args:
            experts: different experts of each layer.
            embeddings: rows of the embedding.
        """
        layer = self.attention + self.attention_norms + 2 * self.hidden + self.router + experts * self.expert
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden + embeddings * self.hidden

    def different_experts(self, tokens: int) -> float:
        """Different experts of a layer that so many tokens meet, where routing is even and independent.

        Trained routers prefer some experts, and meet fewer.
        """
        return self.experts * (1 - (1 - self.active / self.experts) ** tokens)

    def flops(self, tokens: int, attended: int) -> float:
        """Operations of a pass that gives the logits of its last token.

        Args:
            tokens: in the pass.
            attended: pairs of a token and a position that it looks at.
        """
        per_token = self.attention + self.router + self.active * self.expert
        attention = 2 * self.query * attended
        return 2 * (self.layers * (tokens * per_token + attention) + self.vocabulary * self.hidden)


def decode_cost(configuration: Any, context: int, dtype: torch.dtype) -> Cost:
    """Of one decoded token.

    Args:
        context: positions in the cache, the token's own not among them.
        dtype: of weights and cache.
    """
    shapes, size = Shapes.of(configuration), dtype.itemsize
    positions = context + 1  # what was there is read, the token's own is written
    return Cost(
        weight_bytes=size * shapes.weights(shapes.active, 1),
        cache_bytes=size * shapes.layers * shapes.key_values * positions,
        flops=shapes.flops(1, context + 1),
    )


def prefill_cost(configuration: Any, length: int, dtype: torch.dtype) -> Cost:
    """Of reading a prompt whole, with causal attention and the logits of its last token alone.

    Args:
        length: of the prompt, in tokens.
        dtype: of weights and cache.
    """
    shapes, size = Shapes.of(configuration), dtype.itemsize
    return Cost(
        weight_bytes=size * shapes.weights(shapes.different_experts(length), min(length, shapes.vocabulary)),
        cache_bytes=size * shapes.layers * shapes.key_values * length,
        flops=shapes.flops(length, length * (length + 1) // 2),
    )


def pass_cost(configuration: Any, context: int, tokens: int, dtype: torch.dtype) -> Cost:
    """Of one pass over some tokens that follow a context, with the logits of each: how drafts are verified.

    Args:
        context: positions in the cache, those of the pass not among them.
        tokens: in the pass.
        dtype: of weights and cache.
    """
    shapes, size = Shapes.of(configuration), dtype.itemsize
    attended = tokens * context + tokens * (tokens + 1) // 2
    more_logits = 2 * (tokens - 1) * shapes.vocabulary * shapes.hidden
    return Cost(
        weight_bytes=size * shapes.weights(shapes.different_experts(tokens), min(tokens, shapes.vocabulary)),
        cache_bytes=size * shapes.layers * shapes.key_values * (context + tokens),
        flops=shapes.flops(tokens, attended) + more_logits,
    )


def greedy_cost(configuration: Any, prompt: int, answer: int, dtype: torch.dtype) -> Cost:
    """Of a whole generation without any method: the prompt in one pass, then one token a pass.

    Args:
        prompt: tokens of the prompt.
        answer: tokens of the answer, at least one; the first comes with the prompt's pass.
        dtype: of weights and cache.
    """
    decoded = (decode_cost(configuration, prompt + place, dtype) for place in range(answer - 1))
    return sum(decoded, prefill_cost(configuration, prompt, dtype))


def greedy_memory(
    configuration: Any,
    prompt: int,
    answer: int,
    dtype: torch.dtype,
    *,
    whole_attention: bool = False,
    copied_experts: bool = False,
) -> int:
    """About how many bytes a generation takes beside the weights: the cache, and what a layer keeps of a prompt.

    Args:
        prompt: tokens of the prompt.
        answer: tokens of the answer.
        dtype: of weights and cache.
        whole_attention: whether every token's attention to every other is written out, as `eager` does.
        copied_experts: whether each token copies the weights of its experts, as `batched_mm` does.
    """
    shapes, size = Shapes.of(configuration), dtype.itemsize
    cache = shapes.layers * shapes.key_values * (prompt + answer)
    inner = shapes.expert // shapes.hidden  # three times the width of an expert, or of a dense layer
    if shapes.experts > 1:
        inner += 2 * shapes.hidden  # tokens are sorted by their experts, and their results are put back
    layer = prompt * (2 * shapes.hidden + max(shapes.query + shapes.key_values, shapes.active * inner))
    kept: int = size * (cache + layer + shapes.vocabulary)
    if whole_attention:  # scores, a softmax in 32 bits, and the same again in the type of the weights
        kept += shapes.heads * prompt**2 * (2 * size + 4)
    if copied_experts:
        kept += size * prompt * shapes.active * shapes.expert
    return kept


def _dense_layers(configuration: Any) -> list[int]:
    return list(getattr(configuration, "mlp_only_layers", None) or [])
