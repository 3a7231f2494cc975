"""The sparse product of packed layers on whatever device they lie."""

from __future__ import annotations

import importlib.util

import torch

from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed, masked_product
from vivace_kernels.sparsity.sparse_gemv_cpu import sparse_gemv_cpu

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def prepare(packed: Packed) -> None:
    """Make what the kernels need beside a pack: what outlives a CUDA graph must not be made while one is captured."""
    if packed.rows.device.type == "cuda" and _HAS_TRITON:
        from vivace_kernels.sparsity.sparse_gemv import plan_of

        plan_of(packed)


def sparse_product(x: torch.Tensor, packed: Packed, *, counts: torch.Tensor | None = None) -> torch.Tensor:
    """The joint output of packed layers, by the fastest kernel for the device and the number of tokens.

    Args:
        x: shape (tokens, inputs), of the pack's type and on its device.
        packed: the layers.
        counts: int32, shape (layers,), to which the number of kept channels of all tokens is added; or None.

    Returns:
        Shape (tokens, outputs), of the pack's type.
    """
    if x.device.type == "cpu":
        return sparse_gemv_cpu(x, packed, counts=counts)
    if x.shape[0] > MOST_TOKENS or not _HAS_TRITON:
        return masked_product(x, packed, counts=counts)
    from vivace_kernels.sparsity.sparse_gemv import sparse_gemv

    return sparse_gemv(x, packed, counts=counts)
