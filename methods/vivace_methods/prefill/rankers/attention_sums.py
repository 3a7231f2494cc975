"""Attention of many queries summed up, a few rows of the matrix at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def attention_rows(queries: torch.Tensor, keys: torch.Tensor, scaling: float) -> Iterator[torch.Tensor]:
    """Probabilities with which queries look at keys, one head of the keys after the other.

    Queries are laid beside each other for the keys that they share, so that no key is repeated.

    Args:
        queries: of the last tokens, none of which looks at those after it, rotated, shape (1, heads, rows, width).
        keys: rotated, shape (1, key-value heads, tokens, width).
        scaling: of the products.

    Yields:
        For each key-value head, shape (heads that share it, rows, tokens), in 32 bits.
    """
    heads, rows, width = queries.shape[1:]
    shared, tokens = keys.shape[1], keys.shape[2]
    hidden = torch.ones(rows, rows, dtype=torch.bool, device=keys.device).triu(1)
    for head in range(shared):
        mine = queries[0, head * heads // shared : (head + 1) * heads // shared].reshape(-1, width)
        logits = (mine @ keys[0, head].T).float().mul_(scaling).view(-1, rows, tokens)
        logits[..., tokens - rows :].masked_fill_(hidden, float("-inf"))
        yield logits.softmax(-1)


def attention_sums(
    queries: torch.Tensor, keys: torch.Tensor, scaling: float, weights: torch.Tensor | None = None, rows: int = 128
) -> torch.Tensor:
    """Attention that a prompt's last tokens, or all of them, pay to every token, summed over them.

    A few rows of the matrix are there at a time, whatever the prompt's length.

    Args:
        queries: of the last tokens, or of all, rotated, shape (1, heads, looking tokens, width).
        keys: of all tokens, rotated, shape (1, key-value heads, tokens, width).
        scaling: of the products.
        weights: how much each looking token counts, shape (looking tokens,); None for all alike.
        rows: looking tokens at a time.

    Returns:
        Shape (key-value heads, tokens), in 32 bits.
    """
    looking, tokens = queries.shape[2], keys.shape[2]
    found = torch.zeros(keys.shape[1], tokens, device=keys.device)
    for begin in range(0, looking, rows):
        end = min(begin + rows, looking)
        seen = tokens - looking + end
        for head, each in enumerate(attention_rows(queries[:, :, begin:end], keys[:, :, :seen], scaling)):
            counted = each if weights is None else each * weights[begin:end, None]
            found[head, :seen] += counted.sum((0, 1))
    return found
