"""What arms share is watched and put back, and nobody is accused of how torch's own threads wait."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vivace_methods.protocol import Emit, Generator, Request, Trace
from vivace_methods.timing import stopwatch
from vivace_methods.timing.audits import audit
from vivace_methods.timing.process import watch as process_watch
from vivace_methods.timing.process.state import ProcessState
from vivace_methods.timing.process.watch import ProcessWatch
from vivace_methods.timing.stopwatch import DeviceClock, Stopwatch
from vivace_methods.timing.trials import TimedPrompt, Trial

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(process_watch, "WATCH_S", 0.001)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = ProcessState()
    yield
    before.put_back()
    torch.set_num_threads(threads)


def fewer_processors() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})


CHANGES: dict[str, Callable[[], Any]] = {
    "threads": lambda: torch.set_num_threads(2),
    "default type": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "precision of products": lambda: torch.set_float32_matmul_precision("medium"),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "gradients": lambda: torch.set_grad_enabled(False),
    "garbage collection": lambda: gc.set_threshold(10**6),
    "switching of threads": lambda: sys.setswitchinterval(1.0),
}
if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
    CHANGES["processors"] = fewer_processors


class Changing(Generator):
    """An arm that changes something of the process at its third answer, or nothing."""

    def __init__(self, change: Callable[[], Any] | None) -> None:
        self._change, self._asked = change, 0

    def generate(self, request: Request, emit: Emit) -> Trace:
        self._asked += 1
        if self._change is not None and self._asked == 3:
            self._change()
        emit([1])
        return Trace()


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_an_arm_changes_of_the_process_is_its_own_fault_and_put_back(name: str) -> None:
    arms = {"baseline": Changing(None), "arm": Changing(CHANGES[name]), "third": Changing(None)}
    asked = [TimedPrompt(f"p{number}", Request(torch.zeros(1, 4), 1)) for number in range(4)]
    before = ProcessState()
    watch = ProcessWatch(CPU, "baseline")
    recording = Stopwatch(arms, "baseline", DeviceClock(CPU), watch).run(asked, 1, [], audited=0)
    found = [finding for finding in audit(recording) if finding.fault == "changes the process"]
    assert [finding.arm for finding in found] == ["arm"]
    assert found[0].sentence.startswith(f"In 1 of 4 answers it changes what all arms share ({name})")
    assert before.put_back() == ()


def test_what_is_changed_between_trials_or_when_an_arm_is_applied_is_known_too() -> None:
    watch = ProcessWatch(CPU, "baseline")
    watch.applied("baseline")
    torch.set_default_dtype(torch.float64)
    watch.applied("arm")
    for arm, changed in (("baseline", ()), ("arm", ("default type",)), ("baseline", ()), ("arm", ("gradients",))):
        watch.begin(arm)
        assert watch.end(arm).changed == changed
        if changed == ("default type",):
            torch.set_grad_enabled(False)  # a thread that it has left behind, after its clock had stopped


def test_a_replaced_clock_is_its_own_fault_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.perf_counter
    watch = ProcessWatch(CPU, "baseline")
    watch.begin("arm")
    time.perf_counter = lambda: 0.0
    stopwatch._perf_counter = lambda: 0.0
    assert set(watch.end("arm").tampered) == {"time.perf_counter", "vivace_methods.timing.stopwatch._perf_counter"}
    assert time.perf_counter is clock is stopwatch._perf_counter
    watch.begin("baseline")
    assert watch.end("baseline").tampered == ()


@pytest.mark.parametrize(("after", "accused"), [(0.41, False), (0.6, False), (1.41, True)])
def test_threads_of_a_pool_may_spin_as_they_always_do(
    after: float, accused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads torch's own take 0.41 of a processor when they have nothing to do."""
    torch.set_num_threads(2)
    monkeypatch.setattr(ProcessWatch, "_stretch", lambda self: 0.41)
    watch = ProcessWatch(CPU, "baseline")
    monkeypatch.setattr(ProcessWatch, "_stretch", lambda self: after)
    arms = {"baseline": Changing(None), "arm": Changing(None)}
    asked = [TimedPrompt(f"p{number}", Request(torch.zeros(1, 4), 1)) for number in range(3)]
    recording = Stopwatch(arms, "baseline", DeviceClock(CPU), watch).run(asked, 1, [], audited=0)
    faults = {finding.fault for finding in audit(recording)}
    assert ("works after the clock has stopped" in faults) is accused


def test_what_earlier_versions_recorded_is_read() -> None:
    trial = Trial("arm", "p", 0, 0).as_json()
    del trial["observed"]["changed"]
    assert Trial.from_json(trial).observed.changed == ()
