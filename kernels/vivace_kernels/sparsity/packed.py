"""Linear layers that read one input, packed for sparse products, and the reference of all their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vivace_kernels.quantised import MOST_LEVEL, levels_of, output_scales

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
        rows: of each layer (inputs + rank) rows of `stride` numbers, flat, one layer after the other; or, in int8, of
            levels.
        limits: float32, shape (layers, inputs): a layer leaves channel j to its low-rank part where |x_j| is at most
            limits[layer, j]. A negative limit keeps the channel always. Not-a-number is kept, so that it comes out.
        down: shape (sum of ranks, inputs): the first factors of all layers.
        bias: shape (sum of outputs,), or None.
        scales: float32, shape (sum of outputs,): what the levels of an output are multiplied with; None where rows
            are of the type of the inputs.
    """

    inputs: int
    linears: tuple[PackedLinear, ...]
    rows: torch.Tensor
    limits: torch.Tensor
    down: torch.Tensor
    bias: torch.Tensor | None
    scales: torch.Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs and outputs."""
        return self.down.dtype

    @property
    def outputs(self) -> int:
        """Of all layers together."""
        return sum(linear.outputs for linear in self.linears)

    def rows_of(self, linear: PackedLinear) -> torch.Tensor:
        """The rows of one layer, a view of shape (inputs + rank, stride)."""
        count = self.inputs + linear.rank
        return self.rows[linear.first : linear.first + count * linear.stride].view(count, linear.stride)

    def weights_of(self, linear: PackedLinear, dtype: torch.dtype) -> torch.Tensor:
        """What the rows of one layer stand for, in some type, shape (inputs + rank, outputs)."""
        found = self.rows_of(linear)[:, : linear.outputs].to(dtype)
        if self.scales is None:
            return found
        return found * self.scales[linear.first_output : linear.first_output + linear.outputs].to(dtype)

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
    *,
    levels: bool = False,
) -> Packed:
    """Pack linear layers that read one input; their weights are copied.

    Args:
        weights: of each layer, shape (outputs, inputs), all of one type and on one device.
        factors: of each layer, or None.
        limits: shape (layers, inputs), as `Packed` has them.
        biases: of each layer, shape (outputs,), or None.
        levels: whether rows are rounded to levels of eight bits, with a scale for each output.

    Returns:
        The pack, in the type and on the device of the weights. W - W_r is computed in float32 and rounded once; W_r
        is what the factors give as they are stored, so that W - W_r takes up what their rounding loses.
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
    rows = torch.zeros(first, dtype=torch.int8 if levels else dtype, device=device)
    down = torch.empty(first_rank, inputs, dtype=dtype, device=device)
    scales = torch.ones(first_output, device=device) if levels else None
    bias = None
    if any(each is not None for each in biases):
        bias = torch.zeros(first_output, dtype=dtype, device=device)
    packed = Packed(inputs, tuple(linears), rows, limits.float().to(device).contiguous(), down, bias, scales)
    for linear, weight, part, its_bias in zip(linears, weights, factors, biases, strict=True):
        outputs = slice(linear.first_output, linear.first_output + linear.outputs)
        lying = packed.rows_of(linear)[:, : linear.outputs]
        if scales is not None:
            _lay_levels(packed, linear, weight.detach().float(), part, scales[outputs])
        elif part is None:
            lying.copy_(weight.detach().T)
        else:
            up, first_factor = part.up.to(device, dtype), part.down.to(device, dtype)
            lying[:inputs].copy_((weight.detach().float() - up.float() @ first_factor.float()).T)
            lying[inputs:].copy_(up.T)
            packed.down_of(linear).copy_(first_factor)
        if bias is not None and its_bias is not None:
            bias[outputs] = its_bias.detach()
    return packed


def _lay_levels(
    packed: Packed, linear: PackedLinear, weight: torch.Tensor, part: Factors | None, scales: torch.Tensor
) -> None:
    """Round one layer to levels, and write its rows, its scales and its first factor.

    All rows of an output share its scale. So each rank is made as large as the scales bear, and its row of `down`
    smaller by as much: otherwise its levels would be few.
    """
    lying = packed.rows_of(linear)[:, : linear.outputs]
    rest = weight
    if part is None:
        scales.copy_(output_scales(weight))
    else:
        least = torch.finfo(torch.float32).tiny
        down = part.down.to(weight)
        largest = down.abs().amax(1, keepdim=True).clamp_min(least)
        up, down = part.up.to(weight) * largest.T, down / largest
        scales.copy_(output_scales(up))
        rest = weight - up @ down
        for _ in range(2):  # what rounding W_r moves into W - W_r may ask for larger scales
            scales.copy_(scales.maximum(output_scales(rest)))
            more = (MOST_LEVEL * scales.unsqueeze(1) / up.abs().clamp_min(least)).amin(0)
            lying[packed.inputs :].copy_(levels_of(up * more, scales.unsqueeze(1)).T)
            packed.down_of(linear).copy_(down / more.unsqueeze(1))
            low = packed.weights_of(linear, torch.float32)[packed.inputs :].T @ packed.down_of(linear).float()
            rest = weight - low
    lying[: packed.inputs].copy_(levels_of(rest, scales.unsqueeze(1)).T)


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
        rows = packed.weights_of(linear, torch.float64)
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
    return _product([torch.where(its, x, 0) for its in kept], x, packed)


def whole_product(x: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The joint output where every channel is kept, as `masked_product` gives it: that of the weights as stored."""
    return _product([x] * len(packed.linears), x, packed)


def _product(kept: Sequence[torch.Tensor], x: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The joint output of what each layer keeps of x, shape (tokens, inputs)."""
    parts = []
    for linear, large in zip(packed.linears, kept, strict=True):
        rows = packed.weights_of(linear, x.dtype)
        part = large @ rows[: packed.inputs]
        if linear.rank:
            part += (x @ packed.down_of(linear).T) @ rows[packed.inputs :]
        parts.append(part)
    joint = torch.cat(parts, dim=1)
    return joint if packed.bias is None else joint + packed.bias
