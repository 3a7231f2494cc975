"""Linear layers that read one input, packed for sparse products, and the reference of all their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ALIGNED = 16
"""Numbers to a multiple of which a row is padded, so that every row begins at a multiple of 32 bytes."""
MOST_TOKENS = 2
"""That sparse kernels take at once: what several tokens keep is soon nearly everything."""


@dataclass(frozen=True)
class PackedLinear:
    """Where one linear layer lies in a pack.

    Attributes:
        outputs: features that it gives.
        rank: of its low-rank part; 0 where it has none.
        stride: numbers from one row to the next, at least `outputs`; those between are zero.
        first: number of `Packed.rows` at which its rows begin.
        first_output: place of its outputs in the joint output.
        first_rank: place of its low-rank part among the rows of `Packed.down`.
    """

    outputs: int
    rank: int
    stride: int
    first: int
    first_output: int
    first_rank: int


@dataclass(frozen=True, eq=False)
class Packed:
    """Linear layers of one input, each as what it does exactly for large inputs and by low rank for all.

    A layer with weights W and a low-rank part W_r = up · down gives, for an input x of which s(x) keeps the large
    channels, W s(x) + W_r (x - s(x)) = (W - W_r) s(x) + up (down x): the decomposition of R-Sparse (arXiv 2504.19449,
    section 3.4), written so that the low-rank part does not depend on what is kept. The rows of (W - W_r)ᵀ, one for
    each input channel, are followed by those of upᵀ, one for each rank: the product is then one walk over a list of
    rows, in which the last ones, weighted with down x, are always there.

    Attributes:
        inputs: channels of the input.
        linears: the layers, in the order of the joint output.
        rows: of each layer (inputs + rank) rows of `stride` numbers, flat, one layer after the other.
        limits: float32, shape (layers, inputs): a layer leaves channel j to its low-rank part where |x_j| is at most
            limits[layer, j]. A negative limit keeps the channel always. Not-a-number is kept, so that it comes out.
        down: shape (sum of ranks, inputs): the first factors of all layers.
        bias: shape (sum of outputs,), or None.
    """

    inputs: int
    linears: tuple[PackedLinear, ...]
    rows: torch.Tensor
    limits: torch.Tensor
    down: torch.Tensor
    bias: torch.Tensor | None

    @property
    def outputs(self) -> int:
        """Of all layers together."""
        return sum(linear.outputs for linear in self.linears)

    def rows_of(self, linear: PackedLinear) -> torch.Tensor:
        """The rows of one layer, a view of shape (inputs + rank, stride)."""
        count = self.inputs + linear.rank
        return self.rows[linear.first : linear.first + count * linear.stride].view(count, linear.stride)

    def down_of(self, linear: PackedLinear) -> torch.Tensor:
        """The first factor of one layer, a view of shape (rank, inputs)."""
        return self.down[linear.first_rank : linear.first_rank + linear.rank]

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """Which channels each layer computes exactly.

        Args:
            x: shape (tokens, inputs).

        Returns:
            bool, shape (layers, tokens, inputs).
        """
        return ~(x.abs().float().unsqueeze(0) <= self.limits.unsqueeze(1))


@dataclass(frozen=True)
class Factors:
    """A low-rank part of a weight matrix, up · down.

    Attributes:
        up: shape (outputs, rank).
        down: shape (rank, inputs).
    """

    up: torch.Tensor
    down: torch.Tensor


def pack(
    weights: Sequence[torch.Tensor],
    factors: Sequence[Factors | None],
    limits: torch.Tensor,
    biases: Sequence[torch.Tensor | None],
) -> Packed:
    """Pack linear layers that read one input; their weights are copied.

    Args:
        weights: of each layer, shape (outputs, inputs), all of one type and on one device.
        factors: of each layer, or None.
        limits: shape (layers, inputs), as `Packed` has them.
        biases: of each layer, shape (outputs,), or None.

    Returns:
        The pack, in the type and on the device of the weights. W - W_r is computed in float32 and rounded once.
    """
    inputs, dtype, device = weights[0].shape[1], weights[0].dtype, weights[0].device
    linears: list[PackedLinear] = []
    first = first_output = first_rank = 0
    for weight, part in zip(weights, factors, strict=True):
        outputs, rank = weight.shape[0], 0 if part is None else part.down.shape[0]
        stride = -(-outputs // ALIGNED) * ALIGNED
        linears.append(PackedLinear(outputs, rank, stride, first, first_output, first_rank))
        first += (inputs + rank) * stride
        first_output += outputs
        first_rank += rank
    rows = torch.zeros(first, dtype=dtype, device=device)
    down = torch.empty(first_rank, inputs, dtype=dtype, device=device)
    bias = None
    if any(each is not None for each in biases):
        bias = torch.zeros(first_output, dtype=dtype, device=device)
    packed = Packed(inputs, tuple(linears), rows, limits.float().to(device).contiguous(), down, bias)
    for linear, weight, part, its_bias in zip(linears, weights, factors, biases, strict=True):
        lying = packed.rows_of(linear)[:, : linear.outputs]
        if part is None:
            lying.copy_(weight.detach().T)
        else:
            up, first_factor = part.up.to(device, dtype), part.down.to(device, dtype)
            # The low-rank part as it will be computed, with its factors rounded: the rest takes up what that loses.
            lying[:inputs].copy_((weight.detach().float() - up.float() @ first_factor.float()).T)
            lying[inputs:].copy_(up.T)
            packed.down_of(linear).copy_(first_factor)
        if bias is not None and its_bias is not None:
            bias[linear.first_output : linear.first_output + linear.outputs] = its_bias.detach()
    return packed


def reference(x: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The joint output in float64, straight from the definition.

    Args:
        x: shape (tokens, inputs).

    Returns:
        float64, shape (tokens, outputs).
    """
    kept, exact = packed.kept(x), x.double()
    parts = []
    for linear, its_kept in zip(packed.linears, kept, strict=True):
        rows = packed.rows_of(linear)[:, : linear.outputs].double()
        large = torch.where(its_kept, exact, 0.0)  # not a product: 0 · infinity would be no number
        low = exact @ packed.down_of(linear).double().T
        parts.append(large @ rows[: packed.inputs] + low @ rows[packed.inputs :])
    joint = torch.cat(parts, dim=1)
    return joint if packed.bias is None else joint + packed.bias.double()


def masked_product(x: torch.Tensor, packed: Packed, *, counts: torch.Tensor | None = None) -> torch.Tensor:
    """The joint output by multiplying everything, with zeros for what is not kept: no less work than dense.

    Args:
        x: shape (tokens, inputs), any number of tokens, of the pack's type and on its device.
        packed: the layers.
        counts: int32, shape (layers,), to which the number of kept channels of all tokens is added; or None.

    Returns:
        Shape (tokens, outputs), of the pack's type.
    """
    kept = packed.kept(x)
    if counts is not None:
        counts += kept.sum((1, 2), dtype=counts.dtype)
    parts = []
    for linear, its_kept in zip(packed.linears, kept, strict=True):
        rows = packed.rows_of(linear)[:, : linear.outputs]
        part = torch.where(its_kept, x, 0) @ rows[: packed.inputs]
        if linear.rank:
            part += (x @ packed.down_of(linear).T) @ rows[packed.inputs :]
        parts.append(part)
    joint = torch.cat(parts, dim=1)
    return joint if packed.bias is None else joint + packed.bias
