"""The one loop that generates: a reader reads the prompt, and a decoder goes on; methods bring either."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from vivace_methods.decoding.caches import Caches
from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.sampling import Chooser, Forced, chooser_of
from vivace_methods.models.layer_inputs import layers_of, tapping
from vivace_methods.models.ledger import Pass
from vivace_methods.protocol import Attached, Decoder, Emit, Generator, Reader, Trace
from vivace_methods.requests import Request


class Loop(Generator):
    """A reader and a decoder joined: read, emit the first token, step until the end.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        attached: what methods have put on it.
        reader: of prompts.
        decoder: of what follows.
        caches: agreed on between the two.
    """

    def __init__(self, model: Any, attached: Attached, reader: Reader, decoder: Decoder, caches: Caches) -> None:
        self._model, self._attached = model, attached
        self._reader, self._decoder, self._caches = reader, decoder, caches
        self._tapped = layers_of(model, decoder.features)

    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt; the figures are the decoder's and those of what was attached."""
        given = self._go(request, emit, chooser_of(request.sampling, self._model.device))
        decoder = self._decoder.figures(given)

        def figures(passes: Sequence[Pass]) -> dict[str, Any]:
            return {**decoder, **self._attached.figures(passes)}

        return Trace(figures, self._attached.ledger.take())

    def logits(self, request: Request, answer: Sequence[int]) -> torch.Tensor:
        """The logits of each token of a given answer: the same loop, with the tokens forced."""
        forced = Forced(answer, self._model.device)
        asked = replace(request, most_tokens=len(answer), end_tokens=frozenset())
        self._go(asked, lambda tokens: None, forced)
        self._attached.ledger.clear()
        return torch.cat(forced.logits)

    def _go(self, request: Request, emit: Emit, chooser: Chooser) -> list[int]:
        """Generate; tokens of each step after the first token."""
        given: list[int] = []
        passes = self._attached.passes
        passes.ledger.clear()
        with torch.inference_mode(), tapping(self._tapped) as features:
            cache = self._caches.new(request.prompt.shape[1] + request.most_tokens)
            run = Generation(self._model, request, passes, cache, chooser, features)
            read = self._reader.read(run)
            first = chooser.next(read.logits)
            tokens = [int(first)]
            emit(tokens)
            run.left -= 1
            with closing(self._decoder.steps(run, read, first)) as steps:  # type: ignore[type-var]
                while run.left and tokens[-1] not in request.end_tokens:
                    tokens = _up_to_end(next(steps)[: run.left], request.end_tokens)
                    emit(tokens)
                    given.append(len(tokens))
                    run.left -= len(tokens)
        return given


def _up_to_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """The tokens up to and with the first that ends the answer."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: end + 1]
