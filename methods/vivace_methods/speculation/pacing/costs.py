"""What drafting and verifying take on this machine, measured before the first generation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from vivace_methods.decoding.caches import negotiate
from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.sampling import Greedy
from vivace_methods.models.layer_inputs import layers_of, tapping
from vivace_methods.models.passes import passes_of
from vivace_methods.protocol import CacheNeed, Read, Request
from vivace_methods.speculation.drafters.base import Drafter

CONTEXT = 64
"""Tokens before the passes that are measured."""
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Tokens of the passes that are measured; in between is interpolated."""
TRIES = 3


@dataclass(frozen=True)
class PassCosts:
    """Seconds of passes.

    Attributes:
        sizes: tokens of verifying passes, ascending.
        verifying: of a pass of each size.
        depths: of drafts, ascending.
        drafting: of a draft of each depth.
    """

    sizes: tuple[int, ...]
    verifying: tuple[float, ...]
    depths: tuple[int, ...]
    drafting: tuple[float, ...]

    def of_verifying(self, tokens: int) -> float:
        """Of a pass over so many tokens."""
        return float(np.interp(tokens, self.sizes, self.verifying))

    def of_drafting(self, depth: int) -> float:
        """Of a draft of this depth; 0 of none."""
        return float(np.interp(depth, self.depths, self.drafting)) if depth else 0.0


def measured_costs(model: Any, drafter: Drafter, depth: int, tokens: int) -> PassCosts:
    """Time passes over random tokens, each size a few times in turns; on a mixture of experts these meet more of them
    than the tokens of a draft, which belong together.

    Args:
        model: with everything attached.
        drafter: of its drafts.
        depth: of the deepest draft.
        tokens: of the largest pass.
    """
    sizes = (*(size for size in SIZES if size < tokens), tokens)
    depths = tuple(sorted({1, depth}))
    vocabulary = model.get_input_embeddings().num_embeddings
    held = (
        getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or CONTEXT + tokens + 1
    )
    context = max(1, min(CONTEXT, held - tokens - 1))
    drawn = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocabulary, (1, context), generator=drawn).to(model.device)
    further = torch.randint(vocabulary, (1, tokens), generator=drawn).to(model.device)
    verifying: dict[int, list[float]] = {size: [] for size in sizes}
    drafting: dict[int, list[float]] = {each: [] for each in depths}
    caches = negotiate(model, {"costs": [CacheNeed.CROP]})
    with passes_of(model) as passes, torch.inference_mode(), tapping(layers_of(model, drafter.taps)) as features:
        run = Generation(model, Request(prompt, 1), passes, caches.new(context + tokens), Greedy(), features)
        read = Read(run.forward(prompt, "read")[:, -1], prompt, dict(features))
        for _ in range(TRIES):
            for size in sizes:
                verifying[size].append(_seconds(model, partial(_verify, run, further[:, :size])))
            for each in depths:
                begun = drafter.start(run, read)
                begun.draft(further[:, :1], 1)  # the prompt is taken up before the clock runs
                begun.stands(further[:, :1], {tap: its[:, -1:] for tap, its in read.features.items()})
                drafting[each].append(_seconds(model, partial(begun.draft, further[:, 1:2], each)))
        passes.ledger.clear()
    return PassCosts(
        sizes,
        tuple(median(verifying[size]) for size in sizes),
        depths,
        tuple(median(drafting[each]) for each in depths),
    )


def _verify(run: Generation, tokens: torch.Tensor) -> None:
    run.forward(tokens, "verify", logits=0)
    run.keep(tokens.shape[1], [])


def _seconds(model: Any, do: Callable[[], Any]) -> float:
    _wait(model)
    begin = time.perf_counter()
    do()
    _wait(model)
    return time.perf_counter() - begin


def _wait(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
