"""TEAL's sparse product, a rival to be measured against: thresholds inside the product, sums by atomic additions.

Written from its description (Training-Free Activation Sparsity in Large Language Models, arXiv 2408.14690, and its
released kernel's documented layout), so that the benchmark compares kernels on one machine. Every program tests its
own channels and reads the weights of those that pass; the rest of its tile stays empty. Parts of the sums meet by
atomic additions, in half precision for half-precision models, so that two calls need not give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu


@dataclass(frozen=True)
class Tile:
    """How much one program takes.

    Attributes:
        rows: input channels.
        columns: outputs.
        warps: of 32 threads.
    """

    rows: int
    columns: int
    warps: int


TILES = tuple(
    Tile(rows, columns, warps)
    for rows in (16, 32, 64, 128)
    for columns in (64, 128, 256, 512)
    for warps in (2, 4)
    if 4096 <= rows * columns <= 16384
)
"""Those among which the fastest for a shape is to be found by trying, as TEAL does."""


@dataclass(frozen=True, eq=False)
class TealLinears:
    """Linear layers of one input in one launch.

    Attributes:
        columns: shape (inputs, sum of outputs): the layers' weights, column by column, beside each other.
        firsts: int32, shape (layers,): the first output of each.
        thresholds: float32, shape (layers,): a layer reads the weights of channel j where |x_j| is larger.
        widths: outputs of each layer.
    """

    columns: torch.Tensor
    firsts: torch.Tensor
    thresholds: torch.Tensor
    widths: tuple[int, ...]


def teal_pack(weights: Sequence[torch.Tensor], thresholds: Sequence[float]) -> TealLinears:
    """Lay out linear layers that read one input; their weights are copied.

    Args:
        weights: of each layer, shape (outputs, inputs), all of one type and on one device.
        thresholds: of each layer.
    """
    device, widths = weights[0].device, tuple(weight.shape[0] for weight in weights)
    return TealLinears(
        columns=torch.cat([weight.detach().T for weight in weights], dim=1).contiguous(),
        firsts=torch.tensor([sum(widths[:layer]) for layer in range(len(widths))], dtype=torch.int32, device=device),
        thresholds=torch.tensor(thresholds, dtype=torch.float32, device=device),
        widths=widths,
    )


def teal_reference(x: torch.Tensor, linears: TealLinears) -> torch.Tensor:
    """The joint output in float64, straight from the definition; what is not a number passes no threshold.

    Args:
        x: shape (1, inputs).

    Returns:
        float64, shape (1, sum of outputs).
    """
    parts = []
    for its_columns, threshold in zip(linears.columns.split(linears.widths, dim=1), linears.thresholds, strict=True):
        parts.append(torch.where(x.abs().float() > threshold, x.double(), 0.0) @ its_columns.double())
    return torch.cat(parts, dim=1)


def teal_gemv(x: torch.Tensor, linears: TealLinears, *, tile: Tile = Tile(64, 128, 4)) -> torch.Tensor:
    """The joint output of linear layers, each without its small inputs.

    Args:
        x: shape (1, inputs): TEAL's kernel takes one token. float16 is summed in float16, other types in float32.
        linears: the layers, of the same type and on the same device.
        tile: how the work is cut; the outputs of all layers but the last must be a multiple of its columns.

    Returns:
        Shape (1, sum of outputs), of the type of x.

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    columns = linears.columns
    inputs, outputs = columns.shape
    if x.shape != (1, inputs) or x.dtype != columns.dtype or x.device != columns.device or x.dtype not in gpu.DTYPES:
        raise ValueError(
            f"The input has shape {tuple(x.shape)}, type {x.dtype} and device {x.device}; the layers read one token "
            f"of {inputs} channels, of {columns.dtype} on {columns.device}."
        )
    if any(width % tile.columns for width in linears.widths[:-1]):
        raise ValueError(f"A tile of {tile.columns} columns crosses from one layer of {linears.widths} to another.")
    gpu.require_gpu(x.device)
    sums = torch.zeros(1, outputs, dtype=x.dtype if x.dtype == torch.float16 else torch.float32, device=x.device)
    with gpu.current(x.device):
        _add_tile[(triton.cdiv(outputs, tile.columns), triton.cdiv(inputs, tile.rows))](
            x.contiguous(), columns, linears.firsts, linears.thresholds, sums, inputs, outputs,
            LAYERS=len(linears.widths), ROWS=tile.rows, COLUMNS=tile.columns,
            num_warps=tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
    return sums.to(x.dtype)


@triton.jit
def _add_tile(
    x: tl.tensor,
    weights: tl.tensor,
    firsts: tl.tensor,
    thresholds: tl.tensor,
    sums: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    LAYERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Add what some channels give to a block of outputs of one layer."""
    first = tl.program_id(0) * COLUMNS
    threshold = tl.load(thresholds)
    for layer in tl.static_range(1, LAYERS):
        threshold = tl.where(first >= tl.load(firsts + layer), tl.load(thresholds + layer), threshold)
    channel = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    present = channel < inputs
    value = tl.load(x + channel, mask=present, other=0.0, eviction_policy="evict_last").to(tl.float32)
    passing = present & (tl.abs(value) > threshold)
    output = first + tl.arange(0, COLUMNS)
    inside = output < outputs
    read = tl.load(
        weights + channel.to(tl.int64)[:, None] * outputs + output[None, :], mask=passing[:, None] & inside[None, :],
        other=0.0, eviction_policy="evict_first",
    ).to(tl.float32)  # fmt: skip
    # By choice: what did not pass may be no number.
    total = tl.sum(read * tl.where(passing, value, 0.0)[:, None], 0)
    tl.atomic_add(sums + output, total.to(sums.dtype.element_ty), mask=inside, sem="relaxed")
