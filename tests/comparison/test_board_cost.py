"""A board reads scores alone: what calls and replies took is written beside them when a judging ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update

from support.judged import add_dataset, add_judging
from support.measured import run_of
from vivace.analysis.breakdown import BreakdownRow, breakdown
from vivace.analysis.gaps import gaps
from vivace.cli.upkeep.db import upgrade
from vivace.engine.access.retractions import restore, retract
from vivace.engine.access.withholding import set_private
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board, data_version
from vivace.store.queries.efficiency import arm_board
from vivace.store.queries.figures import PRICE, TIMES
from vivace.store.queries.runs import runs
from vivace.store.tables import Attempt, Breakdown, Conversation, Gap, Judge, Judging, Reply, Score, Verdict
from vivace.store.visibility import NOBODY, OPERATOR, Viewer
from vivace.tracks.base import Registered
from vivace.tracks.dialogue.judging.results import score_judging
from vivace.tracks.dialogue.records import RunRecords
from vivace.tracks.dialogue.summaries.older_judgings import fill_summaries
from vivace.tracks.efficiency.scores import score_run

LONG_TABLES = ("verdict", "reply", "attempt", "trial", "conversation", "criterion", "turn")
"""Tables whose rows grow with what is asked and answered; no board reads them."""


def broken_down(database: Database) -> list[BreakdownRow]:
    """All that the page *Analysis* shows of a judging in parts."""
    return [row for by in ("axis", "turns") for row in breakdown(database, "run0.judge", by)]


def judged(store: Database) -> str:
    """A judging of two conversations whose replies took 1 s and 2 s, and their calls 0.25 $ each."""
    with store.write() as session:
        judging = add_judging(session, add_dataset(session, 2), [[[True, True]], [[True, None]]])
        run = judging.partition(".")[0]
        for reply in session.query(Reply).order_by(Reply.id):
            reply.ttft_s, reply.total_s = 0.5 * reply.id, 1.0 * reply.id
        session.add_all(Attempt(run_id=run, stage="generate", seconds=1.0, cost_usd=0.25) for _ in range(2))
        score_judging(session, judging)
    return judging


@pytest.mark.parametrize("asked", [board, arm_board, data_version, gaps, broken_down])
def test_no_board_reads_a_verdict_a_reply_a_call_or_a_trial(store: Database, asked: Callable[..., Any]) -> None:
    judged(store)
    run = run_of(store)
    with store.write() as session:
        score_run(session, run, margin=0.05)
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        statements.append(statement.lower().replace('"', ""))

    event.listen(store.engine, "before_cursor_execute", note)
    asked(store)
    event.remove(store.engine, "before_cursor_execute", note)
    selects = [statement for statement in statements if statement.startswith("select")]
    assert selects
    words = {word.strip("(),") for statement in selects for word in statement.split()}
    assert not words & set(LONG_TABLES)
    assert not [word for word in words if word.partition(".")[0] in LONG_TABLES]


def test_what_replies_and_calls_took_is_as_it_was_when_a_judging_of_their_run_last_ended(store: Database) -> None:
    judging = judged(store)
    (row,) = board(store)
    assert (row.ttft_median_s, row.total_median_s, row.cost_usd) == (0.75, 1.5, 0.5)
    assert row.accounting["generate"].calls == 2

    run = judging.partition(".")[0]
    with store.write() as session:
        judge = Judge(fingerprint="f", target="t", name="second", parameters={}, parser_version="1")
        session.add(judge)
        session.flush()
        session.add(Judging(id="second", run_id=run, judge_id=judge.id))
        session.flush()
        # It finds a reply that is worth another try, and asks for its own verdicts.
        session.add(Attempt(run_id=run, stage="generate", seconds=1.0, cost_usd=1.0))
        session.add(Attempt(run_id=run, stage="judge", judging_id="second", seconds=1.0, cost_usd=4.0))
        session.execute(update(Reply).values(total_s=8.0))
    assert board(store) == [row]
    with store.write() as session:
        score_judging(session, "second")
    first, second = sorted(board(store), key=lambda row: row.judging != judging)
    assert (first.cost_usd, first.total_median_s, first.unpriced_calls) == (1.5, 8.0, 0)
    assert (second.cost_usd, second.total_median_s) == (5.5, 8.0)
    assert list(second.accounting) == ["generate", "judge"]
    assert _scored(first) == _scored(row)


def test_a_reply_made_again_counts_at_once_whoever_asked_for_it(store: Database) -> None:
    run = judged(store).partition(".")[0]
    with store.write() as session:
        for conversation in session.scalars(select(Conversation)):
            asked = {"conversation_id": conversation.id, "stage": "generate", "seconds": 1.0}
            session.add(Attempt(run_id=run, cost_usd=1.0 + conversation.position, **asked))
        RunRecords(Registered(run, "another")).renew_effort_of_ended(session)
    (row,) = board(store)
    assert row.cost_usd == 3.5
    # 1 $ and 2 $, each with its share of the half that was asked for none: 12.706 is Student's t of one degree.
    assert row.price_interval == pytest.approx((0.25, 1.5 + 12.7062 * 0.5 + 0.25), abs=1e-3)


def test_a_board_of_whole_runs_does_not_read_what_they_planned(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 2)
        for name in ("a", "b", "b"):
            add_judging(session, dataset, [[[True, True]]] * 2, name=name)
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    assert len(board(store)) == 3
    gaps(store)
    assert len(runs(store)) == 3
    event.remove(store.engine, "before_cursor_execute", note)
    assert not [statement for statement in asked if "items" in statement or "manifest" in statement]


def test_gaps_are_those_of_the_judgings_that_stand_now(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8)
        add_judging(session, dataset, [[[True, True]]] * 8, input_form="transcript")
        older, newer = (add_judging(session, dataset, [[[place > 3, True]] for place in range(8)]) for _ in "ab")
    assert [gap.audio.judging for gap in gaps(store)] == [newer] * 2
    retract(store, newer, "another recording")
    assert [gap.audio.judging for gap in gaps(store)] == [older] * 2
    restore(store, newer)
    assert [(gap.audio.judging, gap.difference.b) for gap in gaps(store)] == [(newer, 0.5), (newer, 0.75)]
    with store.write() as session:
        session.execute(update(Verdict).where(Verdict.judging_id == newer).values(met=True, unscored_reason=None))
        score_judging(session, newer)
    assert [gap.difference.value for gap in gaps(store)] == [0.0, 0.0]
    assert [row.apr for row in breakdown(store, newer, "turns")] == [1.0]


def test_whoever_does_not_see_the_newest_run_sees_the_gap_of_the_one_before(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8)
        add_judging(session, dataset, [[[True, True]]] * 8, input_form="transcript")
        older = add_judging(session, dataset, [[[place > 1, True]] for place in range(8)])
        newer = add_judging(session, dataset, [[[place > 3, True]] for place in range(8)])
    set_private(store, newer, True, "ana")
    seen = {
        name: {gap.audio.judging for gap in gaps(store.seen_by(viewer))}
        for name, viewer in {
            "ana": Viewer("ana"),
            "ben": Viewer("ben"),
            "nobody": NOBODY,
            "operator": OPERATOR,
        }.items()
    }
    assert seen == {"ana": {newer}, "ben": {older}, "nobody": {older}, "operator": {newer}}
    set_private(store, newer, False)
    assert {gap.audio.judging for gap in gaps(store.seen_by(NOBODY))} == {newer}


def test_what_ended_before_summaries_were_kept_gets_them_once(store: Database) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8, speakers=("Ana", None))
        add_judging(session, dataset, [[[True, None]]] * 8, input_form="transcript")
        add_judging(session, dataset, [[[place > 3, True]] for place in range(8)])
    before = [breakdown(store, "run1.judge", by) for by in ("axis", "turns", "speaker")], gaps(store)
    with store.write() as session:
        session.execute(delete(Breakdown))
        session.execute(delete(Gap))
    assert breakdown(store, "run1.judge", "axis") == [] and gaps(store) == []
    assert (fill_summaries(store), fill_summaries(store)) == (2, 0)
    assert ([breakdown(store, "run1.judge", by) for by in ("axis", "turns", "speaker")], gaps(store)) == before
    assert [row.slice for row in before[0][2]] == ["Ana", "unknown"]


def test_what_ended_before_prices_and_times_had_intervals_gets_them_from_its_calls(
    store: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.write() as session:
        dataset = add_dataset(session, 8)
        priced, unpriced = (add_judging(session, dataset, [[[True, True]]] * 8, name=name) for name in "ab")
        for place, reply in enumerate(session.query(Reply)):
            reply.ttft_s, reply.total_s = 0.1 * place, 1.0 * place
            told = None if reply.run_id == "run1" and place == 9 else 0.25 * place
            session.add(
                Attempt(run_id=reply.run_id, conversation_id=reply.conversation_id, stage="generate", seconds=1.0,
                        cost_usd=told)
            )  # fmt: skip
        for judging in (priced, unpriced):
            score_judging(session, judging)
    before = board(store)
    with store.write() as session:
        session.execute(delete(Score).where(Score.metric == PRICE))
        session.execute(update(Score).where(Score.metric.in_(TIMES)).values(low=None, high=None))
    assert [row.price_interval for row in board(store)] == [(None, None)] * 2
    for said in ("upgraded", "nothing to do"):
        upgrade(tmp_path, store.url)
        assert capsys.readouterr().err.strip() == said
    assert board(store) == before
    prices = {row.judging: row.price_interval for row in before}
    assert prices[unpriced] == (None, None) and None not in prices[priced]
    assert None not in {end for row in before for end in (*row.ttft_interval, *row.total_interval)}


def _scored(row: BoardRow) -> tuple[Any, ...]:
    return row.figures, row.axes, row.date, row.standing
