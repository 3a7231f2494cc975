"""The floor probe gives the best rates that it ever saw, and the floor is the slower of moving and computing."""

from __future__ import annotations

import pytest
import torch

from vivace_methods.timing import floor
from vivace_methods.timing.floor import SHARE, FloorProbe

CPU = torch.device("cpu")
LITTLE = {"reads": (2**12,), "sides": (8,), "dtypes": (torch.float32,)}


@pytest.fixture(autouse=True)
def few_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "LAUNCHES", 2)


def test_the_floor_is_the_slower_of_moving_and_computing() -> None:
    found = FloorProbe(CPU, **LITTLE).again(2)  # type: ignore[arg-type]
    rate, speed = found.read_bytes_per_s, found.flops_per_s["float32"]
    assert found.device.kind == "cpu" and found.device.name and found.launch_s > 0
    assert found.floor_seconds(rate, 0, torch.float32) == pytest.approx(1.0)
    assert found.floor_seconds(rate, 3 * speed, torch.float32) == pytest.approx(3.0)


class Machine:
    """A clock on which every other reading is later by what one try takes, on a machine that others use as well."""

    def __init__(self) -> None:
        self.time, self.slower, self.asked = 0.0, 1.0, 0

    def now(self) -> float:
        self.asked += 1
        self.time += 0.001 * self.slower if self.asked % 2 == 0 else 0.0
        return self.time

    def read(self) -> float:
        return self.time


def test_a_busy_moment_before_the_trials_is_no_floor() -> None:
    machine = Machine()
    probe = FloorProbe(CPU, clock=machine, **LITTLE)  # type: ignore[arg-type]
    machine.slower = 20.0
    busy = probe.again()
    assert busy.read_bytes_per_s == pytest.approx(2**12 / 0.02)
    machine.slower = 1.0
    quiet = probe.between()
    assert quiet.read_bytes_per_s == pytest.approx(2**12 / 0.001)
    assert quiet.flops_per_s["float32"] == pytest.approx(20 * busy.flops_per_s["float32"])
    assert quiet.launch_s == pytest.approx(busy.launch_s / 20)
    machine.slower = 20.0
    assert probe.again() == quiet == probe.floor, "what a device did once, it can do"


def test_tries_between_trials_take_a_small_share_of_the_time() -> None:
    machine = Machine()
    probe = FloorProbe(CPU, clock=machine, **LITTLE)  # type: ignore[arg-type]
    probe.again(1)
    began, spent, looks = machine.time, 0.0, 0
    for _ in range(200):
        before = machine.asked, machine.time
        probe.between()
        looks += machine.asked > before[0]
        spent += machine.time - before[1]
        machine.time += 0.02  # a round of trials
    assert looks >= 5
    assert spent <= 1.5 * SHARE * (machine.time - began)


@pytest.mark.parametrize(("bytes", "least"), [(2**21, 2**21), (2**26, 2**23), (100, 2**23)])
def test_what_fits_into_a_cache_is_read_at_its_rate(bytes: int, least: int) -> None:
    """From memory beyond, a model of two megabytes would take longer than it does."""
    tried: list[int] = []

    class Reading(FloorProbe):
        def _read_rate(self, size: int, tries: int) -> float:
            tried.append(size)
            return 1.0

    Reading(CPU, reads=(2**23, 2**24), sides=(8,), dtypes=(torch.float32,), working_set=bytes).again(1)
    assert min(tried) == least and max(tried) == 2**24
