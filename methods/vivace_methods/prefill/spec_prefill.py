"""SpecPrefill: a smaller model reads the prompt first, and the model reads what that one looks at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.protocol import Need

if TYPE_CHECKING:
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class SpecPrefill(PrunedPrefill):
    """A draft model reads the whole prompt and writes a few tokens; the model reads what these attend to.

    Source: Liu et al., arXiv 2502.02789. A token's worth is the mean over the draft's tokens of its highest attention
    in any layer and head; whole stretches are kept, at their own places. The draft is a causal language model with
    the same tokenizer: `spec-prefill:FOLDER`.

    Attributes:
        ahead: tokens that the draft writes.
        kernel: neighbours over which attention is averaged, an odd number.
        chunk: tokens of a stretch that is kept or left out as a whole; 1 for single tokens.
    """

    name: ClassVar[str] = "spec-prefill"
    paper: ClassVar[str] = (
        "Speculative Prefill: Turbocharging TTFT with Lightweight and Training-Free Token Importance Estimation, "
        "arXiv 2502.02789"
    )
    needs: ClassVar[tuple[Need, ...]] = (Need.DRAFTER,)
    fitted_files: ClassVar[tuple[str, ...]] = ("config.json", "*.safetensors")

    ahead: int = 8
    kernel: int = 13
    chunk: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_least(1, "ahead", "chunk")
        self.require_odd("kernel")

    def check_fitted(self, folder: Path, configuration: Any = None) -> None:
        """See that a model is there, which reads the same tokens."""
        from vivace_methods.models.loading import load_configuration

        draft = load_configuration(folder)
        if configuration is not None:
            from vivace_methods.prefill.rankers.drafts import require_draft_configuration

            require_draft_configuration(self.name, configuration, draft)

    def read_fitted(self, folder: Path, model: Any) -> Any:
        """The draft model in a folder."""
        from vivace_methods.models.loading import load_model

        return load_model(folder, dtype=model.dtype, device=str(model.device))

    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """What a draft's first tokens attend to, the best stretches, before the first layer."""
        from vivace_methods.prefill.parts.pruning import Pruning
        from vivace_methods.prefill.parts.registry import plan, policy, ranker, selector

        ranks = ranker("draft", fitted, self.ahead, self.kernel)
        stretches = selector("top-chunks", last=1, size=self.chunk)
        return Pruning(ranks, stretches, plan("restarted", self.keep, "kept"), policy("full"))

    def ready(self, model: Any, fitted: Any) -> Any:
        """The draft, as one that can be asked."""
        from vivace_methods.prefill.rankers.drafts import AskedDraft, require_draft

        require_draft(self.name, model, fitted)
        return AskedDraft(fitted)

    def contexts(self, model: Any, fitted: Any) -> Sequence[AbstractContextManager[Any]]:
        """The draft, whose attention is looked at."""
        return [fitted.shown()]
