"""int8: every weight of the linear layers in eight bits, which is what most people do who want fewer bytes read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vivace_methods.sparsity.weight_only import WeightOnly

if TYPE_CHECKING:
    import torch

    from vivace_kernels.quantised import QuantisedWeights


@dataclass(frozen=True)
class Int8(WeightOnly):
    """Weights rounded to the nearest of 255 levels, one scale for each output; half the bytes of 16 bits, and no fit.

    Multiplied by torch's own packed product for bfloat16, on a processor; a float32 model's inputs are rounded to it.

    Source: round-to-nearest per channel, as in LLM.int8(), arXiv 2208.07339, section 2, for weights alone.
    """

    name: ClassVar[str] = "int8"
    paper: ClassVar[str] = "None: weights rounded to the nearest of 255 levels, by torch's _weight_int8pack_mm"
    bits: ClassVar[float] = 8

    def quantised(self, weight: torch.Tensor) -> QuantisedWeights:
        """Eight bits a weight."""
        from vivace_kernels.quantised import Int8Weights

        return Int8Weights(weight)
