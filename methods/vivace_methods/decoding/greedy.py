"""Greedy decoding, as every method does it where it does nothing special."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import torch

from vivace_methods.models import implementations
from vivace_methods.protocol import Emit, Generator, MethodError, Request, Trace

CacheKind = Literal["dynamic", "static"]
Compile = Literal["none", "reduce-overhead"]
ExpertsImplementation = Literal["auto", "eager", "grouped_mm", "batched_mm"]

PAGE = 256
"""Positions by which a held cache grows, so that prompts of nearly one length share one compiled step."""


class GreedyGenerator(Generator):
    """A whole prefill and then one token a step, each the likeliest one.

    Every token of a prompt is read. `generate` of transformers hides those that it pads with, also where a prompt
    holds one on purpose, unless it is given an attention mask that says otherwise.

    Args:
        model: a causal language model of transformers.
        new_cache: gives an empty cache for so many positions, the prompt's and the answer's.
        step: the forward pass of one token; the model itself, or a compiled form of it.
        decoding: a context that is entered after the first token, for kernels that suit single tokens.
        products: the dense product that single tokens go through, by the shape of the weights, where one was chosen.
    """

    def __init__(
        self,
        model: Any,
        new_cache: Callable[[int], Any],
        step: Any | None = None,
        decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
        products: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._model = model
        self._new_cache = new_cache
        self._step = step or model
        self._decoding = decoding
        self.products = dict(products)

    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt greedily; the figures are `products`, if any were chosen."""
        with torch.inference_mode():
            self._generate(request, emit)
        return Trace({"products": self.products} if self.products else {})

    def logits(self, request: Request, answer: Sequence[int]) -> torch.Tensor:
        """The logits of each token of a given answer: the prompt in one pass, then a token a pass."""
        with torch.inference_mode():
            cache = self._new_cache(request.prompt.shape[1] + len(answer))
            # Copies: what a CUDA graph gives is overwritten by its next step.
            found = [last_logits(self._model, request.prompt, cache).clone()]
            with self._decoding():
                for token in answer[:-1]:
                    one = torch.tensor([[token]], device=request.prompt.device)
                    found.append(last_logits(self._step, one, cache).clone())
        return torch.cat(found)

    def _generate(self, request: Request, emit: Emit) -> None:
        cache = self._new_cache(request.prompt.shape[1] + request.most_tokens)
        token = likeliest(self._model, request.prompt, cache)
        value = int(token)
        emit([value])
        with self._decoding():
            for _ in range(request.most_tokens - 1):
                if value in request.end_tokens:
                    break
                token = likeliest(self._step, token, cache)
                value = int(token)
                emit([value])


def likeliest(forward: Any, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
    """The likeliest token after some more tokens.

    Args:
        forward: a causal language model of transformers, or a compiled form of it.
        tokens: ids that follow those in the cache, shape (1, length).
        cache: what was read before; it takes up these tokens too.

    Returns:
        One id, shape (1, 1).
    """
    return last_logits(forward, tokens, cache).argmax(-1, keepdim=True)


def last_logits(forward: Any, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
    """The logits after some more tokens, shape (1, vocabulary); the arguments are those of `likeliest`."""
    logits: torch.Tensor = forward(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1]


class HeldCache:
    """A static cache that requests use one after the other, emptied in between.

    CUDA graphs are bound to the memory they were recorded on: with a new cache for each request they would be
    recorded again for each. The cache grows where a request is longer than any before, so the longest prompt belongs
    into the warm-up.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._capacity = 0
        self._cache: Any = None

    def __call__(self, positions: int) -> Any:
        """The empty cache, for at least so many positions."""
        if positions > self._capacity:
            from transformers import StaticCache

            self._capacity = -(-positions // PAGE) * PAGE
            self._cache = StaticCache(config=self._config, max_cache_len=self._capacity)
        else:
            self._cache.reset()
        return self._cache


@contextmanager
def greedy_decoding(
    model: Any,
    *,
    cache: CacheKind = "dynamic",
    compile: Compile = "none",
    attention: str | None = None,
    experts_implementation: ExpertsImplementation = "auto",
) -> Iterator[GreedyGenerator]:
    """A model that decodes greedily with the kernels and the cache that are asked for; restored at the end.

    On a processor single tokens go through the fastest dense products, as `implementations.products` says.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        cache: whether keys and values grow with the answer, or lie in memory of a fixed size.
        compile: whether single-token steps are compiled into CUDA graphs.
        attention: an attention implementation of transformers; None leaves the model's own.
        experts_implementation: of transformers; `auto` takes what its own `generate` takes: `grouped_mm`, and for
            single tokens on a GPU `batched_mm`. Models without experts take `auto` alone.

    Raises:
        MethodError: the model or the machine cannot do what is asked.
    """
    require_causal(model)
    if compile != "none" and cache != "static":
        raise MethodError(f"compile={compile} needs memory that stays in its place: use cache=static with it.")
    with ExitStack() as changes:
        if attention is not None:
            changes.enter_context(implementations.attention(model, attention))
        decoding = _experts(model, experts_implementation, changes)
        products = changes.enter_context(implementations.products(model))
        if compile == "none":
            new_cache = partial(_new_static if cache == "static" else _new_dynamic, model.config)
            yield GreedyGenerator(model, new_cache, decoding=decoding, products=products)
        else:
            step = compiled_step(model, compile)
            yield GreedyGenerator(model, HeldCache(model.config), step, decoding)


def compiled_step(model: Any, mode: Compile) -> Any:
    """The forward pass of single tokens, compiled into a CUDA graph; its cache must stay in its place.

    Raises:
        MethodError: the model is not on a CUDA device.
    """
    if model.device.type != "cuda":
        raise MethodError(f"compile={mode} needs a CUDA device, and the model is on {model.device}: use none.")
    return torch.compile(model.forward, mode=mode, dynamic=False)


def _experts(
    model: Any, implementation: ExpertsImplementation, changes: ExitStack
) -> Callable[[], AbstractContextManager[None]]:
    """Choose the experts' kernels of the prefill, and give the context that chooses those of single tokens."""
    if implementation != "auto":
        changes.enter_context(implementations.experts(model, implementation))
        return nullcontext
    if not implementations.has_experts(model):
        return nullcontext
    changes.enter_context(implementations.experts(model, "grouped_mm"))
    if model.device.type == "cpu":
        return nullcontext
    return partial(implementations.experts, model, "batched_mm")


def _new_dynamic(config: Any, positions: int) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=config)


def _new_static(config: Any, positions: int) -> Any:
    from transformers import StaticCache

    return StaticCache(config=config, max_cache_len=positions)


def require_causal(model: Any) -> None:
    """Refuse what cannot decode greedily.

    Raises:
        MethodError: the model cannot generate, or is in training mode.
    """
    if not (hasattr(model, "can_generate") and model.can_generate()):
        raise MethodError(f"{type(model).__name__} is no causal language model: it cannot generate.")
    if model.training:
        raise MethodError("The model is in training mode, where answers are random: call model.eval() first.")
