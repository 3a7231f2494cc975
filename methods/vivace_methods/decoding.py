"""Greedy decoding, as every method does it where it does nothing special."""

from __future__ import annotations

from typing import Any

import torch

from vivace_methods.base import Emit, Generator, Request, Trace


class GreedyGenerator(Generator):
    """A whole prefill and then one token a step, each the likeliest one.

    Args:
        model: a causal language model of transformers.
        new_cache: makes an empty cache for a prompt and an answer of these lengths.
        step: the forward pass of one token; the model itself, or a compiled form of it.
    """

    def __init__(self, model: Any, new_cache: Any, step: Any | None = None) -> None:
        self._model = model
        self._new_cache = new_cache
        self._step = step or model

    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt greedily."""
        with torch.inference_mode():
            self._generate(request, emit)
        return Trace({})

    def _generate(self, request: Request, emit: Emit) -> None:
        length = request.prompt.shape[1]
        cache = self._new_cache(length + request.most_tokens)
        position = torch.arange(length, device=request.prompt.device)
        logits = self._model(
            request.prompt, past_key_values=cache, cache_position=position, use_cache=True, logits_to_keep=1
        ).logits
        token = logits[:, -1:].argmax(-1)
        position = position[-1:] + 1
        for count in range(1, request.most_tokens + 1):
            value = int(token)
            emit([value])
            if value in request.end_tokens or count == request.most_tokens:
                break
            logits = self._step(
                token, past_key_values=cache, cache_position=position, use_cache=True, logits_to_keep=1
            ).logits
            token = logits[:, -1:].argmax(-1)
            position = position + 1
