"""Speculation with an ordinary small model as the drafter, for models without a drafter of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import MethodError, Need
from vivace_methods.speculation.drafted import Drafted

if TYPE_CHECKING:
    from vivace_methods.speculation.drafters.base import Drafter
    from vivace_methods.speculation.trees.growth import Growth


@dataclass(frozen=True)
class DraftModel(Drafted):
    """A small model of the same vocabulary drafts, and one pass of the model verifies; the tokens stay the model's.

    Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192.

    Attributes:
        depth: tokens of the longest path that is drafted before each pass of the model, at least 1.
        tokens: of a tree that one pass verifies, its root among them, so drafts and 1; 0 drafts a chain.
        top_k: in a tree, candidates that a token has, and tokens of one depth that are followed.
        growth: of a tree: `dynamic` takes the likeliest paths, `static` has the same form each time.
        drawn: whether chains are drawn from what the small model thinks, where the request draws; else the likeliest
            tokens are drafted. Either way the model's own distribution is written.
    """

    name: ClassVar[str] = "draft-model"
    paper: ClassVar[str] = "Fast Inference from Transformers via Speculative Decoding, arXiv 2211.17192"
    needs: ClassVar[tuple[Need, ...]] = (Need.DRAFTER,)
    fitted_files: ClassVar[tuple[str, ...]] = ("config.json", "*.safetensors", "tokenizer.json")

    def check_fitted(self, folder: Path, configuration: Any = None) -> None:
        """See that an ordinary model is there, with the model's vocabulary."""
        from vivace_methods.speculation.drafters.small_model import check_small_model

        check_small_model(folder, configuration)

    def positions(self, folder: Path) -> int | None:
        """Those of the small model."""
        from vivace_methods.models.loading import load_configuration

        return getattr(load_configuration(folder).get_text_config(), "max_position_embeddings", None)

    def read_fitted(self, folder: Path, model: Any) -> Any:
        """The small model in a folder."""
        from vivace_methods.speculation.drafters.small_model import load_small_model

        return load_small_model(folder, model)

    def drafter(self, model: Any, fitted: Any, growth: Growth) -> Drafter:
        """The small model that was loaded."""
        from vivace_methods.speculation.drafters.small_model import SmallModel, require_drafting

        if fitted is None:
            raise MethodError(f"{self.name} needs a small model: write {self.name}:FOLDER or {self.name}:zoo:NAME.")
        require_drafting(fitted, model, trees=self.tokens > 0)
        return SmallModel(fitted, model, growth, drawn=self.drawn)
