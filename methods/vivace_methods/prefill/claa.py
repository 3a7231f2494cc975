"""CLAA: tokens go on that any of the latest layers attends to, so that no single layer's lapse loses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class Claa(PrunedPrefill):
    """Cross-layer attention aggregation: a prompt is pruned once, by what its end attends to in several layers.

    Source: McDanel et al., arXiv 2602.16054, whose setting is the default. Where the paper and the authors' public
    research code part, the paper's is the default: no normalisation; `norm=zscore` is the code's.

    Attributes:
        layer: behind which the prompt is pruned, from 0; None for the one at half depth, rounded down.
        layers: the latest so many are joined (the paper's n).
        aggregate: how: the highest score, the mean, or the mean of the tokens' ranks.
        norm: whether each key-value head's scores are measured in their own standard deviations first.
        heads: how key-value heads are joined.
        window: last tokens of the prompt whose attention counts; they always go on.
        offset: tokens of the prompt behind the window, as a chat template's, which always go on too.
        kernel: neighbours over which scores are averaged, an odd number.
        pool: whether each layer's scores are averaged with their neighbours `first`, or what is joined `last`.
        select: where in the layer tokens are left out: `after-block` is the paper's; `before-mlp` and
            `before-attention` give the same for less, for what left-out tokens compute there is thrown away.
        kv: which keys and values stay of what a layer has read: `own` lets each head choose by its own window, as in
            the paper, `shared` keeps in all layers the tokens that go on, `full` everything.
        kv_keep: how much of the prompt they are, as `keep` has it; None for as much.
        kv_from: the first layer of which less is kept (the paper's m); those before it keep everything.
    """

    name: ClassVar[str] = "claa"
    paper: ClassVar[str] = "CLAA: Cross-Layer Attention Aggregation for Accelerating LLM Prefill, arXiv 2602.16054"

    layer: int | None = None
    layers: int = 4
    aggregate: Literal["max", "mean", "ranksum"] = "max"
    norm: Literal["none", "zscore"] = "none"
    heads: Literal["sum", "max"] = "max"
    window: int = 8
    offset: int = 0
    kernel: int = 7
    pool: Literal["first", "last"] = "first"
    select: Literal["after-block", "before-mlp", "before-attention"] = "after-block"
    kv: Literal["own", "shared", "full"] = "own"
    kv_keep: float | None = None
    kv_from: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "layers", "window")
        self.require_least(0, "offset", "kv_from")
        self.require_odd("kernel")
        self.require_kv_keep(self.kv, self.kv_keep)

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """A window's attention over several layers, the best tokens, once at a layer."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        ranks = ranker(
            "window",
            self.window,
            self.offset,
            self.kernel,
            self.pool,
            self.norm,
            self.heads,
            self.layers,
            self.aggregate,
        )
        once = plan("at-layer", layer_of(self.layer, layers, self.name), self.keep, self.select)
        kept = policy(self.kv, self.kv_keep or self.keep, self.kv_from, self.window, self.offset, self.kernel)
        return Pruning(ranks, selector("top-tokens"), once, kept)
