"""Scores of a window of queries: what they are, in float64, and in plain torch, a key head at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

Heads = Literal["none", "sum", "max"]
"""What becomes of the query heads that share keys: scores of each, their sum, or the largest."""


@dataclass(frozen=True)
class Scoring:
    """What is made of the attention of a window of queries.

    Attributes:
        heads: how the query heads that share a key head are joined.
        pool: tokens over which scores are averaged, odd; at the ends there are fewer, and zeros stand for the rest.
            1 for none.
        pooled: whether this is done before heads are joined, or after. For a sum it makes no difference.
        keep_window: whether the window's own tokens are scored; otherwise they are left out, also by the averages.
        scale: of the logits; None for one over the root of the head's size.
    """

    heads: Heads = "sum"
    pool: int = 7
    pooled: Literal["before", "after"] = "before"
    keep_window: bool = False
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"Scores are averaged over an odd number of tokens, and not over {self.pool}.")

    def scale_of(self, size: int) -> float:
        """Of the logits of heads of a size."""
        return size**-0.5 if self.scale is None else self.scale


def check_window(
    queries: torch.Tensor,
    keys: torch.Tensor,
    scoring: Scoring,
    log_sum_exp: torch.Tensor | None,
    running: torch.Tensor | None,
) -> None:
    """Refuse what `window_scores` cannot take.

    Raises:
        ValueError: with one sentence that says what.
    """
    if queries.ndim != 3 or keys.ndim != 3 or queries.shape[2] != keys.shape[2] or queries.shape[0] % keys.shape[0]:
        raise ValueError(
            f"Queries of shape {tuple(queries.shape)} do not fit keys of shape {tuple(keys.shape)}: wanted are "
            "(heads, window, head size) and (key heads, positions, head size), with heads a multiple of key heads."
        )
    if queries.dtype != keys.dtype or queries.device != keys.device:
        raise ValueError(
            f"The queries are {queries.dtype} on {queries.device}, and the keys {keys.dtype} on {keys.device}."
        )
    if not 1 <= queries.shape[1] <= keys.shape[1]:
        raise ValueError(f"A window of {queries.shape[1]} queries does not lie in {keys.shape[1]} positions.")
    if log_sum_exp is not None and log_sum_exp.shape != queries.shape[:2]:
        raise ValueError(
            f"The log-sum-exp has shape {tuple(log_sum_exp.shape)}; the queries need {tuple(queries.shape[:2])}."
        )
    wanted = scored_shape(queries, keys, scoring)
    if running is not None and not (
        (running.shape, running.dtype, running.device) == (wanted, torch.float32, keys.device)
        and running.is_contiguous()
    ):
        raise ValueError(
            f"The running scores have shape {tuple(running.shape)}, type {running.dtype} and device "
            f"{running.device}; they must be contiguous, of shape {wanted} and type torch.float32, on {keys.device}."
        )


def scored_shape(queries: torch.Tensor, keys: torch.Tensor, scoring: Scoring) -> tuple[int, int]:
    """The shape of the scores."""
    rows = queries.shape[0] if scoring.heads == "none" else keys.shape[0]
    return rows, keys.shape[1] - (0 if scoring.keep_window else queries.shape[1])


def window_scores_cpu(
    queries: torch.Tensor,
    keys: torch.Tensor,
    scoring: Scoring,
    *,
    log_sum_exp: torch.Tensor | None = None,
    running: torch.Tensor | None = None,
) -> torch.Tensor:
    """`window_scores` in plain torch, on any device: the window's logits of one key head at a time."""
    check_window(queries, keys, scoring, log_sum_exp, running)
    (key_heads, positions, size), window = keys.shape, queries.shape[1]
    group = queries.shape[0] // key_heads
    rows, scored = scored_shape(queries, keys, scoring)
    scores = torch.empty(rows, scored, dtype=torch.float32, device=queries.device)
    ahead = _ahead(window, queries.device).repeat(group, 1)
    for head in range(key_heads):
        asked = queries[head * group : (head + 1) * group].reshape(group * window, size).float() * scoring.scale_of(
            size
        )
        attention = asked @ keys[head].float().T
        attention[:, positions - window :].masked_fill_(ahead, -math.inf)
        if log_sum_exp is None:
            found = attention.logsumexp(1)
        else:
            found = log_sum_exp[head * group : (head + 1) * group].reshape(-1).float()
        attention.sub_(found.unsqueeze(1)).exp_()
        its = joined(attention.view(group, window, positions).sum(1)[:, :scored].unsqueeze(0), scoring)
        scores.view(key_heads, rows // key_heads, scored)[head] = its[0]
    if running is not None:
        torch.maximum(running, scores, out=running)
    return scores


def window_scores_reference(
    queries: torch.Tensor, keys: torch.Tensor, scoring: Scoring, *, running: torch.Tensor | None = None
) -> torch.Tensor:
    """`window_scores` straight from the definition, in float64, with all logits of the window at once.

    Args:
        queries: as `window_scores` takes them.
        keys: as `window_scores` takes them.
        scoring: what is made of it.
        running: the largest scores so far, which stay as they are.

    Returns:
        float64, of the shape that `window_scores` gives: its scores or, with `running`, the larger of both.
    """
    (key_heads, positions, size), (heads, window, _) = keys.shape, queries.shape
    logits = queries.double() @ keys.double().repeat_interleave(heads // key_heads, 0).transpose(1, 2)
    logits *= scoring.scale_of(size)
    logits[:, :, positions - window :].masked_fill_(_ahead(window, queries.device), -math.inf)
    summed = logits.softmax(-1).sum(1)[:, : positions if scoring.keep_window else positions - window]
    scores = joined(summed.view(key_heads, heads // key_heads, -1), scoring).flatten(0, 1)
    return scores if running is None else torch.maximum(scores, running.double())


def joined(scores: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """Scores of all heads averaged over neighbours, and joined, as the scoring says.

    Args:
        scores: shape (key heads, query heads of each, positions).

    Returns:
        Shape (key heads, query heads of each, positions), or (key heads, 1, positions).
    """
    if scoring.pooled == "before":
        scores = pooled(scores, scoring.pool)
    if scoring.heads == "sum":
        scores = scores.sum(1, keepdim=True)
    elif scoring.heads == "max":
        scores = scores.amax(1, keepdim=True)
    return pooled(scores, scoring.pool) if scoring.pooled == "after" else scores


def pooled(scores: torch.Tensor, pool: int) -> torch.Tensor:
    """Scores averaged over neighbours: `pool` tokens around each, of which those beyond the ends count as zeros.

    Args:
        scores: shape (…, positions).
        pool: odd.

    Returns:
        The same shape.
    """
    if pool == 1 or not scores.shape[-1]:
        return scores
    flat = scores.reshape(-1, 1, scores.shape[-1])
    return torch.nn.functional.avg_pool1d(flat, pool, stride=1, padding=pool // 2).view(scores.shape)


def _ahead(window: int, device: torch.device) -> torch.Tensor:
    """Of the window's last keys, those that a query does not see, shape (window, window)."""
    return torch.ones(window, window, dtype=torch.bool, device=device).triu(1)
