"""Runs with repeats, votes and breakdowns: what is stored, compared and planned is what was recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from support.judged import Outcomes, add_dataset, add_judging
from vivace.analysis.breakdown import breakdown
from vivace.analysis.comparison import compare, plan
from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.queries.board import board
from vivace.store.queries.conversation import conversation, conversations, item_rows
from vivace.store.tables import Attempt, Judging
from vivace.tracks.dialogue.judging.results import score_judging


def repeated(passes: list[list[bool]]) -> Outcomes:
    """Two criteria for each reply: the first says whether it passes, the second is always met."""
    return [[[passed, True] for passed in replies] for replies in passes]


def drawn(random: np.random.Generator, chances: np.ndarray[Any, Any], repeats: int) -> Outcomes:
    """Replies to conversations that pass with these chances."""
    return repeated([[bool(random.random() < chance) for _ in range(repeats)] for chance in chances])


def test_the_board_has_the_mean_over_conversations_and_both_variances(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 4)
        outcomes = repeated([[True, True], [True, False], [False, False], [True, True]])
        add_judging(session, dataset, outcomes)
    (row,) = board(store)
    figures = row.figures
    assert (figures.apr, figures.passes, figures.n, figures.criteria, figures.met) == (5 / 8, 5, 4, 16, 13)
    assert (row.repeats, row.votes) == (2, 1)
    assert figures.apr_within == pytest.approx(0.5 / 4)
    assert figures.apr_between is not None and figures.apr_between_error is not None
    assert figures.apr_between_error == pytest.approx((figures.apr_between / 4) ** 0.5)
    assert figures.apr_within_error == pytest.approx((0.125 / 8) ** 0.5)
    first = conversations(store, row.judging)[1]
    assert (first.passes, first.replies, first.met, first.not_met) == (1, 2, 3, 1)


def test_a_reply_that_is_missing_is_unscored_and_not_failed(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 2)
        outcomes = [[[True, True], [None, None]], [[True, True], [True, None]]]
        judging = add_judging(session, dataset, outcomes)
    (row,) = board(store)
    assert (row.figures.apr, row.figures.apr_min, row.figures.apr_max) == (1.0, 0.5, 1.0)
    assert row.figures.coverage == 5 / 8
    with store.write() as session:
        score_judging(session, judging)
    assert board(store)[0].figures == row.figures, "scoring again changes nothing"


def test_single_votes_are_kept_apart_from_the_verdict(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 2, criteria=1)
        votes = {(0, 0, 0): [True, True, False], (1, 0, 0): [False, False, False]}
        judging = add_judging(session, dataset, [[[True]], [[False]]], votes=votes)
    (row,) = board(store)
    assert (row.figures.apr, row.figures.criteria, row.votes) == (0.5, 2, 3), "votes are no further criteria"
    assert row.figures.vote_agreement == pytest.approx((1 / 3 + 1) / 2)
    rows = item_rows(store, judging)
    assert [(one["conversation"], one["vote"], one["met"]) for one in rows] == [
        ("set000", 0, True), ("set000", 1, True), ("set000", 2, True), ("set000", 3, False),
        ("set001", 0, False), ("set001", 1, False), ("set001", 2, False), ("set001", 3, False),
    ]  # fmt: skip
    view = conversation(store, judging, "set000")
    assert view is not None and [vote.met for vote in view.verdicts[0].votes] == [True, True, False]


def test_each_reply_can_be_looked_at(store: Database) -> None:
    with store.write() as session:
        judging = add_judging(session, add_dataset(session, 1), repeated([[True, False]]))
    first, second = (conversation(store, judging, "set000", repeat) for repeat in (0, 1))
    assert first is not None and (first.reply, first.repeats, first.verdicts[0].met) == ("Reply 0.", 2, True)
    assert second is not None and (second.reply, second.verdicts[0].met) == ("Reply 1.", False)
    assert conversation(store, judging, "set000", 2) is None
    assert [one["repeat"] for one in item_rows(store, judging)] == [0, 0, 1, 1]


def test_runs_of_different_repeats_are_compared_by_conversation(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8)
        a = add_judging(session, dataset, repeated([[False]] * 6 + [[True]] * 2), name="a")
        b = add_judging(session, dataset, repeated([[True, True, False]] * 6 + [[True, True, True]] * 2), name="b")
    found = compare(store, [a, b])
    apr = next(row for row in found.rows if (row.metric, row.slice) == ("apr", ""))
    assert (apr.difference.a, apr.difference.n, apr.difference.gained) == (0.25, 8, 6)
    assert apr.difference.b == pytest.approx(0.75)
    assert apr.difference.p_value != pytest.approx(2 / 2**6), "McNemar's coins are for single replies"
    ars = next(row for row in found.rows if (row.metric, row.slice) == ("ars", ""))
    assert (ars.difference.a, ars.difference.b) == (10 / 16, pytest.approx((6 * (2 / 3 + 1) + 2 * 2) / 16))
    assert len(found.flips) == 6
    assert {(flip["better"], round(flip["rate_b"], 3)) for flip in found.flips} == {("b", 0.667)}


def test_other_numbers_of_votes_are_not_compared_silently(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 2, criteria=1)
        a = add_judging(session, dataset, [[[True]], [[False]]], name="a")
        b = add_judging(session, dataset, [[[True]], [[True]]], name="b", votes={(0, 0, 0): [True, True, False]})
    with pytest.raises(UsageError, match="votes"):
        compare(store, [a, b])
    assert len({row.rank for row in board(store)}) == 1, "nor ranked"


def test_the_plan_tells_when_repeats_help_and_when_only_conversations_do(store: Database) -> None:
    random = np.random.default_rng(5)
    chances = random.beta(0.5, 0.5, 100)
    with store.write() as session:
        dataset = add_dataset(session, 100)
        alike = [add_judging(session, dataset, drawn(random, chances, 4), name=name) for name in "ab"]
        other = add_judging(session, dataset, drawn(random, random.permutation(chances), 4), name="c")
    same = plan(store, alike[0], alike[1], 0.05)
    assert same.between is not None and same.within is not None
    assert same.between < 0.03 and same.within == pytest.approx(0.25, abs=0.06)
    assert same.repeats_needed is not None and same.repeats_needed > 1
    needed = {row["repeats"]: row["conversations_needed"] for row in same.rows if row["metric"] == "apr"}
    assert list(needed) == [1, 2, 3, 5, 10] and list(needed.values()) == sorted(needed.values(), reverse=True)
    different = plan(store, alike[0], other, 0.05)
    assert different.between is not None and different.between > 0.1
    assert different.repeats_needed is None, "these conversations spread too far for any number of repeats"
    alone = plan(store, alike[0], None, 0.05)
    assert alone.between == pytest.approx(0.25, abs=0.1)


def test_a_plan_without_repeats_says_what_is_missing(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8)
        a = add_judging(session, dataset, repeated([[True], [False]] * 4), name="a")
        b = add_judging(session, dataset, repeated([[True], [True]] * 4), name="b")
    found = plan(store, a, b, 0.1)
    assert found.between is None and {row["repeats"] for row in found.rows} == {None}
    with pytest.raises(UsageError, match="repeats are needed"):
        plan(store, a, None, 0.1)


def test_breakdown_by_turns_seconds_and_speaker(store: Database) -> None:
    """Of 40 conversations every second one has 3 turns; long ones, the later half, all fail."""
    seconds = [float(place) for place in range(1, 41)]
    with store.write() as session:
        dataset = add_dataset(session, 40, turns=(2, 3), seconds=seconds, speakers=("Ana", "Ben", None))
        judging = add_judging(session, dataset, repeated([[place < 20] for place in range(40)]))
    by_turns = breakdown(store, judging, "turns")
    assert [(row.slice, row.place, row.conversations, row.apr) for row in by_turns] == [
        ("2", 2.0, 20, 0.5), ("3", 3.0, 20, 0.5),
    ]  # fmt: skip
    by_seconds = breakdown(store, judging, "seconds")
    assert [row.conversations for row in by_seconds] == [8] * 5
    assert [row.place for row in by_seconds] == sorted(row.place or 0 for row in by_seconds)
    assert by_seconds[0].apr == 1 and by_seconds[-1].apr == 0
    assert by_seconds[0].apr_low is not None and by_seconds[0].apr_low < 1
    by_speaker = breakdown(store, judging, "speaker")
    assert [(row.slice, row.conversations) for row in by_speaker] == [("Ana", 14), ("Ben", 13), ("unknown", 13)]
    coherent = breakdown(store, judging, "axis", "SELF_COHERENCE")
    assert [(row.slice, row.conversations) for row in coherent] == [("SELF_COHERENCE", 10)]
    assert sum(row.replies for row in breakdown(store, judging, "axis")) == 40


def test_a_breakdown_by_axis_is_what_the_board_shows(store: Database) -> None:
    random = np.random.default_rng(6)
    with store.write() as session:
        judging = add_judging(session, add_dataset(session, 30), drawn(random, random.beta(1, 1, 30), 3))
    (row,) = board(store)
    for part in breakdown(store, judging, "axis"):
        figures = row.axes[part.slice]
        assert (part.apr, part.apr_low, part.apr_high) == (figures.apr, figures.apr_low, figures.apr_high)
        assert (part.ars, part.ars_low, part.ars_high) == (figures.ars, figures.ars_low, figures.ars_high)


def test_what_the_store_does_not_know_is_said(store: Database) -> None:
    with store.write() as session:
        judging = add_judging(session, add_dataset(session, 2), repeated([[True], [False]]))
    with pytest.raises(UsageError, match="how long"):
        breakdown(store, judging, "seconds")
    with pytest.raises(UsageError, match=r"who speaks .* another of axis, turns, seconds"):
        breakdown(store, judging, "speaker")
    with pytest.raises(UsageError, match="no conversations of the axis"):
        breakdown(store, judging, "axis", "NONE")


def test_the_family_is_what_is_shown(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 20, turns=(2, 3))
        a = add_judging(session, dataset, repeated([[place < 5] for place in range(20)]), name="a")
        b = add_judging(session, dataset, repeated([[place < 15] for place in range(20)]), name="b")
    found = compare(store, [a, b], by="turns")
    assert {row.slice for row in found.rows} == {"", "2", "3"} and len(found.rows) == 6
    smallest = min((row for row in found.rows if row.metric == "apr"), key=lambda row: row.difference.p_value or 1)
    assert smallest.difference.p_value is not None and smallest.p_adjusted is not None
    assert smallest.p_adjusted <= 6 * smallest.difference.p_value
    overall = {by: compare(store, [a, b], by=by).rows[0].difference for by in ("axis", "turns")}
    assert overall["axis"] == overall["turns"]


def test_accounting_sums_all_calls_of_a_row_and_none_of_another_judging(store: Database) -> None:
    """Failed calls count; what is not known is left out of a sum and is not taken for nothing."""
    with store.write() as session:
        judging = add_judging(session, add_dataset(session, 1), repeated([[True]]))
        run = judging.partition(".")[0]
        session.add(Judging(id="other", run_id=run, judge_id=session.get_one(Judging, judging).judge_id, votes=3))
        session.flush()
        calls: list[dict[str, Any]] = [
            {"stage": "generate", "input_tokens": 10, "input_audio_tokens": 8, "audio_seconds": 1.5, "cost_usd": 0.5},
            {"stage": "generate", "input_tokens": 10, "audio_seconds": 1.5, "error": "timeout"},
            {"stage": "judge", "judging_id": judging, "input_tokens": 100, "output_tokens": 5, "cost_usd": 0.25},
            {"stage": "judge", "judging_id": judging, "cached": True},
            {"stage": "judge", "judging_id": judging, "input_tokens": 1},
            {"stage": "judge", "judging_id": "other", "input_tokens": 999, "cost_usd": 9.0},
        ]
        session.add_all(Attempt(run_id=run, seconds=1.0, **call) for call in calls)
        score_judging(session, judging)
    (row,) = board(store)
    assert row.cost_usd == 0.75
    flat = json.loads(json.dumps(row.as_json()))["accounting"]
    assert list(flat) == ["generate", "judge"]
    assert flat["generate"] == {
        "calls": 2, "failed": 1, "cached": 0, "input_tokens": 20, "output_tokens": None, "input_audio_tokens": 8,
        "audio_seconds": 3.0, "cost_usd": 0.5, "unpriced": 0,
    }  # fmt: skip
    assert (flat["judge"]["calls"], flat["judge"]["cached"], flat["judge"]["input_tokens"]) == (3, 1, 101)
    assert flat["judge"]["unpriced"] == row.unpriced_calls == 1
