"""A method is called comparable as rarely as is stated where it just is not, and its interval is Tango's."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from vivace.cli.tables.arm_table import ARM_COLUMNS
from vivace.statistics.intervals import LEVEL_Z, tango_interval
from vivace.statistics.noninferiority import finding, non_inferiority
from vivace.store.queries.efficiency import Measured
from vivace_app.tables import arm_tables


def rejected(gained: int, lost: int, n: int, difference: float) -> float:
    """The score statistic with the likelihood maximised by search instead of in closed form."""

    def unlikelihood(share: float) -> float:
        parts = ((gained, share + difference), (lost, share), (n - gained - lost, 1 - 2 * share - difference))
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in parts if count)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    share = optimize.minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    spread = n * (2 * share + difference - difference**2)
    return (gained - lost - n * difference) / math.sqrt(spread)


@pytest.mark.parametrize(("gained", "lost", "n"), [(5, 12, 100), (1, 30, 200), (7, 2, 44), (20, 20, 60)])
def test_the_ends_are_where_the_score_test_just_rejects(gained: int, lost: int, n: int) -> None:
    low, high = tango_interval(gained, lost, n)
    assert rejected(gained, lost, n, low) == pytest.approx(LEVEL_Z, abs=1e-4)
    assert rejected(gained, lost, n, high) == pytest.approx(-LEVEL_Z, abs=1e-4)


def test_without_a_flip_the_interval_is_not_a_point() -> None:
    """Its end is z² / (n + z²), as Wilson's is for no failures."""
    for n in (1, 10, 200):
        end = LEVEL_Z**2 / (n + LEVEL_Z**2)
        assert tango_interval(0, 0, n) == pytest.approx((-end, end))


def comparable_at_the_margin(n: int, margin: float, gains: float, spread: bool, tries: int) -> int:
    """How often a method that loses just the margin is called comparable."""
    chance = np.random.default_rng(7)
    called = 0
    for _ in range(tries):
        more = 2 if spread else 1  # twice as many, half as large on average: the same mean
        lost, gained = more * (margin + gains), more * gains
        drawn = chance.choice([-1.0, 1.0, 0.0], n, p=[lost, gained, 1 - lost - gained])
        if spread:
            drawn *= chance.uniform(0.0, 1.0, n)
        baseline = np.where(drawn < 0, 1.0, 0.0)
        called += non_inferiority(list(baseline), list(baseline + drawn), margin).comparable
    return called


@pytest.mark.parametrize(
    ("n", "margin", "gains", "spread"),
    [(200, 0.1, 0.0, False), (200, 0.05, 0.05, False), (60, 0.1, 0.02, False), (200, 0.1, 0.02, True)],
)
def test_the_stated_level_is_kept_where_the_loss_is_the_margin(
    n: int, margin: float, gains: float, spread: bool
) -> None:
    tries = 1500
    allowed = stats.binom.ppf(0.999, tries, 0.03)  # 2.5 %, and what a discrete test may differ from it
    assert comparable_at_the_margin(n, margin, gains, spread, tries) <= allowed


def test_an_equal_method_is_comparable_with_samples_enough() -> None:
    scores = [1.0, 0.0, 1.0, 1.0] * 50
    assert non_inferiority(scores, scores, 0.05).comparable
    assert not non_inferiority(scores[:8], scores[:8], 0.05).comparable


def test_parts_of_a_point_count_as_parts() -> None:
    found = non_inferiority([0.5] * 100, [0.4] * 100, 0.2)
    assert found.value == pytest.approx(-0.1)
    assert (found.low, found.high) == pytest.approx(tango_interval(0, 10, 100))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 200))
def test_the_interval_holds_the_difference_and_turns_with_it(gained: int, lost: int, equal: int) -> None:
    n = gained + lost + equal
    low, high = tango_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert tango_interval(lost, gained, n) == pytest.approx((-high, -low))


def test_more_samples_narrow_it() -> None:
    widths = [high - low for low, high in (tango_interval(2 * k, 3 * k, 100 * k) for k in (1, 2, 4, 8))]
    assert all(later < earlier for earlier, later in pairwise(widths))


@pytest.mark.parametrize(
    ("baseline", "method", "margin"),
    [([], [], 0.1), ([1.0], [1.0, 0.0], 0.1), ([1.5], [1.0], 0.1), ([math.nan], [1.0], 0.1), ([1.0], [1.0], 0.0)],
)
def test_what_cannot_be_compared_is_refused(baseline: list[float], method: list[float], margin: float) -> None:
    with pytest.raises(ValueError, match=r"non-inferiority needs|a margin lies"):
        non_inferiority(baseline, method, margin)


@pytest.mark.parametrize(
    ("gained", "lost", "said"),
    [(0, 5, "worse (-62.5 [-86.3, -9.8])"), (1, 2, "not shown (-12.5 ["), (0, 0, "not shown (+0.0 [")],
)
def test_the_board_says_what_is_shown_and_what_is_not(gained: int, lost: int, said: str) -> None:
    """A loss that is certain is no lack of evidence; ends with signs are set apart by a comma, not by a dash."""
    baseline, method = [1.0] * lost + [0.0] * (8 - lost), [0.0] * lost + [1.0] * gained + [0.0] * (8 - lost - gained)
    found = non_inferiority(baseline, method, 0.05)
    figures = {
        "comparable": {"value": float(found.comparable), "low": None, "high": None},
        "quality_difference": {"value": found.value, "low": found.low, "high": found.high},
    }
    assert ARM_COLUMNS["against the baseline"]({"baseline": False, "figures": figures}).startswith(said)
    measured = {name: Measured(one["value"] or 0.0, one["low"], one["high"], 8) for name, one in figures.items()}
    shown = arm_tables._comparable(SimpleNamespace(baseline=False, figures=measured))  # type: ignore[arg-type]
    assert said.startswith(shown)


def test_a_method_within_the_margin_is_comparable() -> None:
    assert finding(True, -0.01) == "comparable" and finding(False, None) == "not shown"
