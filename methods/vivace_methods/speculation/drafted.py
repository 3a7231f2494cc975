"""What methods share that verify drafts: their settings, the decoder, and what they show."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.cache_needs import CHAINS, TREES, CacheNeed
from vivace_methods.protocol import Attached, Method, Role
from vivace_methods.speculation.trees.settings import require_growing

if TYPE_CHECKING:
    from vivace_methods.diagnosis import Diagnosis, Evidence
    from vivace_methods.requests import Request
    from vivace_methods.speculation.drafters.base import Drafter
    from vivace_methods.speculation.pacing.base import Pace
    from vivace_methods.speculation.speculative_decoder import SpeculativeDecoder
    from vivace_methods.speculation.trees.growth import Growth


@dataclass(frozen=True)
class Verified(Method):
    """A method whose guesses a pass of the model verifies."""

    family: ClassVar[str] = "speculation"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DECODER})
    exact: ClassVar[bool] = True

    def knows(self, architecture: str) -> bool:
        """Decoders that keep a key and a value of each position, which can be taken back."""
        from vivace_methods.models.anatomy import DECODERS

        return architecture in DECODERS

    def check_model(self, configuration: Any) -> None:
        """Refuse models that cannot verify drafts, as far as that can be seen without weights."""
        from vivace_methods.models.anatomy import without_weights
        from vivace_methods.speculation.speculative_decoder import require_verifying

        if (model := without_weights(configuration, self.name)) is not None:
            require_verifying(model, self.name, trees=self.trees)

    @property
    def trees(self) -> bool:
        """Whether drafts are trees."""
        return False

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """Drafts that do not stand are taken back."""
        return TREES if self.trees else CHAINS

    def diagnose(
        self, model: Any, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterator[Diagnosis]:
        """What verifying passes did in each layer with experts, over the passes."""
        from vivace_methods.speculation.pass_figures import by_layer

        return by_layer(evidence)


@dataclass(frozen=True)
class Drafted(Verified):
    """A method whose drafts, chains or trees, are verified by one pass of the model.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of a tree that one pass verifies, its root among them, so drafts and 1; 0 drafts a chain.
        top_k: in a tree, candidates that a token has, and tokens of one depth that are followed.
        growth: of a tree: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: whether chains are drawn from what the drafter thinks, where the request draws; else the likeliest
            tokens are drafted. Either way the model's own distribution is written.
    """

    depth: int = 5
    tokens: int = 0
    top_k: int = 8
    growth: Literal["dynamic", "static"] = "dynamic"
    drawn: bool = False

    def __post_init__(self) -> None:
        require_growing(self)

    @property
    def trees(self) -> bool:
        """Whether drafts are trees."""
        return self.tokens > 0

    @abstractmethod
    def drafter(self, model: Any, fitted: Any, growth: Growth) -> Drafter:
        """What drafts for a model.

        Args:
            model: the target.
            fitted: as `read_fitted` gave it.
            growth: of the trees.

        Raises:
            MethodError: there is none, or it does not go with the model.
        """

    def pace(self, model: Any, drafter: Drafter) -> Pace | None:
        """How far to draft; None for as far as the settings allow."""
        return None

    def decoder(self, model: Any, fitted: Any) -> SpeculativeDecoder:
        """The decoder over the drafter.

        Raises:
            MethodError: the model cannot verify drafts, or `drafter` says so.
        """
        from vivace_methods.speculation.speculative_decoder import SpeculativeDecoder, require_verifying
        from vivace_methods.speculation.trees.growth import growth_of

        require_verifying(model, self.name, trees=self.trees)
        drafter = self.drafter(model, fitted, growth_of(self))
        return SpeculativeDecoder(model, drafter, self.depth, trees=self.trees, pace=self.pace(model, drafter))

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Speculate while the context lasts."""
        from vivace_methods.speculation.speculative_decoder import speculating

        return speculating(model, self.decoder(model, fitted))
