"""H2O: the whole prompt goes through the whole model, and caches keep what all of it attends to, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class H2o(PrunedPrefill):
    """Each key-value head keeps its heavy hitters, which all tokens together attend to most, and the latest tokens.

    Source: Zhang et al., arXiv 2306.14048; half of what stays are the latest tokens. The prompt alone is cut, once;
    what is decoded stays. Summing all attention takes longer than `full`, and nothing is read sooner.

    Attributes:
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    name: ClassVar[str] = "h2o"
    paper: ClassVar[str] = (
        "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, arXiv 2306.14048"
    )

    kv_from: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(0, "kv_from")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """Nothing but a policy for keys and values."""
        from vivace_methods.prefill.parts.pruning import kv_alone
        from vivace_methods.prefill.parts.registry import policy

        return kv_alone(policy("heavy-hitters", self.keep, self.kv_from))
