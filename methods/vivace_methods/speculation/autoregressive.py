"""Plain decoding, one token a step: what every speculative method has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vivace_methods.decoding.greedy import CacheKind, Compile, ExpertsImplementation, greedy_decoding
from vivace_methods.models.cost import greedy_memory
from vivace_methods.protocol import Family, Generator, Method


@dataclass(frozen=True)
class Autoregressive(Method):
    """Greedy autoregressive decoding: each token costs one forward pass of the whole model.

    Source: `generate(do_sample=False)` of transformers, whose tokens it gives.

    Attributes:
        cache: `dynamic` grows with the answer; `static` lies in memory of a fixed size, which CUDA graphs need.
        compile: `reduce-overhead` compiles the single-token step into CUDA graphs; it needs a GPU and a static cache.
        experts_implementation: how a mixture of experts is computed; `auto` is what transformers' own `generate`
            takes, models without experts take nothing else.
    """

    name: ClassVar[str] = "autoregressive"
    family: ClassVar[Family] = "speculation"
    paper: ClassVar[str] = "None: greedy search as in transformers"

    cache: CacheKind = "dynamic"
    compile: Compile = "none"
    experts_implementation: ExpertsImplementation = "auto"

    def apply(self, model: Any, fitted: Any = None) -> AbstractContextManager[Generator]:
        """Decode greedily while the context lasts."""
        return greedy_decoding(
            model, cache=self.cache, compile=self.compile, experts_implementation=self.experts_implementation
        )

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """With `batched_mm`, the weights of each prompt token's experts besides."""
        copied = self.experts_implementation == "batched_mm"
        return greedy_memory(configuration, prompt, answer, dtype, copied_experts=copied)
