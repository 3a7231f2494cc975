"""int4: every weight of the linear layers in four bits, with a scale for each group of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vivace_methods.sparsity.weight_only import WeightOnly

if TYPE_CHECKING:
    import torch

    from vivace_kernels.quantised import QuantisedWeights


@dataclass(frozen=True)
class Int4(WeightOnly):
    """Weights rounded to the nearest of 16 levels between the least and the most of their group; no fit.

    Multiplied by torch's own packed product for bfloat16, on a processor; a float32 model's inputs are rounded to it.

    Source: round-to-nearest by groups, the baseline of GPTQ, arXiv 2210.17323, section 4.

    Attributes:
        group: neighbouring inputs of an output that share a scale: more of them are fewer bytes, and coarser.
    """

    name: ClassVar[str] = "int4"
    paper: ClassVar[str] = "None: weights rounded to the nearest of 16 levels, by torch's _weight_int4pack_mm_for_cpu"
    bits: ClassVar[float] = 5

    group: Literal[32, 64, 128, 256] = 32

    def quantised(self, weight: torch.Tensor) -> QuantisedWeights:
        """Four bits a weight."""
        from vivace_kernels.quantised import Int4Weights

        return Int4Weights(weight, self.group)
