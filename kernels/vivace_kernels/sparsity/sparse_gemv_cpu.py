"""Sparse matrix-vector products on a processor: three ways to the same numbers, the fastest of which is taken."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from vivace_kernels.native import native
from vivace_kernels.probing import probe_ways
from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed, PackedLinear, masked_product

CpuPath = Literal["native", "embedding-bag", "masked"]
"""`native` is compiled C++; `embedding-bag` reads kept rows through torch's embedding bag; `masked` multiplies
everything, with zeros for what is not kept: as dense as dense, and for as many tokens as one likes."""

SOURCE = Path(__file__).with_name("sparse_gemv.cpp")
BAGS = 4
"""Parts of a row that are summed in parallel by the embedding bag."""

_Key = tuple[int, tuple[PackedLinear, ...], torch.dtype, torch.dtype, int, int]
_chosen: dict[_Key, CpuPath] = {}
_arguments: WeakKeyDictionary[Packed, _Arguments] = WeakKeyDictionary()


def sparse_gemv_cpu(
    x: torch.Tensor, packed: Packed, *, counts: torch.Tensor | None = None, path: CpuPath | None = None
) -> torch.Tensor:
    """The joint output of packed layers, on a processor.

    Args:
        x: shape (tokens, inputs), of the pack's type; more than two tokens go the masked path.
        packed: the layers.
        counts: int32, shape (layers,), to which the number of kept channels of all tokens is added; or None.
        path: which way to go; None takes the fastest that this machine has for such shapes, as `fastest_path` finds
            it when it meets them first.

    Returns:
        Shape (tokens, outputs), of the pack's type.

    Raises:
        ValueError: shapes or types that do not fit, or a path that this machine has not.
    """
    if x.ndim != 2 or x.shape[1] != packed.inputs or x.dtype != packed.dtype:
        raise ValueError(
            f"The input has shape {tuple(x.shape)} and type {x.dtype}; the layers read (tokens, {packed.inputs}) of "
            f"{packed.dtype}."
        )
    if path is None:
        path = fastest_path(x, packed)
    if path != "masked" and x.shape[0] > MOST_TOKENS:
        raise ValueError(f"The path {path} takes up to {MOST_TOKENS} tokens at once, and {x.shape[0]} were given.")
    return _PATHS[path](x, packed, counts)


def fastest_path(x: torch.Tensor, packed: Packed) -> CpuPath:
    """The fastest way to an input's output on this machine; found once for shapes like these, and remembered.

    No path is taken that was not tried: a compiled one may do badly on a machine that others keep busy.
    """
    if x.shape[0] > MOST_TOKENS:
        return "masked"
    key = (packed.inputs, packed.linears, packed.dtype, packed.rows.dtype, x.shape[0], torch.get_num_threads())
    if key not in _chosen:
        tried: list[CpuPath] = ["masked"] if packed.scales is not None else ["embedding-bag", "masked"]
        if native_reason(packed.dtype) is None:
            tried.insert(0, "native")
        probed = probe_ways({path: partial(_tried, _PATHS[path], x, packed) for path in tried})
        _chosen[key] = next(path for path in tried if path == probed.fastest)
    return _chosen[key]


def _tried(call: _Path, x: torch.Tensor, packed: Packed, turn: int) -> torch.Tensor:
    return call(x, packed, None)


def native_reason(dtype: torch.dtype) -> str | None:
    """Why there is no compiled path for a type of number on this machine; None where there is one."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"The compiled path knows float32 and bfloat16, and not {dtype}."
    found = native(SOURCE)
    return None if found.library is not None else found.reason


def compiled_function(name: str, dtype: torch.dtype, *, levels: bool) -> Any:
    """A function of the compiled library for a type of number of which `native_reason` has nothing to say.

    Args:
        name: of the function.
        dtype: of inputs and outputs.
        levels: whether it reads weights of eight bits; or those of that type.
    """
    library = native(SOURCE).library
    assert library is not None
    return library[f"{name}_{str(dtype).removeprefix('torch.')}{'_int8' if levels else ''}"]


def _masked(x: torch.Tensor, packed: Packed, counts: torch.Tensor | None) -> torch.Tensor:
    return masked_product(x, packed, counts=counts)


def _embedding_bag(x: torch.Tensor, packed: Packed, counts: torch.Tensor | None) -> torch.Tensor:
    """Each row is cut into bags, which embedding bag sums in parallel without copying any of it."""
    if packed.scales is not None:
        raise ValueError("The embedding bag knows no levels of eight bits; the paths native and masked do.")
    kept = packed.kept(x)
    if counts is not None:
        counts += kept.sum((1, 2), dtype=counts.dtype)
    tokens = []
    for token, one in enumerate(x):
        parts = []
        for linear, its_kept in zip(packed.linears, kept[:, token], strict=True):
            places = its_kept.nonzero().squeeze(1)
            values = one[places]
            if linear.rank:
                places = torch.cat((places, torch.arange(packed.inputs, packed.inputs + linear.rank)))
                values = torch.cat((values, packed.down_of(linear) @ one))
            if not len(places):
                parts.append(x.new_zeros(linear.outputs))
                continue
            bagged = packed.rows_of(linear).view(-1, linear.stride // BAGS)
            indices = places * BAGS + torch.arange(BAGS).unsqueeze(1)
            weights = values.expand(BAGS, -1)
            part = torch.nn.functional.embedding_bag(indices, bagged, mode="sum", per_sample_weights=weights)
            parts.append(part.view(-1)[: linear.outputs])
        tokens.append(torch.cat(parts))
    joint = torch.stack(tokens)
    return joint if packed.bias is None else joint + packed.bias


class _Arguments:
    """What a pack gives the compiled function, made once."""

    def __init__(self, packed: Packed) -> None:
        self.function = compiled_function("vivace_sparse_gemv", packed.dtype, levels=packed.scales is not None)
        numbers = [number for linear in packed.linears for number in astuple(linear)]
        bias = None if packed.bias is None else ctypes.c_void_p(packed.bias.data_ptr())
        self.outputs = packed.outputs
        self.of_input = (ctypes.c_int64(packed.inputs), (ctypes.c_int64 * len(numbers))(*numbers))
        self.of_weights = (
            ctypes.c_int64(len(packed.linears)),
            ctypes.c_void_p(packed.rows.data_ptr()),
            None if packed.scales is None else ctypes.c_void_p(packed.scales.data_ptr()),
            ctypes.c_void_p(packed.limits.data_ptr()),
            ctypes.c_void_p(packed.down.data_ptr()),
            bias,
        )


def _native(x: torch.Tensor, packed: Packed, counts: torch.Tensor | None) -> torch.Tensor:
    if (reason := native_reason(packed.dtype)) is not None:
        raise ValueError(reason)
    arguments = _arguments.get(packed)
    if arguments is None:
        arguments = _arguments[packed] = _Arguments(packed)
    x = x.contiguous()
    y = torch.empty(x.shape[0], arguments.outputs, dtype=x.dtype)
    code = arguments.function(
        ctypes.c_int(x.shape[0]),
        ctypes.c_void_p(x.data_ptr()),
        *arguments.of_input,
        *arguments.of_weights,
        ctypes.c_void_p(y.data_ptr()),
        None if counts is None else ctypes.c_void_p(counts.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    assert code == 0
    return y


_Path = Callable[[torch.Tensor, Packed, torch.Tensor | None], torch.Tensor]
_PATHS: dict[CpuPath, _Path] = {"native": _native, "embedding-bag": _embedding_bag, "masked": _masked}
