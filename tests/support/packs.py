"""Random packed layers, and how closely a kernel has to come to their reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vivace_kernels.sparsity.packed import Factors, Packed, pack


def random_pack(
    inputs: int,
    outputs: Sequence[int],
    ranks: Sequence[int],
    dtype: torch.dtype,
    *,
    biased: Sequence[bool] | None = None,
    seed: int = 0,
    levels: bool = False,
) -> Packed:
    """Layers of which inputs from the normal distribution keep about half, a different limit for each channel."""
    drawn = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(shape, generator=drawn, dtype=torch.float64) * scale).to(dtype)

    scale = inputs**-0.5
    return pack(
        [normal(each, inputs, scale=scale) for each in outputs],
        [
            Factors(normal(each, rank, scale=rank**-0.5), normal(rank, inputs, scale=scale)) if rank else None
            for each, rank in zip(outputs, ranks, strict=True)
        ],
        torch.rand(len(outputs), inputs, generator=drawn) * 1.4,
        [normal(each) if has else None for each, has in zip(outputs, biased or [False] * len(outputs), strict=True)],
        levels=levels,
    )


def unit_in_the_last_place(dtype: torch.dtype) -> float:
    """The relative error of one rounding, whichever way: interpreted kernels do not round to nearest."""
    return float(torch.finfo(dtype).eps)
