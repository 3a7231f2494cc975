"""APR, ARS and coverage: three values, bounds, and what never moves what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.datasets import AXES
from vivace.statistics.intervals import clustered_ratio, wilson
from vivace.tracks.dialogue.judging.scores import ScoreRow, Tallies, Tally, score_conversations, score_votes


@dataclass(frozen=True)
class Once:
    """A conversation with one reply: how its criteria came out."""

    axis: str
    met: int
    not_met: int
    unscored: int

    @property
    def criteria(self) -> int:
        """All of them."""
        return self.met + self.not_met + self.unscored

    @property
    def tallies(self) -> Tallies:
        """As it is scored."""
        return Tallies(self.axis, (Tally(self.met, self.not_met, self.unscored),))


tallies = st.lists(
    st.builds(Once, st.sampled_from(AXES), st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)).filter(
        lambda tally: tally.criteria > 0
    ),
    max_size=30,
)
some = tallies.filter(bool)


def all_scores(given_tallies: list[Once]) -> list[ScoreRow]:
    """All rows."""
    return score_conversations([one.tallies for one in given_tallies])


def scores(given_tallies: list[Once], slice: str = "") -> dict[str, ScoreRow]:
    """The rows of one slice by metric."""
    return {row.metric: row for row in all_scores(given_tallies) if row.slice == slice}


@given(tallies)
def test_the_definitions(given_tallies: list[Once]) -> None:
    """Counted anew, criterion by criterion, with exact fractions."""
    for name in ("", *{tally.axis for tally in given_tallies}):
        part = [tally for tally in given_tallies if name in ("", tally.axis)]
        rubrics = [[True] * t.met + [False] * t.not_met + [None] * t.unscored for t in part]
        flat = [met for rubric in rubrics for met in rubric]
        scored = [met for met in flat if met is not None]
        whole = [rubric for rubric in rubrics if None not in rubric]
        found = scores(given_tallies, name)

        def rate(count: int, of: int) -> float | None:
            return float(Fraction(count, of)) if of else None

        passes = sum(all(rubric) for rubric in whole)
        assert found["apr"].value == rate(passes, len(whole))
        assert found["apr"].minimum == rate(passes, len(part))
        assert found["apr"].maximum == rate(sum(False not in rubric for rubric in rubrics), len(part))
        assert found["ars"].value == rate(sum(scored), len(scored))
        assert found["ars"].minimum == rate(sum(scored), len(flat))
        assert found["ars"].maximum == rate(sum(met is not False for met in flat), len(flat))
        assert found["coverage"].value == rate(len(scored), len(flat))
        assert (found["apr"].n, found["ars"].n) == (len(part), len(flat))  # planned, scored or not
        assert (found["apr"].unscored, found["ars"].unscored) == (len(part) - len(whole), len(flat) - len(scored))


@given(tallies)
def test_intervals_are_those_of_what_was_scored(given_tallies: list[Once]) -> None:
    found = scores(given_tallies)
    whole = [tally for tally in given_tallies if not tally.unscored]
    expected = wilson(sum(not tally.not_met for tally in whole), len(whole))
    assert (found["apr"].low, found["apr"].high) == ((expected.low, expected.high) if expected else (None, None))
    pooled = clustered_ratio([(tally.met, tally.met + tally.not_met) for tally in given_tallies])
    assert (found["ars"].low, found["ars"].high) == ((pooled.low, pooled.high) if pooled else (None, None))
    for metric in ("apr", "ars"):
        row = found[metric]
        if row.value is not None and row.low is not None and row.high is not None:
            assert row.low <= row.value <= row.high


@given(tallies)
def test_ars_lies_between_its_bounds_and_apr_above_its_minimum(given_tallies: list[Once]) -> None:
    found = scores(given_tallies)
    apr, ars = found["apr"], found["ars"]
    if ars.value is not None:
        assert ars.minimum is not None and ars.maximum is not None
        assert ars.minimum <= ars.value <= ars.maximum
    if apr.value is not None:
        assert apr.minimum is not None and apr.minimum <= apr.value
    if apr.minimum is not None:
        assert apr.maximum is not None and apr.minimum <= apr.maximum


@given(tallies)
def test_apr_lies_below_its_maximum_unless_a_partly_scored_conversation_has_failed_for_certain(
    given_tallies: list[Once],
) -> None:
    apr = scores([tally for tally in given_tallies if not (tally.unscored and tally.not_met)])["apr"]
    if apr.value is not None:
        assert apr.maximum is not None and apr.value <= apr.maximum


def test_apr_may_exceed_its_maximum_where_one_has() -> None:
    """One conversation passes, one has failed for certain and lacks a verdict: it is not in APR's denominator."""
    apr = scores([Once(AXES[0], 2, 0, 0), Once(AXES[0], 0, 1, 1)])["apr"]
    assert (apr.value, apr.minimum, apr.maximum) == (1.0, 0.5, 0.5)


@given(some, st.data())
def test_an_unscored_criterion_counts_on_neither_side(given_tallies: list[Once], data: st.DataObject) -> None:
    """One more unscored criterion leaves ARS alone, and takes its conversation out of APR, passed or failed."""
    place = data.draw(st.integers(0, len(given_tallies) - 1))
    more = list(given_tallies)
    more[place] = replace(more[place], unscored=more[place].unscored + 1)
    before, after = scores(given_tallies), scores(more)
    assert (after["ars"].value, after["ars"].low, after["ars"].high) == (
        before["ars"].value, before["ars"].low, before["ars"].high,
    )  # fmt: skip
    assert after["ars"].count == before["ars"].count
    without = scores(given_tallies[:place] + given_tallies[place + 1 :])
    assert after["apr"].value == without["apr"].value
    assert after["apr"].n == before["apr"].n
    assert (after["coverage"].value or 0) <= (before["coverage"].value or 0)


@given(some, st.data())
def test_a_verdict_that_turns_to_met_never_lowers_a_score(given_tallies: list[Once], data: st.DataObject) -> None:
    failing = [place for place, tally in enumerate(given_tallies) if tally.not_met]
    if not failing:
        return
    place = data.draw(st.sampled_from(failing))
    better = list(given_tallies)
    better[place] = replace(better[place], met=better[place].met + 1, not_met=better[place].not_met - 1)
    before, after = scores(given_tallies), scores(better)
    for metric in ("apr", "ars"):
        for figure in ("value", "minimum", "maximum"):
            one, two = getattr(before[metric], figure), getattr(after[metric], figure)
            assert (one is None and two is None) or two >= one


@given(some, st.data(), st.booleans())
def test_scoring_what_was_unscored_stays_inside_the_bounds(
    given_tallies: list[Once], data: st.DataObject, met: bool
) -> None:
    """However the open verdicts fall out, the final figures lie where the bounds said they could."""
    final = []
    for tally in given_tallies:
        won = data.draw(st.integers(0, tally.unscored))
        final.append(Once(tally.axis, tally.met + won, tally.not_met + tally.unscored - won, 0))
    before, after = scores(given_tallies), scores(final)
    for metric in ("apr", "ars"):
        low, value, high = before[metric].minimum, after[metric].value, before[metric].maximum
        assert low is not None and value is not None and high is not None
        assert low <= value <= high


@given(some, st.randoms())
def test_the_order_of_the_conversations_does_not_count(given_tallies: list[Once], random: object) -> None:
    shuffled = list(given_tallies)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for one, two in zip(all_scores(given_tallies), all_scores(shuffled), strict=True):
        assert vars(one) == pytest.approx(vars(two))


def test_ars_is_pooled_and_apr_is_over_conversations() -> None:
    """Not the mean of per-conversation shares (which would be 0.75), nor of the axes."""
    found = scores([Once(AXES[0], 1, 0, 0), Once(AXES[3], 5, 5, 0)])
    assert found["ars"].value == 6 / 11
    assert found["apr"].value == 1 / 2


def test_nothing_planned_gives_nothing_and_no_error() -> None:
    found = scores([])
    assert {row.value for row in found.values()} == {None}
    assert {row.n for row in found.values()} == {0}


repeated = st.integers(1, 4).flatmap(
    lambda k: st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), min_size=k, max_size=k),
        max_size=20,
    )
)


@given(repeated)
def test_with_repeats_each_conversation_counts_alike(outcomes: list[list[tuple[int, int, int]]]) -> None:
    """The definitions counted anew: APR a mean of shares, ARS and coverage pooled, bounds over all replies."""
    outcomes = [[(met + 1, not_met, unscored) for met, not_met, unscored in replies] for replies in outcomes]
    given_tallies = [Tallies(AXES[0], tuple(Tally(*reply) for reply in replies)) for replies in outcomes]
    found = {row.metric: row for row in score_conversations(given_tallies) if row.slice == ""}
    shares = []
    for replies in outcomes:
        whole = [reply for reply in replies if not reply[2]]
        if whole:
            shares.append(Fraction(sum(not reply[1] for reply in whole), len(whole)))
    flat = [reply for replies in outcomes for reply in replies]
    met, not_met, unscored = (sum(reply[place] for reply in flat) for place in range(3))
    assert found["apr"].value == (pytest.approx(float(sum(shares) / len(shares))) if shares else None)
    assert found["ars"].value == (met / (met + not_met) if met + not_met else None)
    assert found["coverage"].value == ((met + not_met) / (met + not_met + unscored) if flat else None)
    assert found["apr"].n == len(outcomes)
    assert found["apr"].unscored == sum(reply[2] > 0 for reply in flat)
    if flat:
        passes = sum(not reply[1] and not reply[2] for reply in flat)
        possible = sum(not reply[1] for reply in flat)
        assert (found["apr"].minimum, found["apr"].maximum) == (passes / len(flat), possible / len(flat))


@given(some, st.integers(2, 4))
def test_the_same_reply_again_changes_no_score_and_no_interval(given_tallies: list[Once], k: int) -> None:
    """Copies of a reply tell nothing new: an interval that took replies for conversations would shrink."""
    copied = [Tallies(one.axis, one.tallies.replies * k) for one in given_tallies]
    once, again = scores(given_tallies), {row.metric: row for row in score_conversations(copied) if not row.slice}
    for metric in ("apr", "ars", "coverage"):
        for figure in ("value", "low", "high", "minimum", "maximum"):
            one, other = getattr(once[metric], figure), getattr(again[metric], figure)
            assert (one is None and other is None) or other == pytest.approx(one)


def test_the_variance_is_split_only_where_there_are_repeats() -> None:
    alike = Tallies(AXES[0], (Tally(1, 0, 0), Tally(1, 0, 0)))
    failed = Tallies(AXES[0], (Tally(0, 1, 0), Tally(0, 1, 0)))
    found = {row.metric: row for row in score_conversations([alike, failed]) if row.slice == ""}
    assert found["apr_within"].value == 0 and found["apr_between"].value == pytest.approx(0.5)
    assert (found["apr_within"].count, found["apr_within"].n) == (4, 2)
    assert "apr_between" not in scores([Once(AXES[0], 1, 0, 0), Once(AXES[0], 0, 1, 0)])


def test_single_votes_are_scored_per_axis() -> None:
    axes = {"one": AXES[0], "two": AXES[1], "three": AXES[1]}
    found = score_votes(axes, {"one": [(3, 3), (2, 3)], "two": [(0, 3)], "three": [(1, 1)]})
    agreement = {row.slice: row for row in found if row.metric == "vote_agreement"}
    assert agreement[AXES[0]].value == pytest.approx((1 + 1 / 3) / 2)
    assert agreement[AXES[1]].value == 1
    assert (agreement[""].count, agreement[""].n) == (7, 9)
    assert score_votes(axes, {}) == []
