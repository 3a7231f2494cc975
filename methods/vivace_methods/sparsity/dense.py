"""Every weight for every token: what every method that skips some of them has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from vivace_methods.cache_needs import CacheKind, CacheNeed, Compile, plain_needs, require_static
from vivace_methods.devices import require_graphs
from vivace_methods.protocol import Attached, Method, Role


@dataclass(frozen=True)
class Dense(Method):
    """Dense greedy decoding. On a processor each matrix goes through the product that is the fastest for its shape.

    Source: `generate(do_sample=False)` of transformers, whose tokens it gives.

    Attributes:
        cache: `dynamic` grows with the answer; `static` lies in memory of a fixed size, which CUDA graphs need.
        compile: `reduce-overhead` compiles the single-token step into CUDA graphs, where Inductor may choose better
            kernels for these products; it needs a GPU and a static cache.
    """

    name: ClassVar[str] = "dense"
    family: ClassVar[str] = "sparsity"
    paper: ClassVar[str] = "None: greedy search as in transformers"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DECODER})
    exact: ClassVar[bool] = True

    cache: CacheKind = "dynamic"
    compile: Compile = "none"

    def __post_init__(self) -> None:
        require_static(self.cache, self.compile)

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """What the kind of cache and the compiled steps ask for."""
        return plain_needs(self.cache, self.compile)

    def check_device(self, device: str) -> None:
        """Refuse to compile steps where there are no CUDA graphs."""
        require_graphs(self.compile, device)

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Decode with all weights."""
        from vivace_methods.decoding.plain_arms import plain_decoding

        return plain_decoding(model, cache=self.cache, compile=self.compile)
