"""Sparse matrix-vector products on a GPU: all layers of one input in two launches, their low-rank parts included.

Per token a linear layer is bound by the bytes of its weights, so skipping input channels pays only where nothing else
costs much. The first launch lists, for each layer, the rows to be read: those of the low-rank part, always, and those
of the kept channels. The second walks the lists with a fixed grid, each program its columns of an equal part of a
list, and whoever ends last adds up the parts of its columns in their order. Nothing depends on the order in which
programs run, and the host never learns how long the lists are: two calls give the same bits, and CUDA graphs capture
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu
from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed

SEGMENT = 512
"""Input channels that one program of the first launch lists."""
BLOCK = 4096
"""Input channels that it looks at together where it only counts or sums."""
ROWS = 16
"""Listed rows that a program of the second launch reads together, twice over; half as many for two tokens."""
COLUMN_BYTES = 512
"""Of each row that it reads: enough for every thread of a warp to read 16."""
MOST_COLUMNS = 256
"""Whose sums it holds: more of them, as levels of eight bits would have, do not fit into its registers."""
MOST_SPLITS = 32
"""Parts into which a list is cut at most."""
PROGRAMS = 4
"""Of the second launch, that are to share a processor of the GPU."""
# 128 registers for each thread let four programs of the second launch share a processor. Said, for left to itself the
# assembler aims for fewer, and waits for some weights before it asks for others.
PREPARING = {"num_warps": 8, "maxnreg": 128, "enable_fp_fusion": True}
MULTIPLYING = {"num_warps": 4, "num_stages": 1, "maxnreg": 128, "enable_fp_fusion": True}
_TILE_FIELDS = tl.constexpr(6)


def sparse_gemv(x: torch.Tensor, packed: Packed, *, counts: torch.Tensor | None = None) -> torch.Tensor:
    """The joint output of packed layers, on a GPU: kept channels by their rows, the rest by the low-rank part.

    Sums are in float32 (never TF32), rounded once at the end. The first call for a pack copies a small table to the
    device and may compile: make it before a CUDA graph is captured.

    Args:
        x: shape (tokens, inputs), one or two tokens, of the pack's type and on its device. Two tokens read what
            either of them keeps, and each gets what it would get by itself, up to rounding.
        packed: the layers, of bfloat16, float16 or float32, or in levels of eight bits for inputs of such a type.
        counts: int32, shape (layers,), to which the number of kept channels of all tokens is added; or None.

    Returns:
        Shape (tokens, outputs), of the pack's type. Not-a-number and infinity in a token come out in its outputs.

    Raises:
        ValueError: shapes, types or devices that do not fit.
    """
    _check(x, packed, counts)
    plan = _plans.get(packed)
    if plan is None:
        plan = _plans[packed] = _Plan.of(packed)
    tokens, layers, tiles = x.shape[0], len(packed.linears), plan.tiles.shape[0]

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    # New ones each time: calls on several streams and in several graphs must not share them.
    channels = empty(layers, plan.capacity, dtype=torch.int32)
    values = empty(layers, tokens, plan.capacity, dtype=torch.float32)
    lengths, arrivals = empty(layers, dtype=torch.int32), empty(tiles, dtype=torch.int32)
    partials = empty(tiles, plan.splits, tokens, plan.columns, dtype=torch.float32)
    output = empty(tokens, packed.outputs, dtype=x.dtype)
    with gpu.current(x.device):
        _prepare[(plan.ranked.shape[0] + layers * triton.cdiv(packed.inputs, SEGMENT),)](
            x.contiguous(), packed.limits, packed.down, plan.ranked, plan.ranks,
            channels, values, lengths, arrivals, counts,
            packed.inputs, plan.capacity, plan.ranked.shape[0], tiles,
            TOKENS=tokens, COUNTED=counts is not None, SEGMENT=SEGMENT, BLOCK=BLOCK, **PREPARING,
        )  # fmt: skip
        _multiply[(tiles, plan.splits)](
            packed.rows, packed.scales, packed.bias, plan.tiles, channels, values, lengths, partials, arrivals,
            output, plan.capacity, packed.outputs, plan.splits,
            TOKENS=tokens, SCALED=packed.scales is not None, BIASED=packed.bias is not None, ROWS=ROWS // tokens,
            COLUMNS=plan.columns, MOST_SPLITS=MOST_SPLITS, **MULTIPLYING,
        )  # fmt: skip
    return output


def _check(x: torch.Tensor, packed: Packed, counts: torch.Tensor | None) -> None:
    dtype, device = packed.dtype, packed.rows.device
    if dtype not in gpu.DTYPES:
        raise ValueError(f"The sparse kernel knows bfloat16, float16 and float32; the layers are of {dtype}.")
    if x.ndim != 2 or x.shape[1] != packed.inputs or x.dtype != dtype or x.device != device:
        raise ValueError(
            f"The input has shape {tuple(x.shape)}, type {x.dtype} and device {x.device}; the layers read (tokens, "
            f"{packed.inputs}) of {dtype} on {device}."
        )
    if not 1 <= x.shape[0] <= MOST_TOKENS:
        raise ValueError(f"The sparse kernel takes 1 to {MOST_TOKENS} tokens at once, and {x.shape[0]} were given.")
    wanted = (len(packed.linears),)
    if counts is not None and not (
        (counts.shape, counts.dtype, counts.device) == (wanted, torch.int32, x.device) and counts.is_contiguous()
    ):
        raise ValueError(
            f"The counts have shape {tuple(counts.shape)}, type {counts.dtype} and device {counts.device}; they must "
            f"be contiguous, of shape {wanted} and type torch.int32, on {x.device}."
        )
    gpu.require_gpu(x.device)


@dataclass(frozen=True)
class _Plan:
    """Where the programs find their work: what depends on the shapes of a pack only, on its device.

    Attributes:
        ranked: int32, shape (rows of `down`, 2): the layer of each, and its place in the layer's low-rank part.
        ranks: int32, shape (layers,).
        tiles: int64, shape (tiles, 6): for each block of output columns the layer, the number of `rows` at which it
            begins, the layer's stride, how many columns are read, how many are written, and the place of the first
            among the outputs.
        columns: of a tile.
        splits: parts into which every list is cut.
        capacity: the longest list.
    """

    ranked: torch.Tensor
    ranks: torch.Tensor
    tiles: torch.Tensor
    columns: int
    splits: int
    capacity: int

    @classmethod
    def of(cls, packed: Packed) -> _Plan:
        """The plan of a pack."""
        device, columns = packed.rows.device, min(COLUMN_BYTES // packed.rows.itemsize, MOST_COLUMNS)
        tiles = [
            (
                layer,
                linear.first + start,
                linear.stride,
                min(columns, linear.stride - start),
                min(columns, linear.outputs - start),
                linear.first_output + start,
            )
            for layer, linear in enumerate(packed.linears)
            for start in range(0, linear.outputs, columns)
        ]
        ranks = [linear.rank for linear in packed.linears]
        ranked = [(layer, place) for layer, rank in enumerate(ranks) for place in range(rank)]
        return cls(
            ranked=torch.tensor(ranked, dtype=torch.int32, device=device).view(-1, 2),
            ranks=torch.tensor(ranks, dtype=torch.int32, device=device),
            tiles=torch.tensor(tiles, dtype=torch.int64, device=device),
            columns=columns,
            splits=min(max(PROGRAMS * gpu.processors(device) // len(tiles), 1), MOST_SPLITS),
            capacity=-(-(packed.inputs + max(ranks)) // 16) * 16,
        )


_plans: WeakKeyDictionary[Packed, _Plan] = WeakKeyDictionary()


@triton.jit
def _kept(x: tl.tensor, limits: tl.tensor, channels: tl.tensor, inside: tl.tensor) -> tl.tuple:
    # Written so that not-a-number is kept. What is outside is not.
    value = tl.load(x + channels, mask=inside, other=0.0).to(tl.float32)
    limit = tl.load(limits + channels, mask=inside, other=float("inf"))
    return (tl.abs(value) <= limit) == 0, value


@triton.jit(do_not_specialize=["rank_rows", "tiles"])
def _prepare(
    x: tl.tensor,
    limits: tl.tensor,
    down: tl.tensor,
    ranked: tl.tensor,
    ranks: tl.tensor,
    channels: tl.tensor,
    values: tl.tensor,
    lengths: tl.tensor,
    arrivals: tl.tensor,
    counts: tl.tensor,
    inputs: tl.tensor,
    capacity: tl.tensor,
    rank_rows: tl.tensor,
    tiles: tl.tensor,
    TOKENS: tl.constexpr,
    COUNTED: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write the lists: one program for each row of `down`, then one for each segment of channels of each layer."""
    program = tl.program_id(0)
    if program < rank_rows:
        _low_rank(x, down, ranked, channels, values, inputs, capacity, program, TOKENS, BLOCK)
    else:
        segments = tl.cdiv(inputs, SEGMENT)
        layer, first = (program - rank_rows) // segments, (program - rank_rows) % segments * SEGMENT
        _compact(
            x, limits + layer.to(tl.int64) * inputs, tl.load(ranks + layer), channels + layer * capacity,
            values + layer * TOKENS * capacity, lengths + layer, counts, layer, inputs, capacity, first,
            TOKENS, COUNTED, SEGMENT, BLOCK,
        )  # fmt: skip
    if program == tl.num_programs(0) - 1:
        for start in range(0, tiles, SEGMENT):
            tile = start + tl.arange(0, SEGMENT)
            tl.store(arrivals + tile, tl.zeros([SEGMENT], tl.int32), mask=tile < tiles)


@triton.jit
def _low_rank(
    x: tl.tensor,
    down: tl.tensor,
    ranked: tl.tensor,
    channels: tl.tensor,
    values: tl.tensor,
    inputs: tl.tensor,
    capacity: tl.tensor,
    row: tl.tensor,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """List one row of the low-rank part, with its row of `down` times x."""
    layer, place = tl.load(ranked + 2 * row), tl.load(ranked + 2 * row + 1)
    factors = down + row.to(tl.int64) * inputs
    sums = tl.zeros([BLOCK], tl.float32)
    others = tl.zeros([BLOCK], tl.float32)
    for start in range(0, inputs, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        inside = channel < inputs
        factor = tl.load(factors + channel, mask=inside, other=0.0).to(tl.float32)
        sums += factor * tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
        if TOKENS == 2:
            others += factor * tl.load(x + inputs + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(channels + layer * capacity + place, inputs + place)
    its_values = values + layer * TOKENS * capacity + place
    tl.store(its_values, tl.sum(sums, 0))
    if TOKENS == 2:
        tl.store(its_values + capacity, tl.sum(others, 0))


@triton.jit
def _compact(
    x: tl.tensor,
    limits: tl.tensor,
    rank: tl.tensor,
    channels: tl.tensor,
    values: tl.tensor,
    length: tl.tensor,
    counts: tl.tensor,
    layer: tl.tensor,
    inputs: tl.tensor,
    capacity: tl.tensor,
    first: tl.tensor,
    TOKENS: tl.constexpr,
    COUNTED: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """List the kept channels of one segment, behind the low-rank part and the kept ones of earlier segments.

    Each program counts these anew: that is cheaper than to wait for another, and gives every channel a place that
    does not depend on who comes first.
    """
    earlier = tl.zeros([BLOCK], tl.int32)
    for start in range(0, first, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        kept, _ = _kept(x, limits, channel, channel < first)
        if TOKENS == 2:
            other_kept, _ = _kept(x + inputs, limits, channel, channel < first)
            kept = kept | other_kept
        earlier += kept.to(tl.int32)
    begin = rank + tl.sum(earlier, 0)
    channel = first + tl.arange(0, SEGMENT)
    kept, value = _kept(x, limits, channel, channel < inputs)
    listed = kept
    kept_count = tl.sum(kept.to(tl.int32), 0)
    if TOKENS == 2:
        other_kept, other_value = _kept(x + inputs, limits, channel, channel < inputs)
        listed = kept | other_kept
        kept_count += tl.sum(other_kept.to(tl.int32), 0)
    place = begin + tl.cumsum(listed.to(tl.int32), 0) - 1
    tl.store(channels + place, channel, mask=listed)
    # Zero for a token that does not keep the channel, by choice and not by product: it may be infinite.
    tl.store(values + place, tl.where(kept, value, 0.0), mask=listed)
    if TOKENS == 2:
        tl.store(values + capacity + place, tl.where(other_kept, other_value, 0.0), mask=listed)
    if first + SEGMENT >= inputs:
        tl.store(length, begin + tl.sum(listed.to(tl.int32), 0))
    if COUNTED:
        tl.atomic_add(counts + layer, kept_count)  # of whole numbers: the order does not matter


@triton.jit(do_not_specialize=["splits"])
def _multiply(
    rows: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    tiles: tl.tensor,
    channels: tl.tensor,
    values: tl.tensor,
    lengths: tl.tensor,
    partials: tl.tensor,
    arrivals: tl.tensor,
    output: tl.tensor,
    capacity: tl.tensor,
    outputs: tl.tensor,
    splits: tl.tensor,
    TOKENS: tl.constexpr,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
) -> None:
    """Add up the rows of one part of a list in one block of columns; the block's last program joins the parts."""
    tile, split = tl.program_id(0), tl.program_id(1)
    record = tiles + tile * _TILE_FIELDS
    layer = tl.load(record).to(tl.int32)
    # All rows begin at a multiple of 16 numbers: said so that reads are of 16 bytes.
    first, stride = tl.multiple_of(tl.load(record + 1), 16), tl.multiple_of(tl.load(record + 2), 16)
    read = tl.multiple_of(tl.load(record + 3).to(tl.int32), 16)
    written, place = tl.load(record + 4).to(tl.int32), tl.load(record + 5)
    length = tl.load(lengths + layer)
    begin, end = split * length // splits, (split + 1) * length // splits
    listed_rows, listed_values = channels + layer * capacity, values + layer * TOKENS * capacity
    other_values = listed_values + (TOKENS - 1) * capacity
    columns = tl.arange(0, COLUMNS)
    block, readable = rows + first + columns[None, :], (columns < read)[None, :]
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    others = tl.zeros([ROWS, COLUMNS], tl.float32)
    # The lists are fetched one round ahead: weights should not have to wait for their addresses.
    entry = begin + tl.arange(0, ROWS)
    near, near_value = _entries(listed_rows, listed_values, entry, end)
    far, far_value = _entries(listed_rows, listed_values, entry + ROWS, end)
    for start in range(begin, end, 2 * ROWS):
        near_weights = _weights(block, near, stride, readable)
        far_weights = _weights(block, far, stride, readable)
        entry = start + tl.arange(0, ROWS)
        if TOKENS == 2:
            _, near_other = _entries(listed_rows, other_values, entry, end)
            _, far_other = _entries(listed_rows, other_values, entry + ROWS, end)
        next_near, next_near_value = _entries(listed_rows, listed_values, entry + 2 * ROWS, end)
        next_far, next_far_value = _entries(listed_rows, listed_values, entry + 3 * ROWS, end)
        sums += near_weights * near_value[:, None] + far_weights * far_value[:, None]
        if TOKENS == 2:
            others += near_weights * near_other[:, None] + far_weights * far_other[:, None]
        near, near_value, far, far_value = next_near, next_near_value, next_far, next_far_value
    inside = columns < written
    if splits == 1:
        _finish(tl.sum(sums, 0), scales, bias, output, place + columns, inside, SCALED, BIASED)
        if TOKENS == 2:
            _finish(tl.sum(others, 0), scales, bias, output + outputs, place + columns, inside, SCALED, BIASED)
    else:
        parts_of_tile = partials + tile.to(tl.int64) * splits * TOKENS * COLUMNS + columns
        mine = parts_of_tile + split * TOKENS * COLUMNS
        tl.store(mine, tl.sum(sums, 0))
        if TOKENS == 2:
            tl.store(mine + COLUMNS, tl.sum(others, 0))
        tl.debug_barrier()  # every thread has written before one of them says so
        if tl.atomic_add(arrivals + tile, 1, sem="acq_rel") == splits - 1:
            part = tl.arange(0, MOST_SPLITS)[:, None]
            for token in tl.static_range(TOKENS):
                found = tl.load(
                    parts_of_tile[None, :] + (part * TOKENS + token) * COLUMNS, mask=part < splits, other=0.0,
                    cache_modifier=".cg",
                )  # fmt: skip
                its_output = output + token * outputs
                _finish(tl.sum(found, 0), scales, bias, its_output, place + columns, inside, SCALED, BIASED)


@triton.jit
def _entries(rows: tl.tensor, values: tl.tensor, entry: tl.tensor, end: tl.tensor) -> tl.tuple:
    """Rows of a list and their values for one token; behind the end, row -1 and zero."""
    return tl.load(rows + entry, mask=entry < end, other=-1), tl.load(values + entry, mask=entry < end, other=0.0)


@triton.jit
def _weights(block: tl.tensor, row: tl.tensor, stride: tl.tensor, readable: tl.tensor) -> tl.tensor:
    """Some rows of a block of columns. They pass through the cache once, and should push nothing else out of it."""
    places, mask = block + row.to(tl.int64)[:, None] * stride, (row >= 0)[:, None] & readable
    return tl.load(places, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def _finish(
    total: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    places: tl.tensor,
    inside: tl.tensor,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
) -> None:
    """Make numbers of levels, add the bias, round once, and write."""
    if SCALED:
        total *= tl.load(scales + places, mask=inside, other=0.0)
    if BIASED:
        total += tl.load(bias + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + places, total.to(output.dtype.element_ty), mask=inside)
