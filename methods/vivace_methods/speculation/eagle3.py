"""EAGLE-3: a drafter proposes chains or trees of tokens, and one pass of the model tells which are its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.protocol import Attached, Method, MethodError, Need, Role
from vivace_methods.speculation.trees.settings import require_growing

if TYPE_CHECKING:
    from vivace_methods.diagnosis import Diagnosis, Evidence
    from vivace_methods.requests import Request
    from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
    from vivace_methods.speculation.speculating import SpeculativeDecoder


@dataclass(frozen=True)
class Eagle3(Method):
    """A drafter proposes tokens, as a chain or as a tree, that one pass of the model verifies; they stay the model's.

    Source: Li et al., arXiv 2503.01840; trees as in EAGLE-2, arXiv 2406.16858. The first token of a path that the
    model would not have written ends it, and the model's own stands in its place.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of a tree that one pass verifies, its root among them, so drafts and 1; 0 drafts a chain.
        top_k: in a tree, candidates that a token has, and tokens of one depth that are followed.
        growth: of a tree: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: whether chains are drawn from what the drafter thinks, where the request draws; else the likeliest
            tokens are drafted. Either way the model's own distribution is written.
    """

    name: ClassVar[str] = "eagle-3"
    family: ClassVar[str] = "speculation"
    paper: ClassVar[str] = (
        "EAGLE-3: Scaling up Inference Acceleration of LLMs via Training-Time Test, arXiv 2503.01840"
    )
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DECODER})
    exact: ClassVar[bool] = True
    needs: ClassVar[tuple[Need, ...]] = (Need.DRAFTER,)
    fitted_files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")

    depth: int = 5
    tokens: int = 0
    top_k: int = 8
    growth: Literal["dynamic", "static"] = "dynamic"
    drawn: bool = False

    def __post_init__(self) -> None:
        require_growing(self)

    def read_fitted(self, folder: Path, model: Any) -> Eagle3Drafter:
        """The drafter in a folder, in one of EAGLE-3's public layouts."""
        from vivace_methods.speculation.drafters.eagle3 import load_drafter

        return load_drafter(folder, model)

    def diagnose(
        self, model: Any, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterator[Diagnosis]:
        """What verifying passes did in each layer with experts, over the passes."""
        from vivace_methods.speculation.pass_figures import by_layer

        return by_layer(evidence)

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Speculate while the context lasts."""
        from vivace_methods.speculation.speculating import speculating

        return speculating(model, self._decoder(model, fitted))

    def _decoder(self, model: Any, fitted: Any) -> SpeculativeDecoder:
        from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
        from vivace_methods.speculation.drafters.eagle3_drafting import Eagle3 as Drafter
        from vivace_methods.speculation.speculating import SpeculativeDecoder, require_verifying
        from vivace_methods.speculation.trees.growth import growth_of

        require_verifying(model, self.name, trees=self.tokens > 0, taps=[0])
        if not isinstance(fitted, Eagle3Drafter):
            raise MethodError(f"{self.name} needs a drafter: write {self.name}:FOLDER or {self.name}:zoo:NAME.")
        drafter = Drafter(fitted, growth_of(self), drawn=self.drawn)
        return SpeculativeDecoder(drafter, self.depth, trees=self.tokens > 0)
