"""Methods on a model joined into one that generates: a reader and a decoder at most, and what else is attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from vivace_methods.cache_needs import CacheNeed, excluding
from vivace_methods.decoding.caches import negotiate
from vivace_methods.decoding.loop import Loop
from vivace_methods.decoding.plain import FullReader, PlainDecoder
from vivace_methods.errors import MethodError
from vivace_methods.models.loading import require_causal
from vivace_methods.protocol import Attached, Decoder, Generator, Method, Reader


def applied(method: Method, model: Any, fitted: Any = None) -> AbstractContextManager[Generator]:
    """One method attached to a model while the context lasts, and the loop that generates with it.

    Args:
        method: with its settings.
        model: a causal language model of transformers, in evaluation mode.
        fitted: as the method's `attach` takes it.

    Raises:
        MethodError: as `attach` says; or what is attached asks for a cache that there is none of.
    """
    return _joined(model, method.name, method.attach(model, fitted))


@contextmanager
def _joined(model: Any, name: str, attaching: AbstractContextManager[Attached]) -> Iterator[Generator]:
    with attaching as attached:
        yield generator_of(model, {name: attached})


def generator_of(model: Any, attached: Mapping[str, Attached]) -> Generator:
    """The loop over what methods have attached to a model.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        attached: name of each method → what it has attached.

    Raises:
        MethodError: two of them give the same part, or ask for different caches; or the model cannot decode.
    """
    require_causal(model)
    whole = together(attached)
    if whole.generator is not None:
        return whole.generator
    reader = whole.reader or FullReader()
    decoder = whole.decoder or usual_decoder(attached.values(), reader) or PlainDecoder(model)
    needs: dict[str, frozenset[CacheNeed]] = {}
    for name, its in attached.items():
        parts = [part for part in (its.reader, its.decoder, its.usual_decoder) if part in (reader, decoder)]
        needs[name] = frozenset(need for part in parts if part is not None for need in part.needs)
    caches = negotiate(model, needs)
    for its in attached.values():
        its.prepare(model)
    return Loop(model, whole, reader, decoder, caches)


def usual_decoder(attached: Iterable[Attached], reader: Reader) -> Decoder | None:
    """The decoding that a method brings along; with CUDA graphs before without, where the reader's cache lets it.

    Args:
        attached: by each method of an arm, of which none has a decoder of its own.
        reader: of prompts.
    """
    brought = [its.usual_decoder for its in attached if its.usual_decoder is not None]
    with_graphs_first = sorted(brought, key=lambda each: not each.needs)
    return next((each for each in with_graphs_first if excluding(each.needs | reader.needs) is None), None)


def together(attached: Mapping[str, Attached]) -> Attached:
    """What several methods have attached to one model, as one.

    Args:
        attached: name of each method → what it has attached.

    Raises:
        MethodError: two of them give the same part.
    """
    first, *others = attached.values()
    whole = replace(first)
    for its in others:
        for part in ("reader", "decoder", "generator"):
            if getattr(its, part) is not None:
                if getattr(whole, part) is not None:
                    raise MethodError(f"{' and '.join(attached)} each bring a {part}, and an arm has one.")
                setattr(whole, part, getattr(its, part))
    parts = [its.figures for its in attached.values()]
    whole.figures = lambda passes: {name: value for figures in parts for name, value in figures(passes).items()}
    if whole.generator is not None and (whole.reader or whole.decoder):
        raise MethodError(f"Of {' and '.join(attached)} one generates by itself, and takes no part of another.")
    return whole
