"""The floor probe gives rates, and the floor is the slower of moving and computing."""

from __future__ import annotations

import pytest
import torch

from vivace_methods.floor import probe


def test_the_floor_is_the_slower_of_moving_and_computing() -> None:
    floor = probe(torch.device("cpu"), reads=[2**20], sides=[64], dtypes=[torch.float32], tries=2)
    rate, speed = floor.read_bytes_per_s, floor.flops_per_s["float32"]
    assert floor.device.kind == "cpu" and floor.device.name and floor.launch_s > 0
    assert floor.floor_seconds(rate, 0, torch.float32) == pytest.approx(1.0)
    assert floor.floor_seconds(rate, 3 * speed, torch.float32) == pytest.approx(3.0)
