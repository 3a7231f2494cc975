"""Causal attention of a few kept queries over all keys, as the layer needs that prunes before it attends."""

from __future__ import annotations

import importlib.util

import torch

from vivace_kernels.prefill.kept_attention_cpu import kept_attention_cpu

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def kept_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """The attention of some tokens, each over all keys up to its own place.

    The prune layer of Cross-Layer Attention Aggregation (arXiv 2602.16054) computes attention of all tokens and then
    drops most: selected before, only the kept ones need it, with the same result. No mask of all kept tokens by all
    keys is held.

    Args:
        queries: rotated, of the kept tokens, shape (heads, kept, head size): head h reads key head
            h // (heads / key heads).
        keys: rotated, of all tokens, shape (key heads, positions, head size).
        values: shape (key heads, positions, head size).
        places: of the kept tokens among the positions, int64, ascending, shape (kept,).
        scale: of the logits; None for one over the root of the head's size.

    Returns:
        Shape (heads, kept, head size), of the queries' type; sums are in float32.

    Raises:
        ValueError: shapes or types that do not fit.
    """
    if queries.device.type == "cuda" and _HAS_TRITON:
        from vivace_kernels.prefill.kept_attention_gpu import kept_attention_gpu

        return kept_attention_gpu(queries, keys, values, places, scale=scale)
    return kept_attention_cpu(queries, keys, values, places, scale=scale)
