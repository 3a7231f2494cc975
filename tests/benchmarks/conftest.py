"""The benchmarks are scripts beside each other; their folder is put where they find each other."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))


@pytest.fixture
def even_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tiny layers no time means anything: all are measured, and bounds are those of equal rates."""
    from pruning.bounds import Bench, Rates

    plain = Bench.rates

    def even(bench: Bench, counts: Iterable[int], turn: int = 0) -> Rates:
        found = plain(bench, counts, turn)
        assert min(*found.products, *found.attention) > 0
        return Rates([1], [1e9], [1e9])

    monkeypatch.setattr(Bench, "rates", even)
