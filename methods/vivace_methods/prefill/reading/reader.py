"""The reader of pruned prompts for our loop, and what is attached to a model for any loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.plain_arms import plain_decoding
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.ledger import Pass
from vivace_methods.prefill.parts.pruning import Pruning
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.prefill.reading.figures import figures_of
from vivace_methods.prefill.reading.hooks import PruningHooks, hooked
from vivace_methods.protocol import Attached, CacheNeed, Read, Reader


class PrunedReader(Reader):
    """Reads a prompt in one pass, which the hooks on the model prune.

    Args:
        hooks: on the model.
        needs: what pruning with them asks of the cache.
    """

    def __init__(self, hooks: PruningHooks, needs: frozenset[CacheNeed]) -> None:
        self._hooks, self.needs = hooks, needs
        self._evidence: tuple[int, ...] = ()

    def figures(self) -> dict[str, Any]:
        """How much of the latest prompt's evidence went into each layer, and through the last; nothing of one
        without.

        `evidence_kept` has the shares by layer, `evidence_share` is the last of them.
        """
        if not self._evidence:
            return {}
        layers, done = self._hooks.layers, self._hooks.latest
        shares = [1.0 if done is None else done.share_of(self._evidence, layer) for layer in range(layers)]
        return {
            "evidence_kept": {str(layer): share for layer, share in enumerate(shares)},
            "evidence_share": shares[-1],
        }

    def read(self, run: Generation) -> Read:
        """Read it; features are given of the tokens that went through every layer."""
        request = run.request
        self._evidence, self._hooks.latest = request.evidence, None
        self._hooks.ends = request.end_tokens or self._hooks.usual_ends
        logits = run.forward(request.prompt, "read", embedded=request.embedded)[:, -1]
        done = self._hooks.latest
        if done is None:
            return Read(logits, request.prompt, run.features)
        run.compacted(int(run.cache.get_seq_length()))
        held = tuple(done.layer_kept)
        if done.kept is None:
            return Read(logits, request.prompt, run.features, held)
        features = {layer: _of_kept(found, done.kept_of(layer), done.kept) for layer, found in run.features.items()}
        return Read(logits, request.prompt[:, done.kept], features, held)


def _of_kept(found: torch.Tensor, entered: torch.Tensor | None, kept: torch.Tensor) -> torch.Tensor:
    """Of what a layer was given, the rows of the tokens that were kept in the end."""
    return found[:, kept if entered is None else torch.searchsorted(entered, kept)]


@contextmanager
def pruned_reading(
    model: Any,
    pruning_of: Callable[[int], Pruning],
    attention: str,
    needs: frozenset[CacheNeed],
    others: Sequence[Any] = (),
) -> Iterator[Attached]:
    """Prompts pruned while the context lasts, and decoding as the baseline has it.

    Args:
        model: a causal language model of transformers, or what wraps one, in evaluation mode.
        pruning_of: says how a model of so many layers is pruned.
        attention: an implementation of transformers.
        needs: what that asks of the cache.
        others: contexts that the ranker needs, entered besides.

    Raises:
        MethodError: an architecture that is not known, or whose layers cannot be pruned; no such layer or attention.
    """
    found = anatomy(model)
    pruning = pruning_of(len(found.layers))
    with ExitStack() as contexts:
        for other in others:
            contexts.enter_context(other)
        plain = contexts.enter_context(plain_decoding(model))
        contexts.enter_context(showing_attention(found.decoder, attention))
        hooks = contexts.enter_context(hooked(found, pruning, plain.passes, attention.startswith("flash")))
        reader, size = PrunedReader(hooks, needs), model.dtype.itemsize

        def figures(passes: Sequence[Pass]) -> dict[str, Any]:
            return {**plain.figures(passes), **figures_of(passes, found.shapes, size), **reader.figures()}

        yield replace(plain, reader=reader, decoder=None, usual_decoder=plain.decoder, figures=figures)
