"""What every Triton kernel asks of the device that its input lies on."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import triton
import triton.language as tl
from triton.runtime import JITFunction

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Types of number that the kernels know."""


@triton.jit
def _nothing(number: tl.constexpr) -> None:
    """Shows by its type whether kernels are compiled or interpreted in this process."""


def require_gpu(device: torch.device) -> None:
    """Refuse what no Triton kernel can run on: anything but a CUDA device, except in Triton's interpreter.

    Kernels call it as `gpu.require_gpu`: tests that compile them without a GPU put another in its place.

    Raises:
        ValueError: another device.
    """
    if device.type != "cuda" and isinstance(_nothing, JITFunction):
        raise ValueError(f"Triton kernels run on a CUDA device, and the input lies on {device}.")


def require_dtype(dtype: torch.dtype) -> None:
    """Refuse types of number that the kernels do not know.

    Raises:
        ValueError: another than those of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"The GPU kernels know bfloat16, float16 and float32, and not {dtype}.")


def processors(device: torch.device) -> int:
    """Of the GPU, that work at the same time; the interpreter has one, and gets some parts to add up nevertheless."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def capability(device: torch.device) -> int:
    """Of the GPU, as 80 or 90; what is interpreted is cut as for the latter."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return int(10 * major + minor)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes kernels launch on a device, while the context lasts."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def channels(size: int, dtype: torch.dtype) -> int:
    """Of a head, that are multiplied together: all, by matrix units; float32 has none, and all would not fit."""
    return 16 if dtype == torch.float32 else max(triton.next_power_of_2(size), 16)


_INTERPRETED = tl.constexpr(not isinstance(_nothing, JITFunction))


@triton.jit
def product(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """The product of two blocks in float32, by matrix units for half precision, and never in TF32.

    Triton's interpreter takes the bits of bfloat16 for whole numbers: there they are widened before, which changes
    no product.
    """
    if _INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")
