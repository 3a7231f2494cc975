"""GemFilter: the first layers find the tokens that matter, and the whole model starts again with these alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class GemFilter(PrunedPrefill):
    """A first pass ends in one layer, whose last token chooses; the second reads the chosen tokens from the start.

    Source: Shi et al., arXiv 2409.17422. Scores are raw products of the last query with all keys, summed over heads;
    in the second pass the kept tokens move together, to the places 0, 1, 2 and so on. The last token always goes on.

    Attributes:
        layer: that chooses, from 0, of which only queries and keys are needed; None for 13 of 32, rounded down, as
            the paper has it for Llama 3.1 8B.
        kernel: neighbours over which scores are averaged, an odd number.
    """

    name: ClassVar[str] = "gemfilter"
    paper: ClassVar[str] = (
        "Discovering the Gems in Early Layers: Accelerating Long-Context LLMs with 1000x Input Token Reduction, "
        "arXiv 2409.17422"
    )

    layer: int | None = None
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_odd("kernel")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """The last query's products in one layer, the best tokens, before the first layer."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        ranks = ranker("last-query", layer_of(self.layer, layers, self.name, 13 / 32), self.kernel)
        return Pruning(
            ranks, selector("top-tokens", last=1), plan("restarted", self.keep, "compacted"), policy("full")
        )
