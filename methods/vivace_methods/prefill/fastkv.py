"""FastKV: tokens go on that the prompt's last ones attend to in one layer, and each layer keeps its own choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class FastKv(PrunedPrefill):
    """A prompt is pruned once, by what its end attends to in one layer; keys and values are kept apart from that.

    Source: Jo et al., arXiv 2502.01068: token-selective propagation. Scores are summed over a window, over heads, and
    averaged with their neighbours.

    Attributes:
        layer: behind which the prompt is pruned, from 0; None for the one at half depth, rounded down.
        window: last tokens of the prompt whose attention counts; they always go on.
        kernel: neighbours over which scores are averaged, an odd number.
        kv: which keys and values stay of what a layer has read: `own` lets each head choose by its own window, as in
            the paper, `shared` keeps in all layers the tokens that go on, `full` everything.
        kv_keep: how much of the prompt they are, as `keep` has it; None for as much. The paper's third version has
            0.1, beside a `keep` of 0.2.
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    name: ClassVar[str] = "fastkv"
    paper: ClassVar[str] = (
        "FastKV: Decoupling of Context Reduction and KV Cache Compression for Prefill-Decoding Acceleration, "
        "arXiv 2502.01068"
    )

    layer: int | None = None
    window: int = 8
    kernel: int = 7
    kv: Literal["own", "shared", "full"] = "own"
    kv_keep: float | None = None
    kv_from: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "window")
        self.require_least(0, "kv_from")
        self.require_odd("kernel")
        self.require_kv_keep(self.kv, self.kv_keep)

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """A window's attention in one layer, the best tokens, once at that layer."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        once = plan("at-layer", layer_of(self.layer, layers, self.name), self.keep)
        kept = policy(self.kv, self.kv_keep or self.keep, self.kv_from, self.window, 0, self.kernel)
        return Pruning(ranker("window", self.window, 0, self.kernel), selector("top-tokens"), once, kept)
