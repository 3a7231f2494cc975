"""Which tokens have the highest scores, in the order of the prompt, and what lies at their places."""

from __future__ import annotations

import math

import torch


def top_places(scores: torch.Tensor, count: int, behind: int = 0) -> torch.Tensor:
    """The places of the highest scores, ascending, with the places behind the scored ones, which are always taken.

    Of equal scores the first ones are taken, on every device. What is no number is lowest. Nothing waits for a GPU.

    Args:
        scores: shape (…, scored).
        count: how many are taken of each row, at most `scored`.
        behind: places behind the scored ones, the window's.

    Returns:
        int64, shape (…, count + behind).

    Raises:
        ValueError: a count that is negative, or more than there are scores.
    """
    scored = scores.shape[-1]
    if not 0 <= count <= scored:
        raise ValueError(f"{count} places were asked for, and {scored} have scores.")
    rows = scores.reshape(-1, scored)
    rows = rows.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    places = torch.arange(scored + behind, device=scores.device).expand(rows.shape[0], -1)
    found = places.new_empty(rows.shape[0], count + 1)
    if count:
        least = rows.topk(count).values[:, -1:]
        above, equal = rows > least, rows == least
        taken = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
        # Each place that is taken is put behind those taken before it; all others go to the end, which is cut off.
        found.scatter_(-1, torch.where(taken, taken.cumsum(-1) - 1, count), places[:, :scored])
    return torch.cat([found[:, :count], places[:, scored:]], -1).view(*scores.shape[:-1], count + behind)


def gathered(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What lies at some places, in one copy: of hidden states, positions, or each head's keys or values.

    Args:
        tensor: shape (…, positions, size).
        places: shape (kept,), the same for all rows, or (…, kept), for each row its own.

    Returns:
        Shape (…, kept, size).
    """
    if places.ndim == 1:
        return tensor.index_select(-2, places)
    flat = tensor.flatten(0, -3)
    rows = torch.arange(flat.shape[0], device=tensor.device)[:, None]
    return flat[rows, places.reshape(flat.shape[0], -1)].view(*tensor.shape[:-2], -1, tensor.shape[-1])
