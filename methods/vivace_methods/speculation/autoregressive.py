"""One token after the other: what every method that guesses ahead has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import Attached, CacheKind, Compile, ExpertsImplementation, Method, Role

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Autoregressive(Method):
    """Greedy autoregressive decoding: each token costs one forward pass of the whole model.

    Source: `generate(do_sample=False)` of transformers, whose tokens it gives.

    Attributes:
        cache: `dynamic` grows with the answer; `static` lies in memory of a fixed size, which CUDA graphs need.
        compile: `reduce-overhead` compiles the single-token step into CUDA graphs; it needs a GPU and a static cache.
        experts_implementation: how a mixture of experts is computed; `auto` is what transformers' own `generate`
            takes, `vivace` decodes with kernels of our own; models without experts take `auto` alone.
    """

    name: ClassVar[str] = "autoregressive"
    family: ClassVar[str] = "speculation"
    paper: ClassVar[str] = "None: greedy search as in transformers"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DECODER})
    exact: ClassVar[bool] = True

    cache: CacheKind = "dynamic"
    compile: Compile = "none"
    experts_implementation: ExpertsImplementation = "auto"

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Decode a token a pass."""
        from vivace_methods.decoding.plain_arms import plain_decoding

        return plain_decoding(
            model, cache=self.cache, compile=self.compile, experts_implementation=self.experts_implementation
        )

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """With `batched_mm`, the weights of each prompt token's experts besides."""
        from vivace_methods.models.cost import greedy_memory

        copied = self.experts_implementation == "batched_mm"
        return greedy_memory(configuration, prompt, answer, dtype, copied_experts=copied)
