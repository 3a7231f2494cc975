"""Products of weights that lie by output, on a processor: the rows of outputs that are not wanted are not read."""

from __future__ import annotations

import ctypes

import torch

from vivace_kernels.sparsity.sparse_gemv_cpu import compiled_function, native_reason


def row_gemv_cpu(
    x: torch.Tensor,
    weight: torch.Tensor,
    kept: torch.Tensor | None,
    bias: torch.Tensor | None,
    scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """The wanted outputs of a linear layer; the others are zero.

    Without a compiler all rows are read: collecting some of them costs more than that.

    Args:
        x: shape (tokens, inputs).
        weight: shape (outputs, inputs), of the same type; or int8, of levels.
        kept: bool, shape (tokens, outputs); None wants all of them.
        bias: shape (outputs,), or None.
        scales: float32, shape (outputs,), what the levels of an output are multiplied with; None without levels.

    Returns:
        Shape (tokens, outputs).
    """
    if native_reason(x.dtype) is not None or not weight.is_contiguous():
        if scales is not None:
            weight = weight.to(x.dtype) * scales.to(x.dtype).unsqueeze(1)
        whole = torch.nn.functional.linear(x, weight, bias)
        return whole if kept is None else torch.where(kept, whole, 0)
    x = x.contiguous()
    kept = None if kept is None else kept.contiguous()
    y = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype)
    compiled_function("vivace_row_gemv", x.dtype, levels=scales is not None)(
        ctypes.c_int64(x.shape[0]),
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_int64(weight.shape[1]),
        ctypes.c_int64(weight.shape[0]),
        ctypes.c_void_p(weight.data_ptr()),
        None if scales is None else ctypes.c_void_p(scales.data_ptr()),
        None if kept is None else ctypes.c_void_p(kept.data_ptr()),
        None if bias is None else ctypes.c_void_p(bias.data_ptr()),
        ctypes.c_void_p(y.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return y
