"""Where things are in a language model: its layers, attention, MLPs, routers and experts, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vivace_methods.errors import MethodError

if TYPE_CHECKING:
    import torch

DECODERS: Mapping[str, str] = {
    "gemma": "GemmaModel",
    "gemma2": "Gemma2Model",
    "gemma3_text": "Gemma3TextModel",
    "gpt_oss": "GptOssModel",
    "llama": "LlamaModel",
    "mistral": "MistralModel",
    "mixtral": "MixtralModel",
    "olmoe": "OlmoeModel",
    "qwen2": "Qwen2Model",
    "qwen2_5_omni_text": "Qwen2_5OmniThinkerTextModel",
    "qwen2_moe": "Qwen2MoeModel",
    "qwen3": "Qwen3Model",
    "qwen3_moe": "Qwen3MoeModel",
    "qwen3_omni_moe_text": "Qwen3OmniMoeThinkerTextModel",
}
"""The `model_type` of a text decoder → its class in transformers. Of each of these it was looked up that a position
keeps one key and one value a head in each layer, that layers hold `self_attn` and `mlp`, and that experts are one
module, which is given the indices that the router chose. Audio models and other wrappers are known by the decoder in
them."""
DENSE = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Those of them that have no experts, and linear layers that need no further look."""


@dataclass(frozen=True)
class LayerShapes:
    """The numbers of one layer that decide what it costs, all of them counted over its parameters.

    Attributes:
        attention: weights of the attention's matrices.
        mlp: weights of the matrices of a dense MLP; 0 where there are experts.
        router: weights of the router's matrix; 0 where there is none.
        shared: weights of the matrices that every token goes through beside its experts.
        expert: weights of one expert's matrices; 0 where there are none.
        expert_vectors: an expert's biases.
        experts: how many there are; 0 where the MLP is dense.
        active: experts that the router gives one token.
        vectors: whatever else is read: norms, biases, sinks of the attention.
        key_values: numbers that one position keeps in the layer's cache.
        query: width of all queries.
        heads: of the queries.
        key_value_heads: of keys and values; each serves `heads / key_value_heads` of the queries'.
        window: positions that a token looks at, its own among them; None where it looks at all.
        adjusted: what changes attention besides the scaling and the softmax of products, as transformers names it;
            None where nothing does.
    """

    attention: int
    mlp: int
    router: int
    shared: int
    expert: int
    expert_vectors: int
    experts: int
    active: int
    vectors: int
    key_values: int
    query: int
    heads: int
    key_value_heads: int
    window: int | None
    adjusted: str | None

    @property
    def matrices(self) -> int:
        """Weights that every token is multiplied with, whatever experts it meets."""
        return self.attention + self.mlp + self.router + self.shared

    def different_experts(self, tokens: int) -> float:
        """Different experts that so many tokens meet, where routing is even and independent.

        Trained routers prefer some experts, and meet fewer.
        """
        if not self.experts:
            return 0.0
        return self.experts * (1 - (1 - self.active / self.experts) ** tokens)


@dataclass(frozen=True)
class Shapes:
    """The numbers of a model that decide what its passes cost.

    Attributes:
        architecture: the text decoder's `model_type`.
        hidden: width of the model.
        vocabulary: rows of the embedding.
        norm: weights of the norm behind the last layer.
        head: weights that turn a hidden state into logits, also where they are the embedding's.
        layers: of each layer, in order.
        linears: name of each linear layer inside the decoder, as `layers.0.self_attn.q_proj` → its weights.
    """

    architecture: str
    hidden: int
    vocabulary: int
    norm: int
    head: int
    layers: tuple[LayerShapes, ...]
    linears: Mapping[str, int] = field(repr=False)


@dataclass(frozen=True)
class Layer:
    """The modules of one decoder layer.

    Attributes:
        module: the layer itself.
        attention: its self-attention.
        norms: the norms around attention and MLP, in the order in which they are held.
        mlp: the dense MLP, or the whole block of router and experts.
        router: chooses each token's experts; None where the MLP is dense.
        experts: all experts of the layer as one module, whose inputs are hidden states, indices of experts, and
            weights; None where the MLP is dense.
        shared: what every token goes through beside its experts.
    """

    module: torch.nn.Module
    attention: torch.nn.Module
    norms: tuple[torch.nn.Module, ...]
    mlp: torch.nn.Module
    router: torch.nn.Module | None = None
    experts: torch.nn.Module | None = None
    shared: tuple[torch.nn.Module, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """Where things are in a model, and how large they are.

    Attributes:
        model: what was looked into.
        decoder: the text decoder, whose inputs are token ids or embeddings, and whose output are hidden states.
        embedding: of tokens.
        layers: of the decoder, in order.
        norm: behind the last layer.
        head: turns hidden states into logits; None in a model that gives none.
        shapes: the numbers.
    """

    model: torch.nn.Module
    decoder: torch.nn.Module
    embedding: torch.nn.Module
    layers: tuple[Layer, ...]
    norm: torch.nn.Module
    head: torch.nn.Module | None
    shapes: Shapes

    @property
    def mixtures(self) -> tuple[Layer, ...]:
        """The layers that have experts, in order."""
        return tuple(layer for layer in self.layers if layer.experts is not None)


def anatomy(model: Any) -> Anatomy:
    """The parts of a model of transformers, found through whatever wraps it.

    Args:
        model: a language model, a model of audio or images that holds one, or anything around such a model.

    Raises:
        MethodError: no text decoder that is known is in it, or more than one.
    """
    decoder = _decoder(model)
    layers = tuple(_layer(module) for module in decoder.layers)
    head = _head(model, decoder)
    return Anatomy(model, decoder, decoder.embed_tokens, layers, decoder.norm, head, _shapes(decoder, layers, head))


def shapes(configuration: Any) -> Shapes:
    """The numbers of a model that need not be there yet.

    Its decoder is made without memory for its weights, which takes some hundredths of a second, and is looked into as
    a model would be. Equal configurations are looked into once.

    Args:
        configuration: of transformers; of an audio model, that of its text decoder is found in it.

    Raises:
        MethodError: an architecture that is not known.
    """
    text = configuration.get_text_config(decoder=True)
    if text.model_type not in DECODERS:
        raise _unknown(text.model_type)
    written = text.to_json_string()
    if written not in _seen:
        import torch
        import transformers

        text = deepcopy(text)
        text._attn_implementation = "eager"  # others ask for packages, and have no weights of their own
        with torch.device("meta"):
            decoder = getattr(transformers, DECODERS[text.model_type])(text)
        _seen[written] = _shapes(decoder, tuple(_layer(module) for module in decoder.layers), None)
    return _seen[written]


_seen: dict[str, Shapes] = {}


def without_weights(configuration: Any, name: str) -> Any | None:
    """A causal language model of a configuration, in no memory, to see whether a method fits it.

    Args:
        configuration: of transformers.
        name: of the method that asks.

    Returns:
        None where the model's code comes with its weights, and is not run for this.

    Raises:
        MethodError: it is of no language model.
    """
    if getattr(configuration, "auto_map", None):
        return None
    import torch
    from transformers import AutoModelForCausalLM

    configuration = deepcopy(configuration)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(configuration, attn_implementation="eager").eval()
    except ValueError as error:
        raise MethodError(f"{name} decodes language models, and {configuration.model_type} is none.") from error


def _unknown(kind: str) -> MethodError:
    return MethodError(
        f"'{kind}' is an architecture whose parts and costs are not known; known are {', '.join(sorted(DECODERS))}, "
        "and models that hold one of these."
    )


def _decoder(model: Any) -> Any:
    """The one text decoder in a model."""
    classes = set(DECODERS.values())
    found = [part for part in model.modules() if any(kind.__name__ in classes for kind in type(part).__mro__)]
    if not found:
        configuration = getattr(model, "config", None)
        raise _unknown(getattr(configuration, "model_type", None) or type(model).__name__)
    if len(found) > 1:
        names = ", ".join(type(part).__name__ for part in found)
        raise MethodError(f"{type(model).__name__} holds {len(found)} text decoders ({names}), and one is expected.")
    return found[0]


def _head(model: Any, decoder: torch.nn.Module) -> Any:
    """The head of the innermost model that holds the decoder."""
    import torch

    heads = [
        part.lm_head
        for part in model.modules()
        if isinstance(getattr(part, "lm_head", None), torch.nn.Module) and any(it is decoder for it in part.modules())
    ]
    return heads[-1] if heads else None


def _layer(module: Any) -> Layer:
    attention, mlp = module.self_attn, module.mlp
    norms = tuple(part for part in module.children() if part is not attention and part is not mlp)
    experts = getattr(mlp, "experts", None)
    if experts is None:
        return Layer(module, attention, norms, mlp)
    router = mlp.gate if hasattr(mlp, "gate") else mlp.router
    shared = tuple(part for part in mlp.children() if part is not router and part is not experts)
    return Layer(module, attention, norms, mlp, router, experts, shared)


def _shapes(decoder: Any, layers: tuple[Layer, ...], head: Any) -> Shapes:
    import torch

    configuration = decoder.config
    vocabulary, hidden = decoder.embed_tokens.weight.shape
    return Shapes(
        architecture=configuration.model_type,
        hidden=hidden,
        vocabulary=vocabulary,
        norm=_count(decoder.norm),
        head=vocabulary * hidden if head is None else _count(head),
        layers=tuple(
            _layer_shapes(layer, configuration, window)
            for layer, window in zip(layers, _windows(configuration, len(layers)), strict=True)
        ),
        linears={
            name: part.weight.numel()
            for name, part in decoder.named_modules()
            if isinstance(part, torch.nn.Linear) and name.startswith("layers.")
        },
    )


def _layer_shapes(layer: Layer, configuration: Any, window: int | None) -> LayerShapes:
    experts: Any = layer.experts
    router: Any = layer.router
    count = experts.num_experts if experts is not None else 0
    # All experts of a layer share their parameters: matrices have three dimensions, biases two.
    each = [part.numel() // count for part in experts.parameters() if part.dim() == 3] if count else []
    biases = [part.numel() // count for part in experts.parameters() if part.dim() == 2] if count else []
    in_experts = set(map(id, experts.parameters())) if count else set()
    width, heads = layer.attention.head_dim, configuration.num_key_value_heads
    return LayerShapes(
        attention=_matrices(layer.attention),
        mlp=0 if count else _matrices(layer.mlp),
        router=_matrices(router) if count else 0,
        shared=sum(map(_matrices, layer.shared)),
        expert=sum(each),
        expert_vectors=sum(biases),
        experts=count,
        active=router.top_k if count else 0,
        vectors=sum(
            part.numel() for part in layer.module.parameters() if part.dim() < 2 and id(part) not in in_experts
        ),
        key_values=2 * heads * width,
        query=configuration.num_attention_heads * width,
        heads=configuration.num_attention_heads,
        key_value_heads=heads,
        window=window,
        adjusted=_adjusted(layer.attention, configuration),
    )


def _adjusted(attention: torch.nn.Module, configuration: Any) -> str | None:
    if getattr(configuration, "attn_logit_softcapping", None):
        return "attn_logit_softcapping"
    return "sinks" if hasattr(attention, "sinks") else None


def _windows(configuration: Any, layers: int) -> Iterator[int | None]:
    """The positions that each layer looks at, where they are bounded."""
    window = getattr(configuration, "sliding_window", None)
    kinds = getattr(configuration, "layer_types", None)
    for number in range(layers):
        yield window if kinds is None or kinds[number] == "sliding_attention" else None


def _matrices(module: torch.nn.Module) -> int:
    return sum(part.numel() for part in module.parameters() if part.dim() >= 2)


def _count(module: torch.nn.Module) -> int:
    return sum(part.numel() for part in module.parameters())
