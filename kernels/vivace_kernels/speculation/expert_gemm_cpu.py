"""Products of a mixture's experts on a processor: several ways to the same numbers, the fastest of which is taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch.nn.functional import silu

from vivace_kernels.dense_gemv_cpu import DenseProduct, dense_gemv_cpu, fastest_product
from vivace_kernels.probing import Probed, probe_ways

ExpertWay = Literal["grouped", "loop", "vectors"]
"""`grouped` is torch's `grouped_mm`, one call for all experts; `loop` multiplies one expert after the other; so does
`vectors`, for a single token, with the processor's fastest product of a matrix and a vector."""

_chosen: dict[tuple[object, ...], Probed] = {}


def expert_gemm_cpu(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    *,
    way: ExpertWay | None = None,
) -> torch.Tensor:
    """Each token through its experts, on a processor; the arguments and the result are those of `expert_product`.

    Args:
        way: which way to go; None takes the fastest on this machine for as many tokens and experts, found when they
            are first met, and remembered.
    """
    if not len(x):
        return torch.zeros_like(x)
    found = _WAYS[way or fastest_way(x, gate_up, down, index)](x, gate_up, down, index, weights)
    return found.to(x.dtype)


def fastest_way(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor) -> ExpertWay:
    """The fastest way on this machine for about as many tokens; found once for shapes like these, and remembered."""
    tokens, chosen = index.shape
    about = 1 << (tokens - 1).bit_length()
    key = (about, chosen, tuple(down.shape), x.dtype, torch.get_num_threads())
    ways: list[ExpertWay] = ["grouped", "loop"] if tokens > 1 else ["grouped", "loop", "vectors"]
    if key not in _chosen:
        drawn = torch.Generator().manual_seed(0)
        experts = down.shape[0]
        # Other experts in each round, so that none of them lies in a cache already.
        indices = [
            torch.stack([torch.randperm(experts, generator=drawn)[:chosen] for _ in range(tokens)]) for _ in range(4)
        ]
        with torch.inference_mode():
            _chosen[key] = probe_ways({way: partial(_tried, _WAYS[way], x, gate_up, down, indices) for way in ways})
    return next(way for way in ways if way == _chosen[key].fastest)


def _tried(
    call: _Way, x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, indices: list[torch.Tensor], turn: int
) -> torch.Tensor:
    index = indices[turn % len(indices)]
    return call(x, gate_up, down, index, torch.ones(index.shape))


class _Sorted:
    """The pairs of a token and an expert, those of one expert together; behind them the pairs of weight zero."""

    def __init__(self, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor, experts: int) -> None:
        self._shape, self._weights = (*index.shape, x.shape[1]), weights.float()[..., None]
        flat = torch.where(weights != 0, index, experts).flatten()
        self._order = flat.argsort(stable=True)
        self.counts = torch.zeros(experts + 1, dtype=torch.int32, device=x.device)
        self.counts.scatter_add_(0, flat, self.counts.new_ones(1).expand(flat.shape))
        self.rows = x[self._order // index.shape[1]]

    def joined(self, outputs: torch.Tensor) -> torch.Tensor:
        """Weighted outputs of all pairs, summed over each token's in float32; any number may stand at weight zero."""
        by_token = torch.empty_like(outputs)
        by_token[self._order] = outputs
        return torch.where(self._weights != 0, by_token.view(self._shape) * self._weights, 0).sum(1)


def _grouped(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    pairs = _Sorted(x, index, weights, down.shape[0])
    ends = pairs.counts[:-1].cumsum(0, dtype=torch.int32)
    both = torch.nn.functional.grouped_mm(pairs.rows, gate_up.transpose(1, 2), offs=ends)
    gate, up = both.chunk(2, -1)
    return pairs.joined(torch.nn.functional.grouped_mm(silu(gate) * up, down.transpose(1, 2), offs=ends))


def _loop(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    pairs = _Sorted(x, index, weights, down.shape[0])
    outputs, begin = torch.zeros_like(pairs.rows), 0
    for expert, count in enumerate(pairs.counts[:-1].tolist()):
        if count:
            gate, up = torch.nn.functional.linear(pairs.rows[begin : begin + count], gate_up[expert]).chunk(2, -1)
            outputs[begin : begin + count] = torch.nn.functional.linear(silu(gate) * up, down[expert])
            begin += count
    return pairs.joined(outputs)


def _vectors(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    if len(x) != 1:
        raise ValueError(f"The way vectors takes one token, and {len(x)} were given.")
    for_gate_up, for_down = (cast(DenseProduct, fastest_product(list(each[:8])).fastest) for each in (gate_up, down))
    output = torch.zeros(1, x.shape[1])
    for expert, weight in zip(index[0].tolist(), weights[0].tolist(), strict=True):
        if weight != 0:
            gate, up = dense_gemv_cpu(x, gate_up[expert], None, product=for_gate_up).chunk(2, -1)
            output += weight * dense_gemv_cpu(silu(gate) * up, down[expert], None, product=for_down)
    return output


_Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_WAYS: dict[ExpertWay, _Way] = {"grouped": _grouped, "loop": _loop, "vectors": _vectors}
