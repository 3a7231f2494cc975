"""Every weight for every token: what every method that skips some of them has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import Attached, CacheKind, Compile, Method, Role

if TYPE_CHECKING:
    pass


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

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Decode with all weights."""
        from vivace_methods.decoding.plain_arms import plain_decoding

        return plain_decoding(model, cache=self.cache, compile=self.compile)
