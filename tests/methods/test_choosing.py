"""The fastest baseline is taken, and only one that is faster for certain."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from vivace_methods.decoding.joined import applied
from vivace_methods.models.passes import Passes
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Attached, Emit, Generator, Method, MethodError, Request, Trace
from vivace_methods.registry import METHODS
from vivace_methods.sparsity.dense import Dense
from vivace_methods.timing import baseline_choice
from vivace_methods.timing.baseline_choice import candidates, fastest_baseline

REQUEST = Request(torch.tensor([[5, 9, 2]]), 8)


class SimulatedClock:
    """A clock that only generations move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def read(self) -> float:
        return self.seconds


def simulated(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float | None]) -> SimulatedClock:
    """Dense decoding with caches that take so long, give or take a tenth; None for one that cannot run here."""
    from collections.abc import Iterator
    from contextlib import contextmanager

    clock, chance = SimulatedClock(), random.Random(0)

    class Slow(Generator):
        def __init__(self, mean: float) -> None:
            self._mean = mean

        def generate(self, request: Request, emit: Emit) -> Trace:
            clock.seconds += self._mean * chance.uniform(0.95, 1.05)
            return Trace()

    @contextmanager
    def attach(self: Dense, model: Any, fitted: Any = None) -> Iterator[Attached]:
        mean = seconds[self.cache]
        if mean is None:
            raise MethodError("not here")
        yield Attached(Passes(), generator=Slow(mean))

    monkeypatch.setattr(Dense, "attach", attach)
    monkeypatch.setattr(baseline_choice, "shared_copy", lambda model: model)
    return clock


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"dynamic": 1.0, "static": 0.7}, "dense(cache=static)"),
        ({"dynamic": 1.0, "static": 1.4}, "dense"),
        ({"dynamic": 1.0, "static": 0.995}, "dense"),
        ({"dynamic": 1.0, "static": None}, "dense"),
    ],
)
def test_the_usual_one_gives_way_to_a_faster_one_alone(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float | None], taken: str
) -> None:
    clock = simulated(monkeypatch, seconds)
    choice = fastest_baseline("sparsity", random_model(tiny_configuration("llama")), REQUEST, clock=clock)
    assert choice.method.label == taken
    assert choice.sentence.startswith(f"The baseline is {taken}")
    assert ("takes" in choice.sentence) is (seconds["static"] is not None)
    assert ("dense(cache=static) is left out (not here)" in choice.sentence) is (seconds["static"] is None)


def test_a_candidate_that_breaks_is_left_out_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler's own error, on a machine that lacks what it needs, must not end a run."""
    attached = Dense.attach

    def attach(self: Dense, model: Any, fitted: Any = None) -> Any:
        if self.cache == "static":
            raise RuntimeError("no compiler\nat all")
        return attached(self, model, fitted)

    monkeypatch.setattr(Dense, "attach", attach)
    choice = fastest_baseline("sparsity", random_model(tiny_configuration("llama")), REQUEST)
    assert choice.sentence == ("The baseline is dense; dense(cache=static) is left out (RuntimeError: no compiler).")


def test_where_nothing_runs_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = simulated(monkeypatch, {"dynamic": None, "static": 1.0})
    with pytest.raises(MethodError, match="not here"):
        fastest_baseline("sparsity", random_model(tiny_configuration("llama")), REQUEST, clock=clock)


@pytest.mark.parametrize("kind", ["llama", "olmoe"])
@pytest.mark.parametrize("family", ["speculation", "prefill", "sparsity"])
def test_every_candidate_on_a_processor_is_a_baseline_that_runs(family: str, kind: str) -> None:
    model = random_model(tiny_configuration(kind))
    found = candidates(family, model)
    assert found[0] == METHODS[found[0].name]()
    answers = []
    for method in found:
        assert isinstance(method, Method) and method.family == family and not method.needs
        tokens: list[int] = []
        with applied(method, model) as generator:
            generator.generate(REQUEST, tokens.extend)
        answers.append(tokens)
    assert len(set(map(tuple, answers))) == 1
    assert fastest_baseline(family, model, REQUEST).method in found
