"""What all arms of a process share and any of them could change: threads, processors, types of number, clocks."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vivace_methods.timing import stopwatch
from vivace_methods.timing.stopwatch import DeviceClock

_CLOCKS: Mapping[str, tuple[Any, str, object]] = {
    f"{owner.__name__}.{name}": (owner, name, getattr(owner, name))
    for owner, names in (
        (time, ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns", "process_time",
                "thread_time", "sleep")),
        (torch.cuda, ("synchronize",)),
        (DeviceClock, ("now", "read")),
        (stopwatch, ("_perf_counter",)),
    )
    for name in names
}  # fmt: skip
"""What clocks were when this module was imported."""


@dataclass(frozen=True)
class _Setting:
    """One thing of the process: how it is read, and how it is put back."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _processors() -> dict[int, frozenset[int]]:
    """Thread → the processors that it may use; empty where the system does not tell."""
    found: dict[int, frozenset[int]] = {}
    with suppress(OSError, AttributeError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                found[int(task.name)] = frozenset(os.sched_getaffinity(int(task.name)))
    return found


def _allow(processors: Mapping[int, frozenset[int]]) -> None:
    for task, allowed in processors.items():
        with suppress(OSError):
            os.sched_setaffinity(task, allowed)


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_cudnn_benchmark(on: bool) -> None:
    torch.backends.cudnn.benchmark = on


_SETTINGS: Mapping[str, _Setting] = {
    "threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "processors": _Setting(_processors, _allow),
    "default type": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "default device": _Setting(torch.get_default_device, _set_default_device),
    "precision of products": _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": _Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "gradients": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "tuning of convolutions": _Setting(lambda: torch.backends.cudnn.benchmark, _set_cudnn_benchmark),
    "garbage collection": _Setting(gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
    "switching of threads": _Setting(sys.getswitchinterval, sys.setswitchinterval),
}


class ProcessState:
    """The state of this process at a moment, to be compared with later ones and put back."""

    def __init__(self) -> None:
        self._values = {name: setting.read() for name, setting in _SETTINGS.items()}

    def put_back(self) -> tuple[str, ...]:
        """Undo what was changed since.

        Returns:
            What that was; threads that have begun since are no change.
        """
        changed = []
        for name, setting in _SETTINGS.items():
            before, now = self._values[name], setting.read()
            if name == "processors":
                before = {task: allowed for task, allowed in before.items() if task in now}
                now = {task: now[task] for task in before}
            if before != now:
                setting.write(before)
                changed.append(name)
        return tuple(changed)


def restored_clocks() -> tuple[str, ...]:
    """Put clocks back that somebody has replaced; their names."""
    replaced = tuple(name for name, (owner, each, was) in _CLOCKS.items() if getattr(owner, each) is not was)
    for name in replaced:
        owner, each, was = _CLOCKS[name]
        setattr(owner, each, was)
    return replaced
