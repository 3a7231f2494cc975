"""The floor: the best that a device did, the limit that times are held against."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
        import torch

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

    def best_with(self, other: Floor) -> Floor:
        """The better of two probes of one device in each respect."""
        rates = {**other.flops_per_s, **self.flops_per_s}
        return replace(
            self,
            read_bytes_per_s=max(self.read_bytes_per_s, other.read_bytes_per_s),
            flops_per_s={name: max(rate, other.flops_per_s.get(name, rate)) for name, rate in rates.items()},
            launch_s=min(self.launch_s, other.launch_s),
        )


def dtype_name(dtype: torch.dtype) -> str:
    """A type of number as people write it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
