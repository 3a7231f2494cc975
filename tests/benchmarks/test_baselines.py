"""The baselines' benchmark: its rows and their limits, and other tokens are no comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from baselines import LIMITS, Size, TransformersGenerate, decoding, measured, reading
from report import BenchmarkError

from vivace_methods.arms import Arm
from vivace_methods.models.passes import Passes
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Attached, Emit, Generator, Method, Request, Trace
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.limits import Device, Floor

SIZE = Size(layers=2, read=20, decoded=4, prompts=5, repetitions=1)
FLOOR = Floor(Device("none", "cpu", 1, "0"), read_bytes_per_s=1e12, flops_per_s={"bfloat16": 1e15}, launch_s=0.0)


class Known(FloorProbe):
    """Finds what was known before."""

    def _tried(self, *given: Any) -> Floor:
        self._floor = FLOOR
        return FLOOR


PROBE = Known(torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["llama", "olmoe", "qwen3_moe"])
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(tiny_configuration(request.param), dtype=torch.bfloat16)


def test_each_model_gives_three_headline_rows(model: Any) -> None:
    rows = [*decoding("M", model, SIZE, PROBE)[0], *reading("M", model, SIZE, PROBE)[0]]
    assert [(row.case, row.arm, row.baseline, row.metric) for row in rows] == [
        ("M, 4 tokens", "autoregressive", "generate", "time_s"),
        ("M, prompt of 20", "full", "forward", "ttft_s"),
        ("M, prompt of 20", "full", "generate", "ttft_s"),
    ]
    for row in rows:
        assert row.headline and row.metric in LIMITS and row.n == 5
        assert row.low <= row.ratio <= row.high
        assert row.floor is not None and 0 < row.floor < 0.1


@dataclass(frozen=True)
class Wrong(Method):
    """Fast, and wrong or broken."""

    name: ClassVar[str] = "wrong"
    family: ClassVar[str] = "speculation"
    paper: ClassVar[str] = "None"

    broken: bool = False

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        return nullcontext(Attached(Passes(), generator=Answering(self.broken)))


class Answering(Generator):
    def __init__(self, broken: bool) -> None:
        self._broken = broken

    def generate(self, request: Request, emit: Emit) -> Trace:
        if self._broken:
            raise RuntimeError("no kernel")
        emit([0] * request.most_tokens)
        return Trace()


@pytest.mark.parametrize(
    ("broken", "said"), [(False, "wrong gives other tokens"), (True, "wrong failed .*no kernel")]
)
def test_what_answers_otherwise_is_not_compared(broken: bool, said: str) -> None:
    model = random_model(tiny_configuration("llama"), dtype=torch.bfloat16)
    arms = {"generate": Arm.of(TransformersGenerate()), "wrong": Arm.of(Wrong(broken))}
    with pytest.raises(BenchmarkError, match=said):
        measured(model, arms, 8, 4, SIZE, PROBE)
