"""SnapKV: the whole prompt goes through the whole model, and caches keep what its end attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class SnapKv(PrunedPrefill):
    """Each key-value head keeps the positions that a window at the prompt's end attends to; nothing is read sooner.

    Source: Li et al., arXiv 2404.14469. Scores are summed over the window and over the query heads that share keys,
    and averaged with their neighbours. Only decoding moves less: the time to the first token is that of `full`.

    Attributes:
        window: last tokens of the prompt whose attention counts, and which always stay.
        kernel: neighbours over which scores are averaged, an odd number.
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    name: ClassVar[str] = "snapkv"
    paper: ClassVar[str] = "SnapKV: LLM Knows What You are Looking for Before Generation, arXiv 2404.14469"

    window: int = 32
    kernel: int = 5
    kv_from: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "window")
        self.require_least(0, "kv_from")
        self.require_odd("kernel")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """Nothing but a policy for keys and values."""
        from vivace_methods.prefill.parts.pruning import kv_alone
        from vivace_methods.prefill.parts.registry import policy

        return kv_alone(policy("own", self.keep, self.kv_from, self.window, 0, self.kernel), self.window)
