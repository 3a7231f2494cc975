"""What every Triton kernel asks of the device that its input lies on."""

from __future__ import annotations

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
