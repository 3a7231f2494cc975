"""EAGLE-3: a drafter proposes a chain of tokens, and one pass of the model tells how many of them are its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import Attached, Method, MethodError, Need, Role

if TYPE_CHECKING:
    from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter


@dataclass(frozen=True)
class Eagle3(Method):
    """A drafter proposes a chain of tokens that one pass of the model verifies; the tokens stay the model's own.

    Source: Li et al., arXiv 2503.01840; drafted as a chain, verified greedily. The first token that the model would
    not have written ends the chain, and the model's own stands in its place.

    Attributes:
        depth: tokens drafted before each pass of the model, at least 1.
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

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise MethodError(f"The setting depth of {self.name} must be at least 1, not {self.depth}.")

    def read_fitted(self, folder: Path, model: Any) -> Eagle3Drafter:
        """The drafter in a folder, in EAGLE-3's public layout."""
        from vivace_methods.speculation.eagle3_drafter import load_drafter

        return load_drafter(folder, model)

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Speculate while the context lasts."""
        from vivace_methods.speculation.chain import require_rewinding, speculating
        from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter

        require_rewinding(model, self.name)
        if not isinstance(fitted, Eagle3Drafter):
            raise MethodError(f"{self.name} needs a drafter: write {self.name}:FOLDER or {self.name}:zoo:NAME.")
        return speculating(model, fitted, self.depth)
