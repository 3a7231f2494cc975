"""How much a window of queries attends to each token of a prompt, without a matrix of all tokens by all tokens."""

from __future__ import annotations

import importlib.util

import torch

from vivace_kernels.prefill.window_scores_cpu import Heads, Scoring, window_scores_cpu

__all__ = ["Heads", "Scoring", "window_scores"]

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def window_scores(
    queries: torch.Tensor,
    keys: torch.Tensor,
    scoring: Scoring,
    *,
    log_sum_exp: torch.Tensor | None = None,
    running: torch.Tensor | None = None,
) -> torch.Tensor:
    """The attention that the last queries give to each token, summed over them.

    The queries are those of the last `window` positions of the keys, and none looks ahead. Scores are computed and
    given in float32. Nothing is held that grows faster than with the number of positions.

    Source: SnapKV (arXiv 2404.14469, section 4.1) and FastKV (arXiv 2502.01068, equation 2); the largest score over
    layers is Cross-Layer Attention Aggregation's (arXiv 2602.16054, equation 5).

    Args:
        queries: rotated, shape (heads, window, head size): head h reads the keys of head h // (heads / key heads).
        keys: rotated, shape (key heads, positions, head size), of the queries' type and on their device; they may
            be a slice.
        scoring: what is made of it.
        log_sum_exp: of each query's logits (natural logarithm), shape (heads, window), where attention has found it
            already; it is found anew otherwise.
        running: the largest scores so far, of the shape of what is returned, float32; it is raised to these scores
            where they are larger, in place. None where nothing runs.

    Returns:
        float32, shape (heads or key heads, positions or positions - window): the scores of these queries, whatever
        `running` holds.

    Raises:
        ValueError: shapes or types that do not fit.
    """
    if queries.device.type == "cuda" and _HAS_TRITON:
        from vivace_kernels.prefill.window_scores_gpu import window_scores_gpu

        return window_scores_gpu(queries, keys, scoring, log_sum_exp=log_sum_exp, running=running)
    return window_scores_cpu(queries, keys, scoring, log_sum_exp=log_sum_exp, running=running)
