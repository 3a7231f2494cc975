"""Causal attention of a few kept queries over all keys on a GPU, one pass over the keys that a block of queries sees.

As in FlashAttention (arXiv 2205.14135) the softmax is taken while keys pass by. Each query has a place of its own, so
that a block of queries sees keys in three parts: those before its first place, which all of it sees, those up to its
last, which are masked one by one, and the rest, which are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu
from vivace_kernels.prefill.kept_attention_cpu import check_kept

_LOG2_E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True)
class _Block:
    """How much one program takes.

    Attributes:
        queries: at once.
        keys: at once.
        options: of Triton.
    """

    queries: int
    keys: int
    options: dict[str, Any]

    @classmethod
    def of(cls, size: int, dtype: torch.dtype, device: torch.device) -> _Block:
        """What fits into the registers of a processor, for heads of a size; float32 goes without matrix units."""
        if dtype == torch.float32:
            return cls(32, 16, {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True})
        keys = 64 if size <= 64 or gpu.capability(device) >= 90 else 32
        return cls(128, keys, {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True})


def kept_attention_gpu(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """`kept_attention` on a GPU, for bfloat16, float16 and float32 (never TF32).

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    check_kept(queries, keys, values, places)
    gpu.require_dtype(queries.dtype)
    gpu.require_gpu(queries.device)
    heads, kept, size = queries.shape
    queries, keys, values = (each if each.stride(2) == 1 else each.contiguous() for each in (queries, keys, values))
    found = torch.empty(heads, kept, size, dtype=queries.dtype, device=queries.device)
    block = _Block.of(size, queries.dtype, queries.device)
    with gpu.current(queries.device):
        _attend[(triton.cdiv(kept, block.queries), heads)](
            queries, keys, values, places.contiguous(), found, kept, heads // keys.shape[0],
            *queries.stride()[:2], *keys.stride()[:2], *values.stride()[:2],
            size**-0.5 if scale is None else scale,
            SIZE=size, WIDTH=max(triton.next_power_of_2(size), 16), CHANNELS=gpu.channels(size, queries.dtype),
            QUERIES=block.queries, KEYS=block.keys, **block.options,
        )  # fmt: skip
    return found


@triton.jit
def _attend(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    places: tl.tensor,
    found: tl.tensor,
    kept: tl.tensor,
    group: tl.tensor,
    query_head_stride: tl.tensor,
    query_stride: tl.tensor,
    key_head_stride: tl.tensor,
    key_stride: tl.tensor,
    value_head_stride: tl.tensor,
    value_stride: tl.tensor,
    scale: tl.tensor,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """A block of queries of one head; the last ones, which see most, begin first."""
    head = tl.program_id(1).to(tl.int64)
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES + tl.arange(0, QUERIES)
    channel = tl.arange(0, WIDTH)
    present, inside = row < kept, (channel < SIZE)[None, :]
    place = tl.load(places + row, mask=present, other=-1).to(tl.int32)
    its_queries = queries + head * query_head_stride + row.to(tl.int64)[:, None] * query_stride
    its_keys, its_values = keys + head // group * key_head_stride, values + head // group * value_head_stride
    tile = tl.load(its_queries + channel[None, :], mask=present[:, None] & inside, other=0.0)
    end = tl.max(place, 0) + 1
    all_seen = tl.min(tl.where(present, place, end), 0) + 1
    highest = tl.full([QUERIES], -1e38, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    answer = tl.zeros([QUERIES, WIDTH], tl.float32)
    seen_blocks = all_seen // KEYS * KEYS
    for start in range(0, seen_blocks, KEYS):
        highest, total, answer = _step(
            tile, its_queries, its_keys, its_values, place, present, start, end, key_stride, value_stride, scale,
            highest, total, answer, False, SIZE, WIDTH, CHANNELS, QUERIES, KEYS,
        )  # fmt: skip
    for start in range(seen_blocks, end, KEYS):
        highest, total, answer = _step(
            tile, its_queries, its_keys, its_values, place, present, start, end, key_stride, value_stride, scale,
            highest, total, answer, True, SIZE, WIDTH, CHANNELS, QUERIES, KEYS,
        )  # fmt: skip
    its_found = found + (head * kept + row)[:, None] * SIZE + channel[None, :]
    tl.store(its_found, (answer / total[:, None]).to(found.dtype.element_ty), mask=present[:, None] & inside)


@triton.jit
def _step(
    tile: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    place: tl.tensor,
    present: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    key_stride: tl.tensor,
    value_stride: tl.tensor,
    scale: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    answer: tl.tensor,
    MASKED: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> tl.tuple:
    """What a block of keys adds to the answers."""
    position, channel = (start + tl.arange(0, KEYS)).to(tl.int64), tl.arange(0, WIDTH)
    there = position < end
    if CHANNELS >= SIZE:
        block = tl.load(
            keys + position[None, :] * key_stride + channel[:, None],
            mask=there[None, :] & (channel < SIZE)[:, None], other=0.0,
        )  # fmt: skip
        logits = gpu.product(tile, block)
    else:
        logits = tl.zeros([QUERIES, KEYS], tl.float32)
        for first in range(0, SIZE, CHANNELS):
            some = first + tl.arange(0, CHANNELS)
            part = tl.load(queries + some[None, :], mask=present[:, None] & (some < SIZE)[None, :], other=0.0)
            block = tl.load(
                keys + position[None, :] * key_stride + some[:, None],
                mask=there[None, :] & (some < SIZE)[:, None], other=0.0,
            )  # fmt: skip
            logits += gpu.product(part, block)
    logits *= scale * _LOG2_E
    if MASKED:
        logits = tl.where(position[None, :] <= place[:, None], logits, float("-inf"))
    higher = tl.maximum(highest, tl.max(logits, 1))
    weights = tl.exp2(logits - higher[:, None])
    fading = tl.exp2(highest - higher)
    read = tl.load(
        values + position[:, None] * value_stride + channel[None, :],
        mask=there[:, None] & (channel < SIZE)[None, :], other=0.0,
    )  # fmt: skip
    answer = answer * fading[:, None] + gpu.product(weights.to(read.dtype), read)
    return higher, total * fading + tl.sum(weights, 1), answer
