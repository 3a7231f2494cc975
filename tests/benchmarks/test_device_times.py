"""Times by a GPU's own events, on a double of one: the host is as slow as a test wants it to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from devices import device_times
from devices.device_times import HELD, LONGEST, activity_of, decoding_of, fetch_seconds, timed
from torch.autograd import DeviceType

from vivace_methods.protocol import Generator, Request

GPU = torch.device("cuda")
CYCLE = 1e-9 / 2
"""Seconds."""


class Gpu:
    """Works off what was queued, in its own time, while the host goes on in its.

    Attributes:
        host: seconds on the host's clock.
        idle_at: when all that was queued so far will have been done.
        held: cycles for which it was held up, by call.
    """

    def __init__(self) -> None:
        self.host, self.idle_at = 0.0, 0.0
        self.held: list[int] = []

    def queue(self, seconds: float) -> None:
        self.idle_at = max(self.idle_at, self.host) + seconds

    def sleep(self, cycles: int) -> None:
        self.held.append(cycles)
        self.queue(cycles * CYCLE)

    def synchronize(self, *_: object) -> None:
        self.host = max(self.host, self.idle_at)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """In the place of torch's own, with its clock."""
    its = Gpu()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.at = 0.0

        def record(self) -> None:
            its.queue(0.0)
            self.at = its.idle_at

        def query(self) -> bool:
            return self.at <= its.host

        def synchronize(self) -> None:
            its.host = max(its.host, self.at)

        def elapsed_time(self, later: Any) -> float:
            return 1e3 * float(later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", its.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", its.synchronize)
    monkeypatch.setattr(device_times, "time", SimpleNamespace(perf_counter=lambda: its.host))
    yield its


def work_of(gpu: Gpu, host_s: float, pieces: int, device_s: float) -> Callable[[], None]:
    def work() -> None:
        for _ in range(pieces):
            gpu.host += host_s
            gpu.queue(device_s)

    return work


@pytest.mark.parametrize(
    ("host_s", "calls"), [(1e-6, 1), (2e-4, 2), (5e-3, 3)], ids=["quick", "slower than a first hold", "slow"]
)
def test_what_the_host_takes_is_not_counted_to_the_device(gpu: Gpu, host_s: float, calls: int) -> None:
    found = timed(work_of(gpu, host_s, 5, 3e-5), GPU)
    assert found.is_apart and found.device_s == pytest.approx(15e-5) and found.host_s == pytest.approx(5 * host_s)
    assert gpu.held == [HELD * 8**call for call in range(calls)]


def test_gaps_that_nothing_hides_are_said(gpu: Gpu) -> None:
    found = timed(work_of(gpu, 0.1, 5, 3e-5), GPU)
    assert not found.is_apart and found.device_s > 0.3
    assert gpu.held[-1] >= LONGEST and len(gpu.held) < 5


def test_on_a_processor_there_is_one_time() -> None:
    seen: list[int] = []
    found = timed(lambda: seen.append(1), torch.device("cpu"))
    assert seen == [1] and found.is_apart and found.device_s == found.host_s > 0
    assert 0 < fetch_seconds(torch.device("cpu")) < 1


@dataclass
class Event:
    """Of a profile; microseconds."""

    name: str
    start: float
    end: float
    device_type: Any = DeviceType.CUDA
    is_user_annotation: bool = False

    @property
    def time_range(self) -> Any:
        return SimpleNamespace(start=self.start, end=self.end)


STEP = [
    Event("_multiply", 10, 14),
    Event("Memcpy DtoH", 15, 16),
    Event("elementwise", 16, 18),
    Event("on another stream", 17, 19),
    Event("aten::mm", 0, 90, DeviceType.CPU),
    Event("a graph", 0, 90, is_user_annotation=True),
]


def test_a_profile_says_what_a_device_did() -> None:
    found = activity_of(STEP)
    assert found is not None
    assert (found.kernels, found.sparse) == (3, 1)
    assert found.busy_s == pytest.approx(8e-6) and found.span_s == pytest.approx(9e-6)
    assert activity_of(STEP[4:]) is None


class Answering(Generator):
    """Launches what a step does, for each token."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def generate(self, request: Request, emit: Any) -> Any:
        self.events = [Event("prompt", 0, 50)]
        for token in range(request.most_tokens - 1):
            after = 100.0 * (token + 1)
            self.events += [Event(e.name, e.start + after, e.end + after, e.device_type) for e in STEP[:4]]

    def logits(self, request: Request, answer: Any) -> Any:
        raise AssertionError("nobody asks for them")


def test_a_decoded_token_is_the_difference_of_two_answers(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    answering = Answering()

    class Profile:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> Profile:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def events(self) -> list[Event]:
            return answering.events

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    found = decoding_of(answering, Request(torch.ones(1, 4, dtype=torch.long), 9), GPU, tokens=10)
    assert found["kernels"] == 3 and found["sparse_kernels"] == 1
    assert found["busy_s"] == pytest.approx(8e-6) and found["idle_s"] == pytest.approx(92e-6)
    assert decoding_of(answering, Request(torch.ones(1, 4, dtype=torch.long), 9), torch.device("cpu")) == {}
