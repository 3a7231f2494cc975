"""Times of work on a GPU by its own events, apart from what the host takes to ask for it, and what a look costs.

An event in front of work that the host has yet to queue would count the host's time to the device: where a graph is
begun in tens of microseconds and takes hundreds, that is much. So the device is held up by a kernel that only waits,
until all is queued, and only then do the events and what is between them follow each other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from vivace_methods.protocol import Generator, Request

HELD = 2**20
"""Cycles for which the device is held up at first: half a millisecond."""
LONGEST = 2**26
"""Work that takes longer to queue than so many cycles is timed with the host's gaps in it."""
FETCHES = 200
"""Numbers that are fetched one by one, of which the median counts."""


@dataclass(frozen=True)
class Times:
    """Of some work.

    Attributes:
        device_s: between two events around it on the device.
        host_s: that the host took to ask for it.
        is_apart: whether the host had asked for all of it before the device began, so that no gap is in `device_s`.
    """

    device_s: float
    host_s: float
    is_apart: bool


def timed(work: Callable[[], object], device: torch.device) -> Times:
    """The times of one run of some work; on a processor both are the same.

    Args:
        work: that queues what it does on the current stream, as a graph's replay does; it was run before.
        device: on which.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        taken = time.perf_counter() - start
        return Times(taken, taken, True)
    held = HELD
    while True:
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        torch.cuda._sleep(held)
        begun.record()
        start = time.perf_counter()
        work()
        host_s = time.perf_counter() - start
        ended.record()
        is_apart = not begun.query()
        ended.synchronize()
        if is_apart or held >= LONGEST:
            return Times(begun.elapsed_time(ended) / 1e3, host_s, is_apart)
        held *= 8


def fetch_seconds(device: torch.device) -> float:
    """What it takes to look at one number of an idle device, as every arm's loop does once for each token."""
    number = torch.zeros(1, dtype=torch.int64, device=device)
    taken = []
    for _ in range(FETCHES):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        int(number)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@dataclass(frozen=True)
class Activity:
    """What a device did in a stretch of time.

    Attributes:
        kernels: that it ran; copies and fills are no kernels.
        sparse: those of them that are the sparse product's.
        busy_s: in which it did anything.
        span_s: from the beginning of the first to the end of the last.
    """

    kernels: int
    sparse: int
    busy_s: float
    span_s: float


def activity_of(events: Iterable[Any], sparse: str = "_multiply") -> Activity | None:
    """What a profile says that the device did; None where it saw nothing.

    Args:
        events: of torch's profiler.
        sparse: the name of the sparse product's kernel.
    """
    seen = [
        each
        for each in events
        if each.device_type == torch.autograd.DeviceType.CUDA and not getattr(each, "is_user_annotation", False)
    ]
    if not seen:
        return None
    kernels = [each.name for each in seen if not each.name.startswith(("Memcpy", "Memset"))]
    ranges = sorted((each.time_range.start, each.time_range.end) for each in seen)
    busy, until = 0.0, ranges[0][0]
    for start, end in ranges:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return Activity(len(kernels), sum(name == sparse for name in kernels), busy / 1e6, (until - ranges[0][0]) / 1e6)


def decoding_of(generator: Generator, request: Request, device: torch.device, tokens: int = 16) -> dict[str, float]:
    """What the device does for each decoded token, under torch's profiler: the difference of two answers.

    Args:
        generator: has answered such a prompt before.
        request: the prompt, on the device.
        device: on which; of a processor there is nothing to tell.
        tokens: by which one answer is longer than the other.

    Returns:
        `kernels` and `sparse_kernels`, how many; `busy_s`, in which the device did anything, and `idle_s`, in which
        it waited for the host or between kernels. Empty where a profiler sees nothing.
    """
    if device.type != "cuda":
        return {}
    found = []
    for length in (2, 2 + tokens):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            generator.generate(replace(request, most_tokens=length), _ignore)
            torch.cuda.synchronize(device)
        found.append(activity_of(profile.events()))
    short, long = found
    if short is None or long is None:
        return {}
    busy, span = long.busy_s - short.busy_s, long.span_s - short.span_s
    return {
        "kernels": (long.kernels - short.kernels) / tokens,
        "sparse_kernels": (long.sparse - short.sparse) / tokens,
        "busy_s": busy / tokens,
        "idle_s": (span - busy) / tokens,
    }


def _ignore(tokens: Sequence[int]) -> None:
    """What was said does not matter."""


def compiler_notes() -> Mapping[str, Sequence[str]]:
    """What torch's compiler did otherwise than it was asked: steps that are no CUDA graph, and breaks in a graph."""
    from torch._dynamo.utils import counters

    found: dict[str, list[str]] = {}
    if skips := counters["inductor"].get("cudagraph_skips", 0):
        found["cudagraph_skips"] = [str(skips)]
    if counters["graph_break"]:
        found["graph_breaks"] = [str(reason)[:200] for reason in counters["graph_break"]]
    return found
