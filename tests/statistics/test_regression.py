"""Has a night become worse? The gate, the fresh runs, the parts of a change, steps, and what can be noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vivace.statistics.regression import (
    chance_to_notice,
    change,
    confirms,
    gate,
    noticeable,
    split,
    steps,
    worsening_p,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "regressions.py"


def sample(values: object) -> dict[str, float]:
    """Values by number."""
    return {str(place): float(value) for place, value in enumerate(values)}  # type: ignore[call-overload]


def test_a_worsening_is_tested_against_what_the_window_shows_of_chance() -> None:
    calm = [sample([1] * 40) for _ in range(7)]
    restless = [sample([(number + place) % 2 for place in range(40)]) for number in range(7)]
    lost = sample([0] * 3 + [1] * 37)
    found = change([lost, lost], calm)
    assert found is not None
    assert (found.worse, found.better, found.n) == (3, 0, 40)
    assert found.difference == pytest.approx(-0.075)
    assert confirms(found.p_value), "nights that never wavered do not lose three conversations twice by chance"
    wavering = change([sample([0] * 23 + [1] * 17)], restless)
    assert wavering is not None
    assert not confirms(wavering.p_value)


def test_with_one_or_two_nights_a_few_flips_confirm_nothing_and_many_do() -> None:
    night = [sample([1] * 40)]
    few, many = (change([sample([0] * lost + [1] * (40 - lost))], night) for lost in (6, 7))
    assert few is not None and many is not None
    assert not confirms(few.p_value)
    assert confirms(many.p_value)


def test_nothing_changed_nothing_in_common_and_a_single_conversation_are_no_worsening() -> None:
    same = change([sample([1, 0, 1])], [sample([1, 0, 1])])
    assert same is not None
    assert same.p_value == 1.0
    assert change([{"a": 1.0}], [{"b": 1.0}]) is None
    alone = change([{"a": 0.0}], [{"a": 1.0}] * 7)
    assert alone is not None
    assert (alone.p_value, alone.low) == (1.0, None)


def test_a_tolerance_is_what_nobody_minds() -> None:
    window = [sample(np.random.default_rng(seed).normal(0, 0.02, 60)) for seed in range(7)]
    slower = sample(np.random.default_rng(9).normal(-0.05, 0.02, 60))
    strict, lenient = (change([slower], window, tolerance, flip=0.0) for tolerance in (0.0, 0.06))
    assert strict is not None and lenient is not None
    assert confirms(strict.p_value)
    assert lenient.p_value > 0.5


def test_the_level_of_the_test_holds_in_simulated_nights() -> None:
    chance = np.random.default_rng(5)
    passing = chance.random((2000, 30))
    window = (chance.random((2000, 7, 30)) < passing[:, None]).astype(float)
    night = (chance.random((2000, 30)) < passing).astype(float)
    noise = window.var(axis=1, ddof=1).sum(-1) + 1 / 7
    total = (night - window.mean(axis=1)).sum(-1)
    p_values = worsening_p(100, total, noise * (1 + 1 / 7) / 100)
    assert 0.03 <= float((p_values <= 0.05).mean()) <= 0.065


def test_the_gate_is_wide_and_takes_all_metrics_into_account() -> None:
    assert gate([0.15]) == [True]
    assert gate([0.15, *[0.9] * 9]) == [False] * 10
    assert gate([0.001, 0.03, *[0.9] * 8]) == [True, True, *[False] * 8]


def test_a_change_is_parted_into_what_the_frozen_show_and_the_rest() -> None:
    window = [sample([1] * 40) for _ in range(7)]
    frozen = sample([1] * 40)
    strict = sample([0] * 12 + [1] * 28)
    judge = split([strict], window, strict, frozen)
    model = split([strict], window, frozen, frozen)
    both = split([sample([0] * 24 + [1] * 16)], window, strict, frozen)
    assert judge is not None and model is not None and both is not None
    assert judge.causes == (True, False)
    assert model.causes == (False, True)
    assert both.causes == (True, True)
    assert split([strict], window, {"x": 1.0}, {"x": 1.0}) is None


def test_of_few_conversations_the_part_that_is_most_of_it_is_named() -> None:
    window = [sample([1] * 10) for _ in range(7)]
    lost = sample([0] * 3 + [1] * 7)
    found = split([lost], window, sample([1] * 10), sample([1] * 10))
    assert found is not None
    assert found.causes == (False, True)


def test_steps_are_found_where_the_level_changes_and_nowhere_else() -> None:
    chance = np.random.default_rng(3)
    quiet = list(chance.normal(0.7, 0.01, 120))
    assert steps(quiet) == []
    stepped = [*quiet[:70], *(value - 0.04 for value in quiet[70:])]
    assert [abs(place - 70) <= 2 for place in steps(stepped)] == [True]
    assert steps([0.5] * 50) == []
    assert steps([0.5] * 30 + [0.25] * 30) == [30]
    assert steps([1.0, 0.0]) == []


def test_what_can_be_noticed_grows_with_size_and_falls_with_noise() -> None:
    small, large = noticeable(100, 0.06, 20), noticeable(452, 0.06, 20)
    assert small is not None and large is not None
    assert 0.03 < large < 0.05 < small
    assert noticeable(3, 0.3, 20) is None
    assert chance_to_notice(0.05, 452, 0.04, 20) > chance_to_notice(0.05, 452, 0.1, 20)
    assert (noticeable(452, 0.06, 20, tolerance=0.02) or 0) > large + 0.015


def _simulated(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--check", *options], capture_output=True, text=True, check=False, timeout=900
    )


def test_simulated_jobs_are_quiet_find_drops_and_name_causes(tmp_path: Path) -> None:
    done = _simulated("--quick", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "found.json").exists()


@pytest.mark.full
def test_simulated_jobs_in_the_size_that_is_promised() -> None:
    done = _simulated()
    assert done.returncode == 0, done.stdout + done.stderr
