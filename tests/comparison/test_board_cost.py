"""A board reads scores alone: what calls and replies took is written beside them when a judging ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, update

from support.judged import add_dataset, add_judging
from support.measured import run_of
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board, data_version
from vivace.store.queries.efficiency import arm_board
from vivace.store.tables import Attempt, Judge, Judging, Reply
from vivace.tracks.dialogue.results import score_judging
from vivace.tracks.efficiency.scores import score_run

LONG_TABLES = ("verdict", "reply", "attempt", "trial")


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


@pytest.mark.parametrize("asked", [board, arm_board, data_version])
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


def _scored(row: BoardRow) -> tuple[Any, ...]:
    return row.figures, row.axes, row.date, row.standing
