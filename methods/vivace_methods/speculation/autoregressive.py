"""One token after the other: what every method that guesses ahead has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.cache_needs import CacheKind, CacheNeed, Compile, plain_needs, require_static
from vivace_methods.devices import require_graphs
from vivace_methods.protocol import Attached, ExpertsImplementation, Method, Role

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

    def __post_init__(self) -> None:
        require_static(self.cache, self.compile)

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """What the kind of cache and the compiled steps ask for."""
        return plain_needs(self.cache, self.compile)

    def check_device(self, device: str) -> None:
        """Refuse to compile steps where there are no CUDA graphs."""
        require_graphs(self.compile, device)

    def knows(self, architecture: str) -> bool:
        """All, unless kernels for experts are asked for."""
        return self.experts_implementation == "auto"

    def check_model(self, configuration: Any) -> None:
        """Refuse a model without experts where kernels for them are asked for."""
        from vivace_methods.models.anatomy import without_weights
        from vivace_methods.models.implementations import require_experts

        if self.experts_implementation != "auto" and (model := without_weights(configuration, self.name)) is not None:
            require_experts(model)

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
