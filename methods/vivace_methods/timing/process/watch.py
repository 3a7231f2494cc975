"""What an arm does outside its time: work after its clock has stopped, by whatever thread or process, and memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from vivace_methods.timing.energy import EnergyMeter
from vivace_methods.timing.process.state import ProcessState, restored_clocks
from vivace_methods.timing.trials import Observed

WATCH_S = 0.02
"""How long the machine is watched after a trial: long enough to see a thread that goes on working."""
LONG_WATCH_S = 1.0
"""The same after a trial that has left a new thread or process behind: it may only be waiting."""
FOREIGN_S = 0.02
"""Processor time of an arm's thread during another arm's trial that is more than an accident."""
SPINS = 5
"""How often the waiting of torch's own threads is looked at beforehand."""
_DEVICE_POLL_S = 0.001
_IDLE_SYNCHRONISATION_S = 0.0005

Value = TypeVar("Value")

_sleep, _process_time, _perf_counter = time.sleep, time.process_time, time.perf_counter


class ProcessWatch:
    """Watches this process, what it has started, and its device.

    Processor time is read per thread and child process where the system tells it (Linux); elsewhere that of the whole
    process after each trial is all that is seen.

    Args:
        device: on which the arms run.
        nobody: the arm whose threads are nobody's: the baseline, in whose warm-up the thread pools of torch begin.
    """

    def __init__(self, device: torch.device, nobody: str) -> None:
        self._device, self._nobody = device, nobody
        self._cuda = device.type == "cuda"
        self._meter = EnergyMeter.of(device)
        self._owners: dict[str, str | None] = dict.fromkeys(processor_times())
        self._before: dict[str, float] = {}
        self._energy: float | None = None
        self._accused: dict[str, float] = {}
        self._state = ProcessState()
        self._changed: dict[str, tuple[str, ...]] = {}
        self._latest: str | None = None
        self._spinning = self._usual_spinning()

    def applied(self, arm: str) -> None:
        """Look at the state of the process after an arm was applied; what it changed is put back."""
        self._blame(arm)

    def begin(self, arm: str) -> None:
        """Look at everything that runs, before an arm's clock starts."""
        self._blame(arm if self._latest is None else self._latest)
        self._latest = arm
        self._before = processor_times()
        for each in self._before:
            self._owners.setdefault(each, None)
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        self._energy = self._meter.read_j() if self._meter is not None else None

    def end(self, arm: str) -> Observed:
        """Look again, and for a while, after it has stopped."""
        energy = self._spent()
        after = processor_times()
        new = after.keys() - self._before.keys()
        for each in new:
            self._owners[each] = None if arm == self._nobody else arm
        tampered = restored_clocks()
        self._blame(arm)
        self._accuse(arm, after)
        busy = self._busy(set(new))
        return Observed(
            busy_after=max(busy - self._spinning, self._accused.pop(arm, 0.0), 0.0),
            tampered=tampered,
            changed=self._changed.pop(arm, ()),
            peak_bytes=self._peaks(),
            energy_j=energy,
        )

    def _blame(self, arm: str) -> None:
        """Put back what was changed of the process, and remember whose doing it was."""
        if changed := self._state.put_back():
            self._changed[arm] = tuple(dict.fromkeys((*self._changed.get(arm, ()), *changed)))

    def _usual_spinning(self) -> float:
        """The share of a processor in use after work that is nobody's.

        Threads of a pool spin for a while when they have nothing to do, so that they are quickly there again. Nobody
        is accused of that.
        """
        if torch.get_num_threads() == 1:
            return 0.0
        numbers = torch.ones(2**20)
        shares = []
        for _ in range(SPINS):
            torch.sum(numbers)
            shares.append(self._stretch())
        return max(shares)

    def _accuse(self, arm: str, after: Mapping[str, float]) -> None:
        """Remember arms whose threads or processes have worked during this arm's trial."""
        for each, seconds in after.items():
            owner = self._owners.get(each)
            worked = seconds - self._before.get(each, seconds)
            if owner not in (None, arm) and worked > FOREIGN_S:
                self._accused[str(owner)] = max(self._accused.get(str(owner), 0.0), 1.0)

    def _busy(self, new: set[str]) -> float:
        """The largest share of a processor, or of the GPU, in use in any stretch of watching."""
        share, waited = self._stretch(), WATCH_S
        while waited < LONG_WATCH_S and new & processor_times().keys():
            share, waited = max(share, self._stretch()), waited + WATCH_S
        return share

    def _stretch(self) -> float:
        times, own, start = processor_times(), _process_time(), _perf_counter()
        device = self._device_busy() if self._cuda else _sleep(WATCH_S)
        after, passed = processor_times(), _perf_counter() - start
        own, this = _process_time() - own, f"thread {threading.get_native_id()}"
        others = sum(seconds - times.get(each, 0.0) for each, seconds in after.items() if each != this)
        return max(own / passed, others / passed, (device or 0.0) / passed)

    def _device_busy(self) -> float:
        """Seconds for which the device kept a synchronisation waiting: nothing should be on it any more."""
        waited, until = 0.0, _perf_counter() + WATCH_S
        while _perf_counter() < until:
            _sleep(_DEVICE_POLL_S)
            start = _perf_counter()
            torch.cuda.synchronize(self._device)
            waited += max(0.0, _perf_counter() - start - _IDLE_SYNCHRONISATION_S)
        return waited

    def _peaks(self) -> dict[str, int]:
        if not self._cuda:
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        return {"torch": torch.cuda.max_memory_allocated(self._device), "driver": total - free}

    def _spent(self) -> float | None:
        if self._meter is None or self._energy is None:
            return None
        now = self._meter.read_j()
        return None if now is None else now - self._energy


def processor_times() -> dict[str, float]:
    """Seconds that each thread of this process, and each process below it, has computed; empty where not told.

    Seconds in which one waited for a processor count as well: on a busy machine, work is no less for having to wait.
    """
    own = os.getpid()
    times = {f"thread {task}": seconds for task, seconds in _tasks(own).items()}
    waiting = _children(own)
    while waiting:
        child = waiting.pop()
        if not _has_ended(child):
            times[f"process {child}"] = sum(_tasks(child).values())
        waiting += _children(child)
    return times


def _tasks(process: int) -> dict[int, float]:
    return _read_each(process, lambda task: sum(map(int, (task / "schedstat").read_text().split()[:2])) / 1e9)


def _children(process: int) -> list[int]:
    found = _read_each(process, lambda task: [int(child) for child in (task / "children").read_text().split()])
    return [child for children in found.values() for child in children]


def _has_ended(process: int) -> bool:
    """Whether a process is a mere entry that waits for its parent to ask how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _read_each(process: int, read: Callable[[Path], Value]) -> dict[int, Value]:
    values = {}
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return {}
    for task in tasks:
        try:
            values[int(task.name)] = read(task)
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile, or the system does not tell
    return values
