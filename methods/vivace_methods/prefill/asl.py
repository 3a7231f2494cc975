"""ASL: a prompt is pruned at the layer where the ranking has stopped changing, found while it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class Asl(PrunedPrefill):
    """Adaptive layer selection: pruned once, by a window's attention, at the first layer whose ranking has settled.

    Source: arXiv 2601.07667. Settled means: over the latest layers, the ranks of those tokens that any of them would
    keep vary by less than a part of what they varied by at first. Where they never do, the last layer but one is
    taken.

    Attributes:
        threshold: that part.
        layers: over which ranks are watched; None for a quarter of the model's, the paper's 8 of 32.
        earliest: layer that may be taken, from 0; None for 10 of 32, as in the paper, rounded down.
        window: last tokens of the prompt whose attention counts; they always go on.
        kernel: neighbours over which scores are averaged, an odd number.
        kv: which keys and values stay of what a layer has read: `own` lets each head choose by its own window,
            `shared` keeps in all layers the tokens that go on, `full` everything.
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    name: ClassVar[str] = "asl"
    paper: ClassVar[str] = "Adaptive Layer Selection for Layer-Wise Token Pruning in LLM Inference, arXiv 2601.07667"

    threshold: float = 0.3
    layers: int | None = None
    earliest: int | None = None
    window: int = 32
    kernel: int = 7
    kv: Literal["own", "shared", "full"] = "own"
    kv_from: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(0, "threshold", "kv_from")
        self.require_least(2, "layers")
        self.require_least(1, "window")
        self.require_odd("kernel")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """A window's attention, the best tokens, once, at a layer that is found on the way."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        watched = self.layers or max(2, layers // 4)
        ranks = ranker("settling-window", self.window, self.kernel, self.keep, watched, self.threshold)
        latest = max(layers - 2, 0)
        earliest = min(layer_of(self.earliest, layers, self.name, 10 / 32), latest)
        kept = policy(self.kv, self.keep, self.kv_from, self.window, 0, self.kernel)
        return Pruning(ranks, selector("top-tokens"), plan("where-settled", earliest, latest, self.keep), kept)
