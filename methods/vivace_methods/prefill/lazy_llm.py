"""LazyLLM: at several layers, tokens go that the prompt's last one does not attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class LazyLlm(PrunedPrefill):
    """At a few layers, evenly spread over the model, tokens below a percentile of the last token's attention go.

    Source: Fu et al., arXiv 2407.14057: the mean attention over heads. It is the prompt's half of the paper's method
    alone: there, states of pruned tokens are set aside, and brought back while decoding where a token needs them;
    here, tokens that have gone do not come back.

    Attributes:
        steps: how many layers prune, all of them at most; behind the last of them `keep` is left, behind each as
            large a part of what there was before it.
    """

    name: ClassVar[str] = "lazy-llm"
    paper: ClassVar[str] = "LazyLLM: Dynamic Token Pruning for Efficient Long Context LLM Inference, arXiv 2407.14057"

    steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_share()
        self.require_least(1, "steps")

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """The last token's attention, a percentile, at several layers."""
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        steps = min(self.steps, layers)
        places = [(step + 1) * layers // (steps + 1) for step in range(steps)]
        stops = {place: self.keep ** ((step + 1) / steps) for step, place in enumerate(places)}
        return Pruning(ranker("last-token"), selector("above-percentile"), plan("scheduled", stops), policy("full"))
