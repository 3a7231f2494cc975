"""Whether something fits into a processor's memory: where it does not, the system ends the process without a word."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vivace_methods.errors import MethodError

_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where Linux writes how much a container may hold, and how much it holds."""


def free_bytes() -> int | None:
    """Memory that is free on this machine and to this container; None where the system does not tell."""
    free = [each for each in (_available(), *(_room(*files) for files in _CONTAINERS)) if each is not None]
    return min(free, default=None)


def require_free(needed: int, device: torch.device, what: str, instead: str) -> None:
    """Refuse what cannot fit into a processor's memory; a GPU says so by itself.

    Args:
        needed: bytes.
        device: on which it is to lie.
        what: the subject of the sentence.
        instead: what to do about it.

    Raises:
        MethodError: not so much is free.
    """
    free = free_bytes() if device.type == "cpu" else None
    if free is not None and needed > free:
        raise MethodError(
            f"{what} needs about {_gigabytes(needed)} of memory, and {_gigabytes(free)} are free: {instead}."
        )


def stored_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Memory that the weights in a folder take in a type of number, from the files' headers; 0 where none are."""
    size: int = dtype.itemsize
    return size * sum(_numbers(file) for file in folder.glob("*.safetensors"))


def _numbers(file: Path) -> int:
    """How many numbers a file of safetensors holds; 0 for one that cannot be read, which whoever loads it says."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        shapes = [each["shape"] for name, each in header.items() if name != "__metadata__"]
        return sum(int(torch.Size(shape).numel()) for shape in shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        return 0


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _room(folder: Path, most: str, held: str) -> int | None:
    try:
        limit, used = (int((folder / name).read_text()) for name in (most, held))
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(count) for name, count in lines if name in ("active_file", "inactive_file"))
    except (OSError, ValueError):  # there is no container, or it has no limit, which is written as `max`
        return None
    return limit - (used - files)  # copies of files make room where it is needed


def _gigabytes(count: int) -> str:
    return f"{max(count, 0) / 1e9:.1f} GB"
