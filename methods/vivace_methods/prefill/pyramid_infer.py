"""PyramidInfer: fewer tokens from layer to layer, by what the last part of the prompt attends to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.protocol import MethodError

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class PyramidInfer(PrunedPrefill):
    """After every layer a few tokens less go on, down to `keep` before the last; each layer keeps what it has read.

    Source: Yang et al., arXiv 2405.12532: the mean attention over heads of the last part of the prompt, of which
    later tokens count more; the first tokens always go on. The share falls along half a cosine.

    Attributes:
        part: of the tokens, the last of which look and always go on.
        latest: how much the very last token counts, where the first that looks counts 1.
        first: so many of the first tokens always go on.
    """

    name: ClassVar[str] = "pyramid-infer"
    paper: ClassVar[str] = (
        "PyramidInfer: Pyramid KV Cache Compression for High-throughput LLM Inference, arXiv 2405.12532"
    )

    part: float = 0.2
    latest: float = 1.2
    first: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_share()
        self.require_least(0, "first")
        if not 0 < self.part < 1:
            raise MethodError(f"The setting part of {self.name} must be between 0 and 1, and {self.part} is not.")
        if not self.latest > 0:
            raise MethodError(f"The setting latest of {self.name} must be above 0, and {self.latest} is not.")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """The attention of a last part, the best tokens, after every layer."""
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        steps = max(layers - 1, 1)
        fallen = {layer: (1 - math.cos(math.pi * (layer + 1) / steps)) / 2 for layer in range(steps)}
        stops = {layer: 1 - (1 - self.keep) * part for layer, part in fallen.items()}
        ranks = ranker("last-part", self.part, self.latest)
        return Pruning(ranks, selector("top-tokens", first=self.first), plan("scheduled", stops), policy("full"))
