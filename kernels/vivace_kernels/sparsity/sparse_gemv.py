"""Sparse matrix-vector products on a GPU: all layers of one input in one launch, their low-rank parts included.

Per token a linear layer is bound by the bytes of its weights, so skipping input channels pays only where nothing else
costs much, and a launch costs as much as some megabytes. So every program lists for itself what it is to read: it
counts the kept channels of its layer, and writes down its equal share of them. Of the low-rank part, the first factor
times the input is worked out by all programs of a layer together, some rows each, before anything else; whoever
then ends finds it there, and adds its share of the second factor. Whoever ends before it is there leaves that to
whoever comes last. The last one to end adds up the parts of a block of columns in their order.

No program waits for another, nothing depends on the order in which they run, and the host never learns how long the
lists are: two calls give the same bits, and CUDA graphs capture them.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu
from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed

SCAN = 2048
"""Input channels that a program looks at together while it lists them; half as many for two tokens."""
ROWS = 16
"""Listed rows that it reads together; half as many for two tokens."""
STAGES = 4
"""Of the pipeline through which weights come: three times `ROWS` are on their way while others are added up."""
COLUMN_BYTES = 512
"""Of each row that it reads: enough for every thread of a warp to read 16."""
MOST_COLUMNS = 256
"""Whose sums it holds: more of them, as levels of eight bits would have, do not fit into its registers."""
MOST_SPLITS = 32
"""Parts into which a list is cut at most."""
PROGRAMS = 4
"""That are to share a processor of the GPU."""
# 128 registers for each thread let four programs share a processor. Said, for left to itself the assembler aims for
# fewer, and waits for some weights before it asks for others.
LAUNCHING = {"num_warps": 4, "maxnreg": 128, "enable_fp_fusion": True}
JOINED = tl.constexpr(8)
"""Parts of a list that are added up together."""
_TILE_FIELDS = tl.constexpr(7)
_LAYER_FIELDS = tl.constexpr(4)
# What stands in the word of a block of columns: how many programs have ended, whether the first factor's numbers are
# there, and a bit for each program that ended before they were.
_ENDED = tl.constexpr(63)
_IS_THERE = tl.constexpr(64)
_FIRST_LATER = tl.constexpr(8)


def sparse_gemv(x: torch.Tensor, packed: Packed, *, counts: torch.Tensor | None = None) -> torch.Tensor:
    """The joint output of packed layers, on a GPU: kept channels by their rows, the rest by the low-rank part.

    Sums are in float32 (never TF32), rounded once at the end. The first call for a pack copies small tables to the
    device and may compile: make it before a CUDA graph is captured. Calls for one pack must not run at the same time:
    they share the counters of programs that have ended.

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
    plan = plan_of(packed)
    tokens, tiles = x.shape[0], plan.tiles.shape[0]

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    channels = empty(tiles, plan.splits, plan.capacity, dtype=torch.int32)
    values = empty(tiles, plan.splits, tokens, plan.capacity, dtype=torch.float32)
    coordinates = empty(tokens, max(packed.down.shape[0], 1), dtype=torch.float32)
    partials = empty(tiles, plan.splits, tokens, plan.columns, dtype=torch.float32)
    output = empty(tokens, packed.outputs, dtype=x.dtype)
    with gpu.current(x.device):
        _multiply[(tiles, plan.splits)](
            x.contiguous(), packed.limits, packed.down, packed.rows, packed.scales, packed.bias,
            plan.tiles, plan.layers, channels, values, coordinates, partials, plan.ended, plan.multiplied, counts,
            output, packed.inputs, plan.capacity, packed.outputs, packed.down.shape[0], plan.splits,
            TOKENS=tokens, ALIKE=plan.alike, COUNTED=counts is not None, SCALED=packed.scales is not None,
            BIASED=packed.bias is not None, ROWS=ROWS // tokens, COLUMNS=plan.columns, SCAN=SCAN // tokens,
            STAGES=STAGES, MOST_SPLITS=8 * triton.cdiv(plan.splits, 8), MOST_TILES=plan.most_tiles, **LAUNCHING,
        )  # fmt: skip
    return output


def plan_of(packed: Packed) -> _Plan:
    """Where programs find their work on a pack; made once, and for CUDA graphs before one is captured."""
    plan = _plans.get(packed)
    if plan is None:
        plan = _plans[packed] = _Plan.of(packed)
    return plan


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
    """Where the programs find their work: what depends on a pack only, on its device.

    Attributes:
        tiles: int64, shape (tiles, 7): for each block of output columns the layer, the number of `rows` at which it
            begins, the layer's stride, how many columns are read, how many are written, the place of the first
            among the outputs, and the block's number in its layer.
        layers: int32, shape (layers, 4): rank, first row of `down`, first block of columns, and how many there are.
        columns: of a block.
        splits: parts into which every list is cut.
        ended: int64, shape (tiles,): who has ended, as `_ENDED` and what follows say; zero between two calls.
        multiplied: int32, shape (layers,): rows of the first factors that are multiplied; zero between two calls.
        capacity: of the longest part of a list.
        most_tiles: a power of two, no less than any layer has.
        alike: whether all channels of each layer have the same limit, so that one of them has to be read.
    """

    tiles: torch.Tensor
    layers: torch.Tensor
    ended: torch.Tensor
    multiplied: torch.Tensor
    columns: int
    splits: int
    capacity: int
    most_tiles: int
    alike: bool

    @classmethod
    def of(cls, packed: Packed) -> _Plan:
        """The plan of a pack."""
        device, columns = packed.rows.device, min(COLUMN_BYTES // packed.rows.itemsize, MOST_COLUMNS)
        tiles: list[tuple[int, ...]] = []
        layers: list[tuple[int, ...]] = []
        for layer, linear in enumerate(packed.linears):
            starts = range(0, linear.outputs, columns)
            layers.append((linear.rank, linear.first_rank, len(tiles), len(starts)))
            tiles += [
                (
                    layer,
                    linear.first + start,
                    linear.stride,
                    min(columns, linear.stride - start),
                    min(columns, linear.outputs - start),
                    linear.first_output + start,
                    number,
                )
                for number, start in enumerate(starts)
            ]
        splits = min(max(PROGRAMS * gpu.processors(device) // len(tiles), 1), MOST_SPLITS)
        return cls(
            tiles=torch.tensor(tiles, dtype=torch.int64, device=device),
            layers=torch.tensor(layers, dtype=torch.int32, device=device),
            ended=torch.zeros(len(tiles), dtype=torch.int64, device=device),
            multiplied=torch.zeros(len(layers), dtype=torch.int32, device=device),
            columns=columns,
            splits=splits,
            capacity=16 * triton.cdiv(packed.inputs, 16 * splits),
            most_tiles=triton.next_power_of_2(max(count for *_, count in layers)),
            alike=bool((packed.limits == packed.limits[:, :1]).all()),
        )


_plans: WeakKeyDictionary[Packed, _Plan] = WeakKeyDictionary()


@triton.jit(do_not_specialize=["splits"])
def _multiply(
    x: tl.tensor,
    limits: tl.tensor,
    down: tl.tensor,
    rows: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    tiles: tl.tensor,
    layers: tl.tensor,
    channels: tl.tensor,
    values: tl.tensor,
    coordinates: tl.tensor,
    partials: tl.tensor,
    ended: tl.tensor,
    multiplied: tl.tensor,
    counts: tl.tensor,
    output: tl.tensor,
    inputs: tl.tensor,
    capacity: tl.tensor,
    outputs: tl.tensor,
    ranks: tl.tensor,
    splits: tl.tensor,
    TOKENS: tl.constexpr,
    ALIKE: tl.constexpr,
    COUNTED: tl.constexpr,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCAN: tl.constexpr,
    STAGES: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
    MOST_TILES: tl.constexpr,
) -> None:
    """Add up the rows of one part of a list in one block of columns; the block's last program joins the parts."""
    tile, split = tl.program_id(0), tl.program_id(1)
    record = tiles + tile * _TILE_FIELDS
    layer, number = tl.load(record).to(tl.int32), tl.load(record + 6).to(tl.int32)
    about = layers + layer * _LAYER_FIELDS
    rank, first_rank, first_tile, count = (
        tl.load(about), tl.load(about + 1), tl.load(about + 2), tl.load(about + 3)
    )  # fmt: skip
    its = tl.arange(0, MOST_TILES)
    left = tl.zeros([MOST_TILES], tl.int64)
    if rank > 0:  # noqa: SIM102 (Triton's `and` would call it)
        if _first_factor(
            x, down, coordinates, multiplied + layer, number * splits + split, count * splits, rank, first_rank,
            inputs, ranks, TOKENS, SCAN,
        ):  # fmt: skip
            before = tl.atomic_add(ended + first_tile + its, _IS_THERE, mask=its < count, sem="acq_rel")
            left = tl.where((its < count) & ((before & _ENDED) == splits), before, left)
    program = tile * splits + split
    listed, listed_values = channels + program * capacity, values + program * TOKENS * capacity
    length = _list(
        x, limits + layer * inputs, listed, listed_values, counts + layer if COUNTED else x, inputs, capacity, split,
        splits, number, TOKENS, ALIKE, COUNTED, SCAN,
    )  # fmt: skip
    tl.debug_barrier()  # every thread has written its entries before any of them is read
    # All rows begin at a multiple of 16 numbers: said so that reads are of 16 bytes.
    begins, stride = tl.multiple_of(tl.load(record + 1), 16), tl.multiple_of(tl.load(record + 2), 16)
    read = tl.multiple_of(tl.load(record + 3).to(tl.int32), 16)
    columns = tl.arange(0, COLUMNS)
    block, readable = rows + begins + columns[None, :], (columns < read)[None, :]
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    others = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, length, ROWS, num_stages=STAGES):
        entry = start + tl.arange(0, ROWS)
        row = tl.load(listed + entry, mask=entry < length, other=-1)
        weights = _weights(block, row, stride, readable)
        sums += weights * tl.load(listed_values + entry, mask=entry < length, other=0.0)[:, None]
        if TOKENS == 2:
            others += weights * tl.load(listed_values + capacity + entry, mask=entry < length, other=0.0)[:, None]
    mine = partials + program.to(tl.int64) * TOKENS * COLUMNS + columns
    tl.store(mine, tl.sum(sums, 0))
    if TOKENS == 2:
        tl.store(mine + COLUMNS, tl.sum(others, 0))
    word = tl.full([], 1, tl.int64)
    if rank > 0:
        if (tl.atomic_add(ended + tile, 0, sem="acquire") & _IS_THERE) != 0:
            _second_factor(
                block + inputs.to(tl.int64) * stride, coordinates + first_rank, mine, stride, readable, split, splits,
                rank, ranks, TOKENS, ROWS, COLUMNS,
            )  # fmt: skip
        else:
            word += tl.full([], 1, tl.int64) << (_FIRST_LATER + split)
    tl.debug_barrier()  # every thread has written before one of them says so
    before = tl.atomic_add(ended + tile, word, sem="acq_rel")
    is_last = ((before & _ENDED) == splits - 1) & ((rank == 0) | ((before & _IS_THERE) != 0))
    # Blocks that had ended before the first factor was there are joined by whoever was the last to work on that.
    others_are_left = tl.max(left, 0) > 0
    left = tl.where((first_tile + its == tile) & is_last, before + word, left)
    if is_last | others_are_left:
        own = tile - first_tile
        for each in range(tl.where(others_are_left, 0, own), tl.where(others_are_left, count, own + 1)):
            its_word = tl.sum(tl.where(its == each, left, 0), 0)
            if its_word > 0:
                _join(
                    rows, scales, bias, tiles, coordinates, partials, ended, output, first_tile + each, its_word,
                    rank, first_rank, inputs, outputs, ranks, splits, TOKENS, SCALED, BIASED, ROWS, COLUMNS,
                    MOST_SPLITS,
                )  # fmt: skip


@triton.jit
def _first_factor(
    x: tl.tensor,
    down: tl.tensor,
    coordinates: tl.tensor,
    multiplied: tl.tensor,
    place: tl.tensor,
    places: tl.tensor,
    rank: tl.tensor,
    first_rank: tl.tensor,
    inputs: tl.tensor,
    ranks: tl.tensor,
    TOKENS: tl.constexpr,
    SCAN: tl.constexpr,
) -> tl.tensor:
    """Multiply a layer's rows of `down` that fall to this program; tells whether they were the last to be missing."""
    is_last = False
    if place < rank:
        for row in range(place, rank, places):
            factors = down + (first_rank + row).to(tl.int64) * inputs
            sums = tl.zeros([SCAN], tl.float32)
            others = tl.zeros([SCAN], tl.float32)
            for start in range(0, inputs, SCAN):
                channel = start + tl.arange(0, SCAN)
                inside = channel < inputs
                factor = tl.load(factors + channel, mask=inside, other=0.0).to(tl.float32)
                sums += factor * tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
                if TOKENS == 2:
                    others += factor * tl.load(x + inputs + channel, mask=inside, other=0.0).to(tl.float32)
            tl.store(coordinates + first_rank + row, tl.sum(sums, 0))
            if TOKENS == 2:
                tl.store(coordinates + ranks + first_rank + row, tl.sum(others, 0))
        mine = (rank - place + places - 1) // places
        tl.debug_barrier()
        is_last = tl.atomic_add(multiplied, mine, sem="acq_rel") + mine == rank
        if is_last:
            tl.store(multiplied, 0)  # for the next call
    return is_last


@triton.jit
def _kept(x: tl.tensor, limits: tl.tensor, channels: tl.tensor, inside: tl.tensor, ALIKE: tl.constexpr) -> tl.tuple:
    # Written so that not-a-number is kept. What is outside is not.
    value = tl.load(x + channels, mask=inside, other=0.0).to(tl.float32)
    if ALIKE:  # noqa: SIM108 (not both are compiled)
        limit = tl.load(limits)
    else:
        limit = tl.load(limits + channels, mask=inside, other=float("inf"))
    return ((tl.abs(value) <= limit) == 0) & inside, value


@triton.jit
def _list(
    x: tl.tensor,
    limits: tl.tensor,
    listed: tl.tensor,
    listed_values: tl.tensor,
    counts: tl.tensor,
    inputs: tl.tensor,
    capacity: tl.tensor,
    split: tl.tensor,
    splits: tl.tensor,
    number: tl.tensor,
    TOKENS: tl.constexpr,
    ALIKE: tl.constexpr,
    COUNTED: tl.constexpr,
    SCAN: tl.constexpr,
) -> tl.tensor:
    """List one of the equal parts of the kept channels, in their order; gives its length.

    All programs of a layer count all of its channels: that is cheaper than to wait for another program's list.
    """
    some = tl.zeros([SCAN], tl.int32)
    all_kept = tl.zeros([SCAN], tl.int32)
    for start in range(0, inputs, SCAN):
        channel = start + tl.arange(0, SCAN)
        kept, _ = _kept(x, limits, channel, channel < inputs, ALIKE)
        all_kept += kept.to(tl.int32)
        if TOKENS == 2:
            other_kept, _ = _kept(x + inputs, limits, channel, channel < inputs, ALIKE)
            all_kept += other_kept.to(tl.int32)
            kept = kept | other_kept
        some += kept.to(tl.int32)
    length = tl.sum(some, 0)
    if COUNTED:  # noqa: SIM102 (known when it is compiled)
        if (number == 0) & (split == 0):
            tl.atomic_add(counts, tl.sum(all_kept, 0))  # of whole numbers: the order does not matter
    begin, end = split * length // splits, (split + 1) * length // splits
    before = -begin
    for start in range(0, inputs, SCAN):
        channel = start + tl.arange(0, SCAN)
        kept, value = _kept(x, limits, channel, channel < inputs, ALIKE)
        either = kept
        if TOKENS == 2:
            other_kept, other_value = _kept(x + inputs, limits, channel, channel < inputs, ALIKE)
            either = kept | other_kept
        place = before + tl.cumsum(either.to(tl.int32), 0) - 1
        mine = either & (place >= 0) & (place < end - begin)
        tl.store(listed + place, channel, mask=mine)
        # Zero for a token that does not keep the channel, by choice and not by product: it may be infinite.
        tl.store(listed_values + place, tl.where(kept, value, 0.0), mask=mine)
        if TOKENS == 2:
            tl.store(listed_values + capacity + place, tl.where(other_kept, other_value, 0.0), mask=mine)
        before += tl.sum(either.to(tl.int32), 0)
    return end - begin


@triton.jit
def _second_factor(
    block: tl.tensor,
    coordinates: tl.tensor,
    partial: tl.tensor,
    stride: tl.tensor,
    readable: tl.tensor,
    split: tl.tensor,
    splits: tl.tensor,
    rank: tl.tensor,
    ranks: tl.tensor,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Add one part of the low-rank part's rows in a block of columns to the sums that were written for that part."""
    tl.debug_barrier()
    end = (split + 1) * rank // splits
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    others = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(split * rank // splits, end, ROWS):
        row = start + tl.arange(0, ROWS)
        # Others have written the numbers just now: a processor's own cache may hold what stood there before.
        value = tl.load(coordinates + row, mask=row < end, other=0.0, cache_modifier=".cg")
        weights = _weights(block, tl.where(row < end, row, -1), stride, readable)
        sums += weights * value[:, None]
        if TOKENS == 2:
            other = tl.load(coordinates + ranks + row, mask=row < end, other=0.0, cache_modifier=".cg")
            others += weights * other[:, None]
    tl.store(partial, tl.load(partial, cache_modifier=".cg") + tl.sum(sums, 0))
    if TOKENS == 2:
        tl.store(partial + COLUMNS, tl.load(partial + COLUMNS, cache_modifier=".cg") + tl.sum(others, 0))


@triton.jit
def _join(
    rows: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    tiles: tl.tensor,
    coordinates: tl.tensor,
    partials: tl.tensor,
    ended: tl.tensor,
    output: tl.tensor,
    tile: tl.tensor,
    word: tl.tensor,
    rank: tl.tensor,
    first_rank: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    ranks: tl.tensor,
    splits: tl.tensor,
    TOKENS: tl.constexpr,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
) -> None:
    """Add up all parts of a block of columns, in their order, and first of all what others left to do."""
    record = tiles + tile * _TILE_FIELDS
    begins, stride = tl.multiple_of(tl.load(record + 1), 16), tl.multiple_of(tl.load(record + 2), 16)
    read = tl.multiple_of(tl.load(record + 3).to(tl.int32), 16)
    written, place = tl.load(record + 4).to(tl.int32), tl.load(record + 5)
    columns = tl.arange(0, COLUMNS)
    parts = partials + tile.to(tl.int64) * splits * TOKENS * COLUMNS + columns
    if (word >> _FIRST_LATER) != 0:
        block = rows + begins + inputs.to(tl.int64) * stride + columns[None, :]
        for split in range(splits):
            if ((word >> (_FIRST_LATER + split)) & 1) != 0:
                _second_factor(
                    block, coordinates + first_rank, parts + split * TOKENS * COLUMNS, stride,
                    (columns < read)[None, :], split, splits, rank, ranks, TOKENS, ROWS, COLUMNS,
                )  # fmt: skip
        tl.debug_barrier()
    inside = columns < written
    for token in tl.static_range(TOKENS):
        total = tl.zeros([COLUMNS], tl.float32)
        for start in tl.static_range(0, MOST_SPLITS, JOINED):
            part = start + tl.arange(0, JOINED)[:, None]
            places = parts[None, :] + (part * TOKENS + token) * COLUMNS
            total += tl.sum(tl.load(places, mask=part < splits, other=0.0, cache_modifier=".cg"), 0)
        if SCALED:
            total *= tl.load(scales + place + columns, mask=inside, other=0.0)
        if BIASED:
            total += tl.load(bias + place + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(output + token * outputs + place + columns, total.to(output.dtype.element_ty), mask=inside)
    tl.store(ended + tile, tl.full([], 0, tl.int64))  # for the next call


@triton.jit
def _weights(block: tl.tensor, row: tl.tensor, stride: tl.tensor, readable: tl.tensor) -> tl.tensor:
    """Some rows of a block of columns. They pass through the cache once, and should push nothing else out of it."""
    places, mask = block + row.to(tl.int64)[:, None] * stride, (row >= 0)[:, None] & readable
    return tl.load(places, mask=mask, other=0, eviction_policy="evict_first").to(tl.float32)
