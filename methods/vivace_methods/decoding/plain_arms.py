"""What plain arms attach: the kernels and the cache that their settings name, and nothing that changes a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from vivace_methods.cache_needs import CacheKind, Compile, attention_needs
from vivace_methods.decoding.plain import FullReader, PlainDecoder
from vivace_methods.models import implementations
from vivace_methods.models.ledger import Pass
from vivace_methods.models.passes import passes_of
from vivace_methods.protocol import Attached, ExpertsImplementation


@contextmanager
def plain_decoding(
    model: Any,
    *,
    cache: CacheKind = "dynamic",
    compile: Compile = "none",
    experts_implementation: ExpertsImplementation = "auto",
) -> Iterator[Attached]:
    """Decoding of a token a pass with the kernels and the cache that are asked for; the model is restored at the end.

    On a processor single tokens go through the fastest dense products, as `implementations.products` says.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        cache: whether keys and values grow with the answer, or lie in memory of a fixed size.
        compile: whether single-token steps are compiled into CUDA graphs.
        experts_implementation: of transformers; `auto` takes what its own `generate` takes: `grouped_mm`, and for
            single tokens on a GPU `batched_mm`; `vivace` decodes with kernels of our own. Models without experts take
            `auto` alone.

    Raises:
        MethodError: the model or the machine cannot do what is asked.
    """
    with ExitStack() as changes:
        passes = changes.enter_context(passes_of(model))
        decoding = _experts(model, experts_implementation, changes)
        products = changes.enter_context(implementations.products(model))
        decoder = PlainDecoder(model, cache=cache, compile=compile, decoding=decoding)
        # A compiled step goes through kernels of the compiler's choice.
        yield Attached(passes, decoder=decoder, figures=_shown(products if compile == "none" else {}))


@contextmanager
def full_reading(model: Any, attention: str) -> Iterator[Attached]:
    """Prompts read whole with an attention implementation of transformers, and decoding as `plain_decoding` has it.

    Raises:
        MethodError: the model or this machine cannot run it.
    """
    with implementations.attention(model, attention), plain_decoding(model) as plain:
        yield replace(plain, reader=FullReader(attention_needs(attention)), decoder=None, usual_decoder=plain.decoder)


def _shown(products: Mapping[str, str]) -> Callable[[Sequence[Pass]], dict[str, Any]]:
    figures = {"products": dict(products)} if products else {}
    return lambda passes: figures


def _experts(
    model: Any, implementation: ExpertsImplementation, changes: ExitStack
) -> Callable[[], AbstractContextManager[None]]:
    """Choose the experts' kernels of the prefill, and give the context that chooses those of single tokens."""
    if implementation == implementations.OWN_EXPERTS:  # which is for few tokens
        changes.enter_context(implementations.experts(model, "grouped_mm"))
        return partial(implementations.experts, model, implementation)
    if implementation != "auto":
        changes.enter_context(implementations.experts(model, implementation))
        return nullcontext
    if not implementations.has_experts(model):
        return nullcontext
    changes.enter_context(implementations.experts(model, "grouped_mm"))
    if model.device.type == "cpu":
        return nullcontext
    return partial(implementations.experts, model, "batched_mm")
