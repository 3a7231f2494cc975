"""Controls that prune a prompt as the others do and look at nothing: random, evenly spread, or the latest tokens."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.prefill.pruned import PrunedPrefill

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning
    from vivace_methods.prefill.parts.selectors import Selector
    from vivace_methods.prefill.rankers.base import Ranker


@dataclass(frozen=True)
class _Control(PrunedPrefill):
    """What controls share.

    Attributes:
        layer: behind which the prompt is pruned, from 0; None for the one at half depth, rounded down.
        window: last tokens of the prompt, which always go on.
        kv: which keys and values stay of what a layer has read: `full` everything, `shared` in all layers the tokens
            that go on.
        kv_from: the first layer of which less is kept; those before it keep everything.
    """

    paper: ClassVar[str] = "None: a control"

    layer: int | None = None
    window: int = 8
    kv: Literal["shared", "full"] = "shared"
    kv_from: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(0, "window", "kv_from")

    @abstractmethod
    def chosen_by(self) -> tuple[Ranker, Selector]:
        """How tokens are chosen."""

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """A choice that looks at no token, once at a layer, and one set for all layers."""
        from vivace_methods.prefill.parts.plans import layer_of
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy

        ranks, selects = self.chosen_by()
        once = plan("at-layer", layer_of(self.layer, layers, self.name), self.keep)
        return Pruning(ranks, selects, once, policy(self.kv, self.keep, self.kv_from))


@dataclass(frozen=True)
class RandomTokens(_Control):
    """Tokens go on at random: what a ranking must beat.

    Attributes:
        seed: of the draw.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def chosen_by(self) -> tuple[Ranker, Selector]:
        """A random worth for each."""
        from vivace_methods.prefill.parts.registry import ranker, selector

        return ranker("place", "random", self.window, self.seed), selector("top-tokens")


@dataclass(frozen=True)
class UniformTokens(_Control):
    """Tokens at even distances go on."""

    name: ClassVar[str] = "uniform"

    def chosen_by(self) -> tuple[Ranker, Selector]:
        """Even distances."""
        from vivace_methods.prefill.parts.registry import ranker, selector

        return ranker("place", "recent", self.window), selector("evenly")


@dataclass(frozen=True)
class RecentTokens(_Control):
    """The latest tokens go on.

    Attributes:
        first: so many of the first tokens go on too.
    """

    name: ClassVar[str] = "recency"

    first: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(0, "first")

    def chosen_by(self) -> tuple[Ranker, Selector]:
        """The later, the better."""
        from vivace_methods.prefill.parts.registry import ranker, selector

        return ranker("place", "recent", self.window), selector("top-tokens", first=self.first)
