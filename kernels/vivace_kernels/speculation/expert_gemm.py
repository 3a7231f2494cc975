"""Products of a mixture's experts on a GPU, for the tens of tokens of a draft: each kept expert's weights pass once.

Such a pass is bound by the bytes of the experts, so the first launch reads gate and up together and keeps what the
activation leaves, the second reads down, and the third, in which hardly anything is read, adds up each token's parts.
The grid is the shortlist's, whatever the tokens chose: the host never learns it, CUDA graphs capture the launches,
and an expert that no token met ends at once. Nothing depends on the order in which programs run: two calls give the
same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.runtime import JITFunction

from vivace_kernels import gpu
from vivace_kernels.speculation.experts import HALVES, MOST_TOKENS

WIDTH = 32
"""Columns of gate and of up that a program of the first launch computes."""
HIDDEN = 64
"""Columns of the output that a program of the second launch computes."""
DEPTH = 128
"""Numbers of a row that are read at a time."""
FEWEST_ROWS, MOST_ROWS = 16, 64
"""Tokens of an expert that are multiplied together: as many as there are tokens, within what matrix units take. Where
more of them chose one expert, its weights pass again, from the L2."""
MULTIPLYING = {"num_stages": 3, "enable_fp_fusion": True}
SUMMED = 512
"""Columns that a program of the third launch adds up."""


def expert_gemm(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    *,
    shortlist: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each token through its experts, on a GPU; the arguments and the result are those of `expert_product`.

    Sums are in float32. What the activation leaves is rounded to the experts' type, and the output, once, at the end.

    Raises:
        ValueError: more than 128 tokens, types other than bfloat16 and float16, or no GPU.
    """
    if len(x) > MOST_TOKENS:
        raise ValueError(f"The expert kernel takes up to {MOST_TOKENS} tokens at once, and {len(x)} were given.")
    if x.dtype not in HALVES:
        raise ValueError(f"The expert kernel knows bfloat16 and float16; the experts are of {x.dtype}.")
    gpu.require_gpu(x.device)
    (tokens, hidden), (experts, _, width), chosen = x.shape, down.shape, index.shape[1]
    kept = experts if shortlist is None else shortlist.shape[0]
    rows = min(max(triton.next_power_of_2(tokens), FEWEST_ROWS), MOST_ROWS)
    # New ones each time: calls on several streams and in several graphs must not share them.
    inner = torch.empty(tokens * chosen, width, dtype=x.dtype, device=x.device)
    parts = torch.empty(tokens * chosen, hidden, dtype=torch.float32, device=x.device)
    output = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not tokens:
        return output
    x, index, weights = x.contiguous(), index.contiguous(), weights.contiguous()
    shapes = {
        "TOKENS": triton.next_power_of_2(tokens),
        "PLACES": triton.next_power_of_2(chosen),
        "LISTED": shortlist is not None,
        "ROWS": rows,
        "num_warps": 4 if tokens <= MOST_ROWS else 8,
        "INTERPRETED": not isinstance(_sum, JITFunction),
    }
    with gpu.current(x.device):
        _gate_up[(triton.cdiv(width, WIDTH), kept)](
            x, gate_up, index, weights, shortlist, inner, tokens, chosen, hidden, width,
            COLUMNS=WIDTH, DEPTH=DEPTH, **shapes, **MULTIPLYING,
        )  # fmt: skip
        _down[(triton.cdiv(hidden, HIDDEN), kept)](
            inner, down, index, weights, shortlist, parts, tokens, chosen, hidden, width,
            COLUMNS=HIDDEN, DEPTH=DEPTH, **shapes, **MULTIPLYING,
        )  # fmt: skip
        _sum[(tokens, triton.cdiv(hidden, SUMMED))](
            parts, weights, output, chosen, hidden, PLACES=shapes["PLACES"], COLUMNS=SUMMED, num_warps=4,
        )  # fmt: skip
    return output


@triton.jit
def _met(
    index: tl.tensor,
    weights: tl.tensor,
    expert: tl.tensor,
    tokens: tl.tensor,
    chosen: tl.tensor,
    TOKENS: tl.constexpr,
    PLACES: tl.constexpr,
) -> tl.tuple:
    """Of each token whether it goes to an expert, and at which of its places: the number of the pair, or -1."""
    token, place = tl.arange(0, TOKENS), tl.arange(0, PLACES)
    pair = token[:, None] * chosen + place[None, :]
    there = (token < tokens)[:, None] & (place < chosen)[None, :]
    named = tl.load(index + pair, mask=there, other=-1) == expert
    weight = tl.load(weights + pair, mask=there, other=0.0).to(tl.float32)
    return tl.max(tl.where(named & (weight != 0), pair, -1), 1)


@triton.jit
def _rows(pairs: tl.tensor, first: tl.tensor, ROWS: tl.constexpr) -> tl.tensor:
    """Some of the pairs that are no -1, in their order, from the place `first` on: -1 behind the last one."""
    place = tl.cumsum((pairs >= 0).to(tl.int32), 0) - 1
    row = first + tl.arange(0, ROWS)
    is_it = (place[None, :] == row[:, None]) & (pairs >= 0)[None, :]
    return tl.max(tl.where(is_it, pairs[None, :], -1), 1)


@triton.jit
def _add_product(sums: tl.tensor, left: tl.tensor, right: tl.tensor, INTERPRETED: tl.constexpr) -> tl.tensor:
    """Triton's interpreter multiplies the bits of bfloat16 in place of the numbers, unless they are widened first."""
    if INTERPRETED:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), sums)
    return tl.dot(left, right, sums)


@triton.jit(do_not_specialize=["tokens", "chosen"])
def _gate_up(
    x: tl.tensor,
    gate_up: tl.tensor,
    index: tl.tensor,
    weights: tl.tensor,
    shortlist: tl.tensor,
    inner: tl.tensor,
    tokens: tl.tensor,
    chosen: tl.tensor,
    hidden: tl.tensor,
    width: tl.tensor,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TOKENS: tl.constexpr,
    PLACES: tl.constexpr,
    LISTED: tl.constexpr,
    ROWS: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """silu(gate · x) * (up · x) for all tokens of one expert, in one block of columns."""
    expert = tl.program_id(1).to(tl.int64)
    if LISTED:
        expert = tl.load(shortlist + tl.program_id(1)).to(tl.int64)
    pairs = _met(index, weights, expert, tokens, chosen, TOKENS, PLACES)
    count = tl.sum((pairs >= 0).to(tl.int32), 0)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    gate = gate_up + (expert * 2 * width + column)[:, None] * hidden
    up = gate + width.to(tl.int64) * hidden
    for first in range(0, count, ROWS):
        pair = _rows(pairs, first, ROWS)
        token = x + (pair // chosen).to(tl.int64)[:, None] * hidden
        gates = tl.zeros([ROWS, COLUMNS], tl.float32)
        ups = tl.zeros([ROWS, COLUMNS], tl.float32)
        for begin in range(0, hidden, DEPTH):
            depth = begin + tl.arange(0, DEPTH)
            within = (depth < hidden)[None, :]
            read = tl.load(token + depth[None, :], mask=(pair >= 0)[:, None] & within, other=0.0)
            of_weights = inside[:, None] & within
            factor = tl.load(gate + depth[None, :], mask=of_weights, other=0.0, eviction_policy="evict_first")
            gates = _add_product(gates, read, factor.T, INTERPRETED)
            factor = tl.load(up + depth[None, :], mask=of_weights, other=0.0, eviction_policy="evict_first")
            ups = _add_product(ups, read, factor.T, INTERPRETED)
        found = gates / (1 + tl.exp(-gates)) * ups
        place = inner + pair.to(tl.int64)[:, None] * width + column[None, :]
        tl.store(place, found.to(inner.dtype.element_ty), mask=(pair >= 0)[:, None] & inside[None, :])


@triton.jit(do_not_specialize=["tokens", "chosen"])
def _down(
    inner: tl.tensor,
    down: tl.tensor,
    index: tl.tensor,
    weights: tl.tensor,
    shortlist: tl.tensor,
    parts: tl.tensor,
    tokens: tl.tensor,
    chosen: tl.tensor,
    hidden: tl.tensor,
    width: tl.tensor,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TOKENS: tl.constexpr,
    PLACES: tl.constexpr,
    LISTED: tl.constexpr,
    ROWS: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """What one expert gives to all its tokens, in one block of the output's columns, a row for each pair."""
    expert = tl.program_id(1).to(tl.int64)
    if LISTED:
        expert = tl.load(shortlist + tl.program_id(1)).to(tl.int64)
    pairs = _met(index, weights, expert, tokens, chosen, TOKENS, PLACES)
    count = tl.sum((pairs >= 0).to(tl.int32), 0)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < hidden
    its_rows = down + (expert * hidden + column)[:, None] * width
    for first in range(0, count, ROWS):
        pair = _rows(pairs, first, ROWS)
        activation = inner + pair.to(tl.int64)[:, None] * width
        sums = tl.zeros([ROWS, COLUMNS], tl.float32)
        for begin in range(0, width, DEPTH):
            depth = begin + tl.arange(0, DEPTH)
            within = (depth < width)[None, :]
            read = tl.load(activation + depth[None, :], mask=(pair >= 0)[:, None] & within, other=0.0)
            factor = tl.load(
                its_rows + depth[None, :], mask=inside[:, None] & within, other=0.0, eviction_policy="evict_first"
            )
            sums = _add_product(sums, read, factor.T, INTERPRETED)
        place = parts + pair.to(tl.int64)[:, None] * hidden + column[None, :]
        tl.store(place, sums, mask=(pair >= 0)[:, None] & inside[None, :])


@triton.jit
def _sum(
    parts: tl.tensor,
    weights: tl.tensor,
    output: tl.tensor,
    chosen: tl.tensor,
    hidden: tl.tensor,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """A token's parts, weighted and added up."""
    place = tl.arange(0, PLACES)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    pair = tl.program_id(0).to(tl.int64) * chosen + place
    weight = tl.load(weights + pair, mask=place < chosen, other=0.0).to(tl.float32)
    # Of weight zero nothing was written.
    there = (weight != 0)[:, None] & (column < hidden)[None, :]
    part = tl.load(parts + pair[:, None] * hidden + column[None, :], mask=there, other=0.0)
    sums = tl.sum(part * weight[:, None], 0)
    its_output = output + tl.program_id(0).to(tl.int64) * hidden
    tl.store(its_output + column, sums.to(output.dtype.element_ty), mask=column < hidden)
