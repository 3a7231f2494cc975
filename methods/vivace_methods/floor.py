"""The floor probe: how fast this device reads, multiplies and starts work, the limit that times are held against."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vivace_methods.stopwatch import Clock, DeviceClock

CPU_READS = (2**26, 2**28)
CUDA_READS = (2**28, 2**30, 2**32)
"""Bytes of the arrays that are read, larger than the usual caches: what fits into one is no read of memory."""
CPU_SIDES = (512, 1024)
CUDA_SIDES = (4096, 8192)
"""Rows of the square matrices that are multiplied."""
CPU_DTYPES = (torch.float32, torch.bfloat16)
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAUNCHES = 500
"""Tiny operations in a row, of which the cost of starting one is taken."""


@dataclass(frozen=True)
class Device:
    """What was probed."""

    name: str
    """Of the processor or the GPU."""
    kind: str
    """`cpu` or `cuda`."""
    threads: int
    """That torch uses on the CPU."""
    torch_version: str

    @classmethod
    def of(cls, device: torch.device) -> Device:
        """The device that torch knows under this name."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        return cls(name, device.type, torch.get_num_threads(), torch.__version__)


@dataclass(frozen=True)
class Floor:
    """The best that a device did in each respect; no arm can be expected to do better."""

    device: Device
    read_bytes_per_s: float
    flops_per_s: Mapping[str, float]
    """Type of number, as `bfloat16` → rate of large matrix products."""
    launch_s: float
    """What one tiny operation costs where many follow one another; it is no part of a floor, for CUDA graphs and
    fused kernels avoid most of it, but it explains what stands above one."""

    def floor_seconds(self, bytes: float, flops: float, dtype: torch.dtype) -> float:
        """The time below which a device like this cannot move and compute so much, the two overlapping wholly.

        Args:
            bytes: read and written.
            flops: two for each multiplication with its addition.
            dtype: of the numbers that are multiplied.

        Raises:
            KeyError: the rate of that type was not probed.
        """
        return max(bytes / self.read_bytes_per_s, flops / self.flops_per_s[dtype_name(dtype)])


def dtype_name(dtype: torch.dtype) -> str:
    """A type of number as people write it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def probe(
    device: torch.device,
    *,
    clock: Clock | None = None,
    reads: Sequence[int] | None = None,
    sides: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    tries: int = 8,
) -> Floor:
    """Probe a device; a few seconds where it is idle.

    Args:
        clock: the device's own if None.
        reads: sizes of the arrays that are read, in bytes; the device's usual ones if None.
        sides: rows of the square matrices; likewise.
        dtypes: types of number to multiply; likewise.
        tries: of each size, of which the best counts.
    """
    cuda = device.type == "cuda"
    timer = clock or DeviceClock(device)
    with torch.inference_mode():
        return Floor(
            device=Device.of(device),
            read_bytes_per_s=max(
                _read_rate(device, timer, size, tries) for size in reads or (CUDA_READS if cuda else CPU_READS)
            ),
            flops_per_s={
                dtype_name(dtype): max(
                    _product_rate(device, timer, side, dtype, tries)
                    for side in sides or (CUDA_SIDES if cuda else CPU_SIDES)
                )
                for dtype in dtypes or (CUDA_DTYPES if cuda else CPU_DTYPES)
            },
            launch_s=_launch_cost(device, timer, tries),
        )


def _read_rate(device: torch.device, clock: Clock, size: int, tries: int) -> float:
    numbers = torch.ones(size // torch.float32.itemsize, device=device)
    return size / _best(clock, lambda: torch.sum(numbers), tries)


def _product_rate(device: torch.device, clock: Clock, side: int, dtype: torch.dtype, tries: int) -> float:
    # Random numbers: a GPU multiplies constant ones with less power, at clocks that real work never sees.
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 / _best(clock, lambda: torch.mm(left, right, out=product), tries)


def _launch_cost(device: torch.device, clock: Clock, tries: int) -> float:
    number = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    return _best(clock, many, tries) / LAUNCHES


def _best(clock: Clock, work: Callable[[], Any], tries: int) -> float:
    """The shortest of some times: what disturbs a machine only ever makes it slower."""
    work()
    times = []
    for _ in range(tries):
        start = clock.now()
        work()
        times.append(clock.now() - start)
    return min(times)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
