"""What methods share that round weights to fewer bits and leave inputs as they are: the rivals of sparsity."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.protocol import Attached, Method, Role
from vivace_methods.sparsity.only import name_pattern

if TYPE_CHECKING:
    import torch

    from vivace_kernels.quantised import QuantisedWeights


@dataclass(frozen=True)
class WeightOnly(Method):
    """A method that reads linear layers from weights of fewer bits, for prompts and answers alike.

    Attributes:
        only: a regular expression: layers in whose names it is not found keep their weights. Empty takes all seven.
    """

    family: ClassVar[str] = "sparsity"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.LAYERS})
    bits: ClassVar[float]
    """Of a weight, as it is stored, with its share of the scales; about."""

    only: str = ""

    def __post_init__(self) -> None:
        name_pattern(self.only)

    def knows(self, architecture: str) -> bool:
        """Dense decoders whose layers need no further look, where all of them are chosen."""
        from vivace_methods.models.anatomy import DENSE

        return not self.only and architecture in DENSE

    def check_model(self, configuration: Any) -> None:
        """Refuse models without such layers, as far as they can be seen without weights."""
        from vivace_methods.models.anatomy import without_weights
        from vivace_methods.sparsity.applying.linears import find_groups

        if (model := without_weights(configuration, self.name)) is not None:
            find_groups(model, self.only)

    @abstractmethod
    def quantised(self, weight: torch.Tensor) -> QuantisedWeights:
        """The weights of one layer, rounded.

        Args:
            weight: shape (outputs, inputs), on a processor.
        """

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Round weights while the context lasts; only what layers do is replaced, and nothing that they hold."""
        from vivace_methods.sparsity.applying.rounded import rounded_linears

        return rounded_linears(model, self.name, self.only, self.quantised)

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """That of dense decoding, and the rounded weights: those they came from stay, for what they replace."""
        from vivace_methods.models.anatomy import shapes
        from vivace_methods.models.cost import greedy_memory

        weights = sum(shapes(configuration).linears.values())
        return greedy_memory(configuration, prompt, answer, dtype) + int(weights * self.bits / 8)
