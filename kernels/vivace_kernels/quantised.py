"""Weights of a linear layer rounded to eight or four bits, and torch's own products that read them packed.

Rounding is weight-only: inputs stay as they are. The products are those of bfloat16, for in float32 torch's take many
times as long as a dense one; inputs of other types are rounded to it on their way in, and outputs back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

MOST_LEVEL = 127
"""Of eight bits with a sign, symmetric around zero."""
FEW_TOKENS = 16
"""Up to which the packed product of eight bits is the faster one; a prompt goes through weights that are unpacked."""
PACKED_OUTPUTS, PACKED_INPUTS = 16, 32
"""To multiples of which weights are made up with zeros: torch's products refuse others, or read what lies behind
the weights."""


class QuantisedWeights(ABC):
    """The weights of one linear layer, of shape (outputs, inputs), as they are stored.

    Args:
        weight: shape (outputs, inputs), on a processor.
        inputs: to a multiple of which they are made up with zeros.

    Attributes:
        bytes: that are stored, scales and what is made up among them; all of them are read in each pass.
    """

    bytes: int

    def __init__(self, weight: torch.Tensor, inputs: int) -> None:
        self._outputs = weight.shape[0]
        self._missing = -weight.shape[1] % inputs
        more = (0, self._missing, 0, -weight.shape[0] % PACKED_OUTPUTS)
        self._round(torch.nn.functional.pad(weight.detach().float(), more))

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output without its bias.

        Args:
            x: shape (tokens, inputs), of any type of floating-point numbers, on a processor.

        Returns:
            Shape (tokens, outputs), of the type of x.
        """
        given = torch.nn.functional.pad(x, (0, self._missing)) if self._missing else x
        return self._product(given)[:, : self._outputs].to(x.dtype)

    @abstractmethod
    def _round(self, weight: torch.Tensor) -> None:
        """Store weights that are made up; float32."""

    @abstractmethod
    def _product(self, x: torch.Tensor) -> torch.Tensor:
        """What inputs that are made up give, of any type."""


class Int8Weights(QuantisedWeights):
    """Eight bits a weight and one scale for each output: level · scale.

    Args:
        weight: shape (outputs, inputs), on a processor.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight, PACKED_INPUTS)

    def _round(self, weight: torch.Tensor) -> None:
        self._scales = output_scales(weight)
        self._levels = levels_of(weight, self._scales.unsqueeze(1))
        self.bytes = self._levels.nbytes + self._scales.nbytes

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > FEW_TOKENS:
            return torch.nn.functional.linear(x, self._levels.to(x.dtype) * self._scales.to(x.dtype).unsqueeze(1))
        return torch._weight_int8pack_mm(x.to(torch.bfloat16), self._levels, self._scales)


class Int4Weights(QuantisedWeights):
    """Four bits a weight, and a scale and a middle for each group of inputs of each output: level · scale + middle.

    Args:
        weight: shape (outputs, inputs), on a processor.
        group: neighbouring inputs that share a scale: 32, 64, 128 or 256.
    """

    def __init__(self, weight: torch.Tensor, group: int) -> None:
        self._group = group
        super().__init__(weight, group)

    def _round(self, weight: torch.Tensor) -> None:
        grouped = weight.view(weight.shape[0], -1, self._group)
        lowest, highest = grouped.amin(2), grouped.amax(2)
        # Levels are counted with scales and middles as they are stored, so that their rounding is no second error.
        scales = ((highest - lowest) / 15).clamp_min(torch.finfo(torch.float32).tiny).to(torch.bfloat16)
        middles = (lowest + 8 * scales.float()).to(torch.bfloat16)
        levels = (grouped - middles.float().unsqueeze(2)) / scales.float().unsqueeze(2)
        counted = levels.round().add(8).clamp(0, 15).to(torch.int32).view(weight.shape)
        self._levels = torch.ops.aten._convert_weight_to_int4pack_for_cpu(counted, 1)
        self._scales_and_middles = torch.stack((scales, middles), 2).transpose(0, 1).contiguous()
        self.bytes = self._levels.nbytes + self._scales_and_middles.nbytes

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.to(torch.bfloat16), self._levels, self._group, self._scales_and_middles
        )


def output_scales(weight: torch.Tensor) -> torch.Tensor:
    """The scale of each output with which its weights take all levels of eight bits.

    Args:
        weight: shape (outputs, inputs).

    Returns:
        bfloat16, shape (outputs,), more than zero.
    """
    most = weight.detach().float().abs().amax(1)
    return (most / MOST_LEVEL).clamp_min(torch.finfo(torch.float32).tiny).to(torch.bfloat16)


def levels_of(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The nearest levels of eight bits.

    Args:
        weight: any shape.
        scales: bfloat16, of a shape that spreads to it.

    Returns:
        int8, of the shape of the weights.
    """
    counted = (weight.detach().float() / scales.float()).round()
    return counted.clamp(-MOST_LEVEL, MOST_LEVEL).to(torch.int8)
