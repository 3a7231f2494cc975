"""EAGLE-3: a drafter proposes chains or trees of tokens, and one pass of the model tells which are its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import MethodError, Need
from vivace_methods.speculation.drafted import Drafted

if TYPE_CHECKING:
    from vivace_methods.speculation.drafters.base import Drafter
    from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
    from vivace_methods.speculation.trees.growth import Growth


@dataclass(frozen=True)
class Eagle3(Drafted):
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
    paper: ClassVar[str] = (
        "EAGLE-3: Scaling up Inference Acceleration of LLMs via Training-Time Test, arXiv 2503.01840"
    )
    needs: ClassVar[tuple[Need, ...]] = (Need.DRAFTER,)
    fitted_files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")

    def check_fitted(self, folder: Path, configuration: Any = None) -> None:
        """See that a drafter is there, is EAGLE-3's, and was made for such a model."""
        from vivace_methods.speculation.drafters.eagle3_checkpoint import check_drafter

        check_drafter(folder, configuration)

    def read_fitted(self, folder: Path, model: Any) -> Eagle3Drafter:
        """The drafter in a folder, in one of EAGLE-3's public layouts."""
        from vivace_methods.speculation.drafters.eagle3_checkpoint import load_drafter

        return load_drafter(folder, model)

    def drafter(self, model: Any, fitted: Any, growth: Growth) -> Drafter:
        """The layer that was loaded for the model."""
        from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter
        from vivace_methods.speculation.drafters.eagle3_drafting import Eagle3Drafting

        if not isinstance(fitted, Eagle3Drafter):
            raise MethodError(f"{self.name} needs a drafter: write {self.name}:FOLDER or {self.name}:zoo:NAME.")
        return Eagle3Drafting(fitted, growth, drawn=self.drawn)
