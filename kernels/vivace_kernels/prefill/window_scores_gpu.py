"""Scores of a window of queries on a GPU: keys are read twice, or once where attention gave its log-sum-exp.

The window's queries of all heads that share keys make one tile, so that a block of keys is read once for all of them.
A first launch finds the log-sum-exp of each query over a part of the keys, a second joins these parts and adds up
attention over the window, a third averages over neighbours, joins heads and raises the running maximum. What lies
between them are some numbers for each query, and one for each position and head at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu
from vivace_kernels.prefill.window_scores_cpu import Scoring, check_window, scored_shape

MOST_ROWS = 64
"""Queries of one tile."""
KEYS, KEYS_OF_FLOAT32 = 64, 32
"""Positions of one block; float32 goes without matrix units, in which a thread would have to hold too much."""
POSITIONS = 1024
"""That a program of the third launch gives."""
MOST_SPLITS = 64
"""Parts into which the keys of a head are cut at most."""
PROGRAMS = 4
"""Of the first two launches, that are to share a processor of the GPU."""
READING = {"num_warps": 4, "num_stages": 3, "maxnreg": 128, "enable_fp_fusion": True}
JOINING = {"num_warps": 4, "enable_fp_fusion": True}
_LOG2_E = tl.constexpr(1.4426950408889634)
_LOWEST = tl.constexpr(-1e38)


def window_scores_gpu(
    queries: torch.Tensor,
    keys: torch.Tensor,
    scoring: Scoring,
    *,
    log_sum_exp: torch.Tensor | None = None,
    running: torch.Tensor | None = None,
) -> torch.Tensor:
    """`window_scores` on a GPU, for bfloat16, float16 and float32 (never TF32); sums are in float32.

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    check_window(queries, keys, scoring, log_sum_exp, running)
    gpu.require_dtype(queries.dtype)
    gpu.require_gpu(queries.device)
    (key_heads, positions, size), (heads, window, _), device = keys.shape, queries.shape, keys.device
    rows, scored = scored_shape(queries, keys, scoring)
    scores = torch.empty(rows, scored, dtype=torch.float32, device=device)
    if not scored:
        return scores
    keys = keys if keys.stride(2) == 1 else keys.contiguous()
    tile, by_head = _Tile.of(heads // key_heads, window), scoring.heads != "sum"
    block = KEYS_OF_FLOAT32 if keys.dtype == torch.float32 else KEYS
    programs, blocks = key_heads * tile.blocks, triton.cdiv(positions, block)
    splits = min(triton.cdiv(PROGRAMS * gpu.processors(device), programs), blocks, MOST_SPLITS)
    parts = torch.empty(1 if log_sum_exp is not None else splits, heads, window, dtype=torch.float32, device=device)
    pieces = tile.of_window if by_head else tile.blocks
    raw = torch.empty((heads if by_head else key_heads) * pieces, scored, dtype=torch.float32, device=device)
    shapes = {
        "GROUP": heads // key_heads, "WINDOW": window, "SIZE": size, "HEADS": tile.heads, "QUERIES": tile.queries,
        "BLOCKS": tile.blocks, "OF_WINDOW": tile.of_window, "CHANNELS": gpu.channels(size, queries.dtype),
        "KEYS": block,
    }  # fmt: skip
    read = (queries.contiguous(), keys, positions, *keys.stride()[:2], scoring.scale_of(size), splits)
    with gpu.current(device):
        if log_sum_exp is None:
            _sum[(programs, splits)](*read, parts, heads, **shapes, **READING)
        else:
            parts.copy_(log_sum_exp)
        _attend[(programs, splits)](
            *read, parts, heads, parts.shape[0], raw, scored,
            BY_HEAD=by_head, PARTS=triton.next_power_of_2(parts.shape[0]), **shapes, **READING,
        )  # fmt: skip
        _join[(rows, triton.cdiv(scored, POSITIONS))](
            raw, scores, running, scored,
            HEADS=heads // key_heads if scoring.heads == "max" else 1, PIECES=pieces, POOL=scoring.pool,
            BEFORE=scoring.pooled == "before", RUNS=running is not None, POSITIONS=POSITIONS, **JOINING,
        )  # fmt: skip
    return scores


@dataclass(frozen=True)
class _Tile:
    """How the window's queries of heads that share keys are cut into tiles.

    Attributes:
        heads: query heads of a tile.
        queries: of each head.
        of_window: tiles that a window is cut into.
        blocks: tiles of one key head.
    """

    heads: int
    queries: int
    of_window: int
    blocks: int

    @classmethod
    def of(cls, group: int, window: int) -> _Tile:
        """Tiles of up to `MOST_ROWS` rows, and of 16 at least, which a matrix unit takes."""
        queries = min(triton.next_power_of_2(window), MOST_ROWS)
        heads = max(min(triton.next_power_of_2(group), MOST_ROWS // queries), 16 // queries)
        of_window = triton.cdiv(window, queries)
        return cls(heads, queries, of_window, triton.cdiv(group, heads) * of_window)


@triton.jit
def _places(
    GROUP: tl.constexpr,
    WINDOW: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCKS: tl.constexpr,
    OF_WINDOW: tl.constexpr,
) -> tl.tuple:
    """Of this program's queries their places in the window and among all queries, and which of them there are."""
    key_head, block, row = tl.program_id(0) // BLOCKS, tl.program_id(0) % BLOCKS, tl.arange(0, HEADS * QUERIES)
    head, query = block // OF_WINDOW * HEADS + row // QUERIES, block % OF_WINDOW * QUERIES + row % QUERIES
    return query, (key_head * GROUP + head) * WINDOW + query, (head < GROUP) & (query < WINDOW)


@triton.jit
def _logits(
    queries: tl.tensor,
    keys: tl.tensor,
    query: tl.tensor,
    place: tl.tensor,
    present: tl.tensor,
    position: tl.tensor,
    positions: tl.tensor,
    head_stride: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCKS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
) -> tl.tensor:
    """Logits of a tile and a block of keys, for powers of two; what a query does not see is -infinity."""
    its_keys = keys + (tl.program_id(0) // BLOCKS).to(tl.int64) * head_stride
    # Without a loop of its own the one over blocks fetches the next ones meanwhile.
    if CHANNELS >= SIZE:
        logits = _product(queries, its_keys, place, present, position, positions, stride, 0, SIZE, CHANNELS)
    else:
        logits = tl.zeros([ROWS, KEYS], tl.float32)
        for first in range(0, SIZE, CHANNELS):
            logits += _product(queries, its_keys, place, present, position, positions, stride, first, SIZE, CHANNELS)
    seen = position[None, :] <= (positions - WINDOW + query)[:, None]
    return tl.where(seen, logits * (scale * _LOG2_E), float("-inf"))


@triton.jit
def _product(
    queries: tl.tensor,
    keys: tl.tensor,
    place: tl.tensor,
    present: tl.tensor,
    position: tl.tensor,
    positions: tl.tensor,
    stride: tl.tensor,
    first: tl.tensor,
    SIZE: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> tl.tensor:
    """What some channels add to the products of a tile and a block of keys."""
    channel = first + tl.arange(0, CHANNELS)
    tile = tl.load(
        queries + place[:, None] * SIZE + channel[None, :], mask=present[:, None] & (channel < SIZE)[None, :],
        other=0.0, eviction_policy="evict_last",
    )  # fmt: skip
    block = tl.load(
        keys + position.to(tl.int64)[None, :] * stride + channel[:, None],
        mask=(position < positions)[None, :] & (channel < SIZE)[:, None], other=0.0,
    )  # fmt: skip
    return gpu.product(tile, block)


@triton.jit
def _sum(
    queries: tl.tensor,
    keys: tl.tensor,
    positions: tl.tensor,
    head_stride: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    splits: tl.tensor,
    parts: tl.tensor,
    heads: tl.tensor,
    GROUP: tl.constexpr,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCKS: tl.constexpr,
    OF_WINDOW: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """The log-sum-exp of a tile of queries over a part of the keys."""
    query, place, present = _places(GROUP, WINDOW, HEADS, QUERIES, BLOCKS, OF_WINDOW)
    split, blocks = tl.program_id(1), tl.cdiv(positions, KEYS)
    # A part may hold nothing that a query sees: its highest logit is then this one, and its sum zero.
    highest = tl.full([HEADS * QUERIES], _LOWEST, tl.float32)
    total = tl.zeros([HEADS * QUERIES], tl.float32)
    for number in range(split * blocks // splits, (split + 1) * blocks // splits):
        position = number * KEYS + tl.arange(0, KEYS)
        logits = _logits(
            queries, keys, query, place, present, position, positions, head_stride, stride, scale,
            WINDOW, SIZE, BLOCKS, CHANNELS, HEADS * QUERIES, KEYS,
        )  # fmt: skip
        higher = tl.maximum(highest, tl.max(logits, 1))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(logits - higher[:, None]), 1)
        highest = higher
    tl.store(parts + split * heads * WINDOW + place, (highest + tl.log2(total)) / _LOG2_E, mask=present)


@triton.jit
def _attend(
    queries: tl.tensor,
    keys: tl.tensor,
    positions: tl.tensor,
    head_stride: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    splits: tl.tensor,
    parts: tl.tensor,
    heads: tl.tensor,
    part_count: tl.tensor,
    raw: tl.tensor,
    scored: tl.tensor,
    BY_HEAD: tl.constexpr,
    PARTS: tl.constexpr,
    GROUP: tl.constexpr,
    WINDOW: tl.constexpr,
    SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCKS: tl.constexpr,
    OF_WINDOW: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """A tile's attention to a part of the keys: of each head summed over its queries, or summed over all of them."""
    query, place, present = _places(GROUP, WINDOW, HEADS, QUERIES, BLOCKS, OF_WINDOW)
    split, blocks, part = tl.program_id(1), tl.cdiv(positions, KEYS), tl.arange(0, PARTS)
    found = tl.load(
        parts + part[:, None] * heads * WINDOW + place[None, :],
        mask=(part < part_count)[:, None] & present[None, :], other=float("-inf"),
    )  # fmt: skip
    # All that a query of the tile's padding could be given is zero.
    highest = tl.where(present, tl.max(found, 0), 0.0)
    whole = highest + tl.log2(tl.sum(tl.exp2((found - highest[None, :]) * _LOG2_E), 0)) / _LOG2_E
    whole = tl.where(present, whole, float("inf")) * _LOG2_E
    for number in range(split * blocks // splits, (split + 1) * blocks // splits):
        position = number * KEYS + tl.arange(0, KEYS)
        logits = _logits(
            queries, keys, query, place, present, position, positions, head_stride, stride, scale,
            WINDOW, SIZE, BLOCKS, CHANNELS, HEADS * QUERIES, KEYS,
        )  # fmt: skip
        attention = tl.exp2(logits - whole[:, None])
        if BY_HEAD:
            key_head, block = tl.program_id(0) // BLOCKS, tl.program_id(0) % BLOCKS
            head = block // OF_WINDOW * HEADS + tl.arange(0, HEADS)
            line = ((key_head * GROUP + head) * OF_WINDOW + block % OF_WINDOW).to(tl.int64)
            tl.store(
                raw + line[:, None] * scored + position[None, :],
                tl.sum(tl.reshape(attention, [HEADS, QUERIES, KEYS]), 1),
                mask=(head < GROUP)[:, None] & (position < scored)[None, :],
            )
        else:
            line = raw + tl.program_id(0).to(tl.int64) * scored
            tl.store(line + position, tl.sum(attention, 0), mask=position < scored)


@triton.jit
def _join(
    raw: tl.tensor,
    scores: tl.tensor,
    running: tl.tensor,
    scored: tl.tensor,
    HEADS: tl.constexpr,
    PIECES: tl.constexpr,
    POOL: tl.constexpr,
    BEFORE: tl.constexpr,
    RUNS: tl.constexpr,
    POSITIONS: tl.constexpr,
) -> None:
    """Scores of some positions: pieces added up, neighbours averaged, and the largest over heads, in either order."""
    row, position = tl.program_id(0).to(tl.int64), tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS)
    if BEFORE:
        score = tl.full([POSITIONS], float("-inf"), tl.float32)
        for head in range(HEADS):
            summed = tl.zeros([POSITIONS], tl.float32)
            for step in range(POOL):
                summed += _piece(raw, row * HEADS + head, position + step - POOL // 2, scored, PIECES, POSITIONS)
            score = tl.maximum(score, summed / POOL)
    else:
        score = tl.zeros([POSITIONS], tl.float32)
        for step in range(POOL):
            largest = _piece(raw, row * HEADS, position + step - POOL // 2, scored, PIECES, POSITIONS)
            for head in range(1, HEADS):
                its = _piece(raw, row * HEADS + head, position + step - POOL // 2, scored, PIECES, POSITIONS)
                largest = tl.maximum(largest, its)
            score += largest / POOL
    inside = position < scored
    tl.store(scores + row * scored + position, score, mask=inside)
    if RUNS:
        so_far = tl.load(running + row * scored + position, mask=inside)
        tl.store(running + row * scored + position, tl.maximum(so_far, score), mask=inside)


@triton.jit
def _piece(
    raw: tl.tensor,
    head: tl.tensor,
    position: tl.tensor,
    scored: tl.tensor,
    PIECES: tl.constexpr,
    POSITIONS: tl.constexpr,
) -> tl.tensor:
    """What the tiles of one head gave at some positions, added up; nothing beyond the ends."""
    inside = (position >= 0) & (position < scored)
    total = tl.zeros([POSITIONS], tl.float32)
    for piece in range(PIECES):
        total += tl.load(raw + (head * PIECES + piece) * scored + position, mask=inside, other=0.0)
    return total
