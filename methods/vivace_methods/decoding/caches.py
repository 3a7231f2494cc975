"""Caches of keys and values: which kind a reader and a decoder can share, agreed on before anything is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from vivace_methods.cache_needs import CacheNeed, require_one_cache
from vivace_methods.errors import MethodError

PAGE = 256
"""Positions by which a held cache grows, so that prompts of nearly one length share one compiled step."""


class Caches:
    """Gives caches of one kind, and does to them what was asked for.

    Args:
        model: of transformers, in whose configuration the shapes stand.
        needs: what they must be able to do.
    """

    def __init__(self, model: Any, needs: Collection[CacheNeed]) -> None:
        self._config = model.config.get_text_config(decoder=True)
        self._needs = frozenset(needs)
        self._held: Any = None
        self._capacity = 0

    def new(self, positions: int) -> Any:
        """An empty cache of transformers for at least so many positions."""
        from transformers import DynamicCache, StaticCache

        if CacheNeed.HELD in self._needs:
            return self._kept(positions)
        if CacheNeed.FIXED in self._needs:
            return StaticCache(config=self._config, max_cache_len=positions)
        cache = DynamicCache(config=self._config)
        if CacheNeed.CROP in self._needs:
            # Layers with a sliding window forget what has left it; these keep that until it is known how many tokens
            # of a pass stand.
            cache.activate_past_recording()
        return cache

    def _kept(self, positions: int) -> Any:
        """The cache that requests use one after the other, emptied in between.

        CUDA graphs are bound to the memory they were recorded on: with a new cache for each request they would be
        recorded again for each. The cache grows where a request is longer than any before, so the longest prompt
        belongs into the warm-up.
        """
        from transformers import StaticCache

        if positions > self._capacity:
            self._capacity = -(-positions // PAGE) * PAGE
            self._held = StaticCache(config=self._config, max_cache_len=self._capacity)
        else:
            self._held.reset()
        return self._held


def compact(cache: Any, layer: int, kept: torch.Tensor) -> None:
    """Keep some positions of one layer of a cache, and forget the others.

    Args:
        cache: that grows with its positions, agreed on with `CacheNeed.COMPACT`.
        layer: from 0.
        kept: indices of positions in the cache, ascending, shape (positions,).
    """
    its = cache.layers[layer]
    its.keys, its.values = (each.index_select(-2, kept.to(each.device)) for each in (its.keys, its.values))


def negotiate(model: Any, needs: Mapping[str, Collection[CacheNeed]]) -> Caches:
    """Caches that do what all parts of an arm ask for.

    Args:
        model: of transformers.
        needs: name of each part → what it asks for.

    Raises:
        MethodError: two parts ask for what excludes the other, or the model's layers cannot do it.
    """
    asked = require_one_cache(needs)
    kind = type(model).__name__
    _require_masked(model, asked)
    _require_recorded(model, kind, asked)
    _require_all_kept(model, kind, asked)
    return Caches(model, asked)


def _require_masked(model: Any, asked: Mapping[CacheNeed, str]) -> None:
    if CacheNeed.TREE_MASK not in asked:
        return
    tree, attention = asked[CacheNeed.TREE_MASK], model.config._attn_implementation
    if "flash" in str(attention):
        raise MethodError(
            f"{tree} verifies a tree under a mask of its own, and {attention} takes none: use sdpa, or draft a chain."
        )


def _require_recorded(model: Any, kind: str, asked: Mapping[CacheNeed, str]) -> None:
    if CacheNeed.CROP in asked and not Caches(model, [CacheNeed.CROP]).new(0).is_croppable:
        raise MethodError(
            f"{asked[CacheNeed.CROP]} takes rejected drafts back, and layers of {kind} keep a state that only goes "
            "forward (linear or recurrent attention): decode it with autoregressive."
        )


def _require_all_kept(model: Any, kind: str, asked: Mapping[CacheNeed, str]) -> None:
    from transformers.cache_utils import DynamicLayer

    for need in (CacheNeed.COMPACT, CacheNeed.LAYER_LENGTHS):
        if need in asked and any(type(layer) is not DynamicLayer for layer in Caches(model, [need]).new(0).layers):
            raise MethodError(
                f"{asked[need]} needs {need}, and some layers of {kind} keep a window of the latest positions, or a "
                "state in place of them."
            )
