"""Products of a mixture's experts on whatever device they lie."""

from __future__ import annotations

import importlib.util

import torch

from vivace_kernels.speculation.expert_gemm_cpu import expert_gemm_cpu
from vivace_kernels.speculation.experts import check, fits_kernel

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def expert_product(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    *,
    shortlist: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each token through its experts, weighted and summed; every expert that is met is read once.

    An expert's output for a token x is down · (silu(gate · x) * (up · x)), as in Mixtral, Qwen3-MoE and OLMoE. Places
    of weight zero cost nothing: their experts are not read for them.

    Args:
        x: shape (tokens, hidden).
        gate_up: shape (experts, 2 * width, hidden), contiguous: the rows of gate, then those of up.
        down: shape (experts, hidden, width), contiguous.
        index: int64, shape (tokens, experts of each); a token names an expert once, but for places of weight zero.
        weights: of the same shape, of any floating type.
        shortlist: int64, shape (budget,): experts among which all are that the index names, each once; None for all.
            A GPU launches work for no others.

    Returns:
        Shape (tokens, hidden), of x's type.

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    check(x, gate_up, down, index, weights)
    if x.device.type == "cpu":
        return expert_gemm_cpu(x, gate_up, down, index, weights)
    if not _HAS_TRITON or not fits_kernel(x):
        # Of torch's grouped product GPUs have few types, and each generation others.
        return expert_gemm_cpu(x, gate_up, down, index, weights, way="loop")
    from vivace_kernels.speculation.expert_gemm import expert_gemm

    return expert_gemm(x, gate_up, down, index, weights, shortlist=shortlist)
