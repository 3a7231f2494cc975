"""Attention of kept queries over all keys: what it is, in float64, and by torch's own attention."""

from __future__ import annotations

import torch

FEWEST, MOST, CHUNKS = 64, 256, 8
"""Queries that a processor takes at a time, and how often it should: each time up to what the last one sees."""


def check_kept(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> None:
    """Refuse what `kept_attention` cannot take.

    Raises:
        ValueError: with one sentence that says what.
    """
    if (
        queries.ndim != 3
        or keys.ndim != 3
        or keys.shape != values.shape
        or queries.shape[2] != keys.shape[2]
        or queries.shape[0] % keys.shape[0]
    ):
        raise ValueError(
            f"Queries of shape {tuple(queries.shape)} do not fit keys of shape {tuple(keys.shape)} and values of "
            f"shape {tuple(values.shape)}: wanted are (heads, kept, head size) and twice (key heads, positions, head "
            "size), with heads a multiple of key heads."
        )
    if not (queries.dtype == keys.dtype == values.dtype):
        raise ValueError(f"The queries are {queries.dtype}, the keys {keys.dtype} and the values {values.dtype}.")
    if places.shape != queries.shape[1:2] or places.dtype != torch.int64:
        raise ValueError(
            f"The places have shape {tuple(places.shape)} and type {places.dtype}; {queries.shape[1]} queries need "
            f"({queries.shape[1]},) of torch.int64."
        )


def kept_attention_cpu(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """`kept_attention` by torch's own attention, on any device: some queries at a time, up to what the last sees."""
    check_kept(queries, keys, values, places)
    (heads, kept, size), key_heads = queries.shape, keys.shape[0]
    found = torch.empty_like(queries, memory_format=torch.contiguous_format)
    # Heads that share keys see them where they lie.
    asked, answered = (each.view(key_heads, -1, kept, size) for each in (queries.contiguous(), found))
    seen = [each.unsqueeze(1).expand(-1, heads // key_heads, -1, -1) for each in (keys, values)]
    chunk = min(max(kept // CHUNKS, FEWEST), MOST)
    ends = places[chunk - 1 :: chunk].tolist()
    if kept % chunk:
        ends.append(int(places[-1]))
    for number, last in enumerate(ends):
        some = slice(number * chunk, (number + 1) * chunk)
        mask = torch.arange(last + 1, device=places.device) <= places[some, None]
        answered[:, :, some] = torch.nn.functional.scaled_dot_product_attention(
            asked[:, :, some], *(each[:, :, : last + 1] for each in seen), attn_mask=mask, scale=scale
        )
    return found


def kept_attention_reference(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """`kept_attention` straight from the definition, in float64, with all logits at once.

    Returns:
        float64, shape (heads, kept, head size).
    """
    (heads, _, size), (key_heads, positions, _) = queries.shape, keys.shape
    keys, values = (each.double().repeat_interleave(heads // key_heads, 0) for each in (keys, values))
    logits = queries.double() @ keys.transpose(1, 2) * (size**-0.5 if scale is None else scale)
    ahead = torch.arange(positions, device=places.device) > places[:, None]
    return logits.masked_fill(ahead, float("-inf")).softmax(-1) @ values
