"""Who looks at whom in a pass over a tree, in layers with and without a window, and what of it stays in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def tree_masks(
    cache: Any,
    ancestry: torch.Tensor,
    depths: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    padding: torch.Tensor | None = None,
) -> Any:
    """The attention mask of a pass over nodes of a tree, before the cache takes them up.

    Nodes look at what the cache held before the tree, at the nodes they stand on, and at themselves; in a layer with
    a window, at the latest of these by their depth.

    Args:
        cache: of transformers, whose layers of one kind have kept the same positions. Its latest ones are nodes of
            the tree that went through before, if any.
        ancestry: whether a node of the pass (row) stands on a node or is it, shape (nodes, nodes before and of the
            pass).
        depths: of the columns.
        dtype: of the model.
        device: of the model.
        padding: 1 where a position of the cache counts, 0 where it is padding, shape (1, positions); None where all
            count.

    Returns:
        What transformers takes as `attention_mask`: added to the scores, shape (1, 1, nodes, positions and nodes);
        where some layers have a window and others have none, one for each kind, by its name.
    """
    kinds = {layer.is_sliding: layer for layer in cache.layers}
    masks = {
        "sliding_attention" if is_sliding else "full_attention": _mask(
            layer, ancestry, depths, padding, dtype, device
        )
        for is_sliding, layer in kinds.items()
    }
    return masks if len(masks) > 1 else next(iter(masks.values()))


def keep_of_latest(cache: Any, count: int, kept: Sequence[int]) -> None:
    """Keep some of the latest positions of all layers, and take the others back.

    Args:
        cache: agreed on with `CacheNeed.CROP`, so that layers with a window still have what a pass pushed out.
        count: positions of the latest pass.
        kept: places among these, ascending.
    """
    if list(kept) != list(range(len(kept))):
        for layer in cache.layers:
            for states in (layer.keys, layer.values):
                latest = states[..., -count:, :]
                latest[..., : len(kept), :] = latest[..., list(kept), :]
    cache.crop(len(kept) - count)


def _mask(
    layer: Any,
    ancestry: torch.Tensor,
    depths: Sequence[int],
    padding: torch.Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    nodes, known = ancestry.shape[0], ancestry.shape[1] - ancestry.shape[0]
    length, first = layer.get_mask_sizes(nodes)  # keys in the pass, and the place of the first of them
    before = torch.arange(first, first + length - nodes - known)
    root = first + len(before)
    seen = torch.ones(nodes, len(before), dtype=torch.bool)
    if padding is not None:
        seen &= padding[0, before.to(padding.device)].bool().cpu()
    seen = torch.cat([seen, ancestry.cpu()], 1)
    if layer.is_sliding:
        keys = torch.cat([before, root + torch.tensor(depths)])
        queries = root + torch.tensor(depths[known:])
        seen &= queries[:, None] - keys < layer.sliding_window
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return mask.to(device)[None, None]
