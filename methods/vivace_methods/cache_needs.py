"""What readers and decoders ask of the cache of keys and values, and what cannot be had together: without a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Literal

from vivace_methods.errors import MethodError

Compile = Literal["none", "reduce-overhead"]
CacheKind = Literal["dynamic", "static"]


class CacheNeed(StrEnum):
    """What a reader or a decoder asks of the cache of keys and values; each value ends the sentence `needs …`."""

    CROP = "a cache whose latest positions can be taken back"
    COMPACT = "a cache from which positions can be removed by their index"
    LAYER_LENGTHS = "a cache whose layers keep different numbers of positions"
    TREE_MASK = "a cache under a mask of any form, for trees of tokens"
    NO_MASK = "a cache under no mask but that of the order, for FlashAttention's own package"
    FIXED = "a cache in memory of a fixed size"
    HELD = "a cache that stays in its place from one request to the next, for CUDA graphs"


NOTHING: frozenset[CacheNeed] = frozenset()
CHAINS = frozenset({CacheNeed.CROP})
"""Of a decoder that verifies chains of drafts."""
TREES = CHAINS | {CacheNeed.TREE_MASK}
"""Of one that verifies trees."""

_MOVING = frozenset({CacheNeed.CROP, CacheNeed.COMPACT, CacheNeed.LAYER_LENGTHS, CacheNeed.TREE_MASK})
"""What a cache of a fixed size cannot do: its mask follows from how many positions it has taken."""
_EXCLUDED = {
    CacheNeed.FIXED: _MOVING,
    CacheNeed.HELD: _MOVING,
    CacheNeed.NO_MASK: frozenset({CacheNeed.TREE_MASK}),
}


def plain_needs(cache: CacheKind, compile: Compile) -> frozenset[CacheNeed]:
    """Of a decoder of one token a pass.

    Args:
        cache: whether keys and values grow with the answer, or lie in memory of a fixed size.
        compile: whether its steps are compiled into CUDA graphs.
    """
    if compile != "none":
        return frozenset({CacheNeed.HELD})
    return frozenset({CacheNeed.FIXED}) if cache == "static" else NOTHING


def require_static(cache: CacheKind, compile: Compile) -> None:
    """Refuse CUDA graphs over a cache that moves.

    Raises:
        MethodError: steps are to be compiled, and the cache is not static.
    """
    if compile != "none" and cache != "static":
        raise MethodError(f"compile={compile} needs memory that stays in its place: use cache=static with it.")


def attention_needs(implementation: str) -> frozenset[CacheNeed]:
    """Of an attention implementation of transformers."""
    return frozenset({CacheNeed.NO_MASK}) if implementation.startswith("flash") else NOTHING


def excluding(needs: Collection[CacheNeed]) -> tuple[CacheNeed, CacheNeed] | None:
    """Two of these needs that no cache meets both; None where one meets all."""
    for one, others in _EXCLUDED.items():
        if one in needs and (found := others & set(needs)):
            return one, min(found)
    return None


def require_one_cache(needs: Mapping[str, Collection[CacheNeed]]) -> dict[CacheNeed, str]:
    """See that one cache can do what all parts of an arm ask for.

    Args:
        needs: name of each part → what it asks for.

    Returns:
        Each need → the part that asks for it.

    Raises:
        MethodError: two parts ask for what excludes the other.
    """
    asked = {need: part for part, its in needs.items() for need in its}
    if (found := excluding(asked)) is not None:
        one, other = found
        raise MethodError(f"{asked[one]} needs {one}, and {asked[other]} needs {other}: there is none that is both.")
    return asked
