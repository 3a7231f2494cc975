"""How a linear layer's budget of weights is shared between exact channels and a low-rank part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightBudget:
    """What one decoded token reads of a linear layer (R-Sparse, arXiv 2504.19449, section 3.4).

    Attributes:
        inputs: features that the layer reads.
        outputs: features that it gives.
        channels: of the inputs whose weights are read exactly.
        rank: of the low-rank part; 0 for none.
    """

    inputs: int
    outputs: int
    channels: int
    rank: int

    @property
    def kept(self) -> float:
        """The share of the inputs whose weights are read exactly."""
        return self.channels / self.inputs

    @property
    def weights(self) -> int:
        """Weights that are read: exact columns, and both low-rank factors whole."""
        return self.channels * self.outputs + self.rank * (self.inputs + self.outputs)

    @property
    def density(self) -> float:
        """The same as a share of all weights."""
        return self.weights / (self.inputs * self.outputs)


def budget(inputs: int, outputs: int, sparsity: float, ratio: float) -> WeightBudget:
    """The budget of one layer: of the (1 - sparsity) that may be read, a share `ratio` goes to exact channels.

    Each layer's own shape counts. The released code takes all four projections of attention for square ones, and
    gives those of keys and values more rank than their budget where they are smaller.

    Args:
        inputs: features that the layer reads.
        outputs: features that it gives.
        sparsity: share of the weights that is not read, in [0, 1).
        ratio: in [0, 1]; at 1 there is no low-rank part, at 0 nothing else but one channel. Without sparsity every
            channel is exact, whatever it is.
    """
    if sparsity == 0:
        return WeightBudget(inputs, outputs, inputs, 0)  # where nothing is spared, nothing needs to be approximated
    channels = max(int(inputs * (1 - sparsity) * ratio), 1)
    if ratio == 1:
        return WeightBudget(inputs, outputs, channels, 0)
    left = inputs * outputs * (1 - sparsity) - channels * outputs
    rank = min(max(int(left / (inputs + outputs)), 1), inputs, outputs)
    return WeightBudget(inputs, outputs, channels, rank)
