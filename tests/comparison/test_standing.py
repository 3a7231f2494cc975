"""What is ranked: only results over the whole set with enough of it scored; all others stand apart, with bounds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from support.judged import add_dataset, add_judging
from vivace.analysis.comparison import compare
from vivace.analysis.gaps import gaps
from vivace.cli.tables.board_table import BOARD_COLUMNS
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board
from vivace.store.queries.conversation import conversation, item_rows
from vivace.store.tables import Dataset, Judging, Model, Reply, Run
from vivace.tracks.dialogue.judging.results import score_judging

PASS, FAIL, LOST = [[True, True]], [[True, False]], [[None, None]]


def filled(session: Session, **systems: list[Any]) -> int:
    """A set of eight conversations, and a judged run of each system on the first of them."""
    dataset = add_dataset(session, 8)
    session.get_one(Dataset, dataset).conversations = 8
    for name, outcomes in systems.items():
        add_judging(session, dataset, outcomes, name=name)
    return dataset


def standings(rows: list[BoardRow]) -> list[tuple[str, int | None, str]]:
    """Model, rank and standing of each row, in the board's order."""
    return [(row.model, row.rank, row.standing) for row in rows]


def test_neither_a_part_nor_gaps_stand_above_a_whole_result(store: Database) -> None:
    with store.write() as session:
        filled(
            session,
            limited=[PASS] * 2,
            gaps=[PASS] * 6 + [LOST] * 2,
            worst=[FAIL] * 8,
            better=[PASS] * 6 + [FAIL] * 2,
        )
    rows = board(store)
    assert standings(rows) == [
        ("better", 1, "ranked"),
        ("worst", 2, "ranked"),
        ("limited", None, "part"),
        ("gaps", None, "incomplete"),
    ]
    assert not any(row.tied for row in rows)
    _, worst, part, incomplete = rows
    assert (part.figures.apr, part.whole_apr_min, part.whole_apr_max) == (1, 0.25, 1)
    assert (incomplete.figures.apr, incomplete.figures.apr_min, incomplete.figures.apr_max) == (1, 0.75, 1)
    assert (worst.whole_apr_min, worst.whole_apr_max) == (0, 0)
    assert part.as_json()["rank"] is None and part.as_json()["standing"] == "part"


def test_results_of_a_part_do_not_share_a_rank_among_themselves(store: Database) -> None:
    with store.write() as session:
        filled(session, one=[PASS] * 2, other=[PASS] * 2)
    assert [(row.rank, row.tied) for row in board(store)] == [(None, False)] * 2


def test_the_bounds_of_a_part_of_a_set_of_unknown_size_are_not_known(store: Database) -> None:
    with store.write() as session:
        add_judging(session, add_dataset(session, 8), [PASS] * 2)
    (row,) = board(store)
    assert (row.standing, row.conversations, row.whole_apr_min, row.whole_apr_max) == ("part", None, None, None)


def test_sufficient_coverage_is_that_of_official_rows(store: Database) -> None:
    """One criterion of 200 may lack its verdict, and three may not."""
    with store.write() as session:
        dataset = add_dataset(session, 100)
        for name, lost in (("enough", 1), ("too little", 3)):
            add_judging(session, dataset, [[[None, True]]] * lost + [PASS] * (100 - lost), name=name)
    assert standings(board(store)) == [("enough", 1, "ranked"), ("too little", None, "incomplete")]


def test_a_whole_run_stands_for_its_model_where_a_newer_one_is_of_a_part(store: Database) -> None:
    with store.write() as session:
        dataset = filled(session)
        for outcomes in ([FAIL] * 8, [PASS] * 2):
            for form in ("audio-16k", "transcript"):
                add_judging(session, dataset, outcomes, name="m", input_form=form)
    assert {(gap.difference.a, gap.difference.n) for gap in gaps(store) if gap.metric == "apr"} == {(0, 8)}


def test_a_comparison_says_which_system_it_knows_in_part(store: Database) -> None:
    with store.write() as session:
        filled(session, whole=[PASS] * 8, limited=[PASS] * 2, gaps=[PASS] * 6 + [LOST] * 2)
    found = compare(store, ["run0", "run1", "run2"])
    assert [note.partition(":")[0] for note in found.notes] == [
        "limited is over a part of the set", "gaps lacks verdicts on some of the set",
    ]  # fmt: skip
    assert {row.difference.n for row in found.rows if row.metric == "apr" and not row.slice} == {2, 6}


def test_a_retracted_result_has_no_rank(store: Database) -> None:
    with store.write() as session:
        filled(session, run=[PASS] * 8, judging=[PASS] * 8, kept=[FAIL] * 8)
        session.get_one(Run, "run0").retracted_at, session.get_one(Run, "run0").retraction_reason = now(), "a"
        alone = session.get_one(Judging, "run1.judge")
        alone.retracted_at, alone.retraction_reason = now(), "b"
    assert standings(board(store)) == [("kept", 1, "ranked")]
    rows = board(store, include_retracted=True)
    assert standings(rows)[0] == ("kept", 1, "ranked")
    assert [(row.rank, row.standing, row.retracted) for row in rows[1:]] == [
        (None, "retracted", "a"), (None, "retracted", "b"),
    ]  # fmt: skip


def test_times_of_recorded_replies_are_marked_in_board_view_and_export(store: Database) -> None:
    with store.write() as session:
        filled(session, measured=[PASS] * 8, written=[PASS] * 8)
        model = session.scalars(select(Model).where(Model.name == "written")).one()
        model.recorded = True
        reply = session.scalars(select(Reply).where(Reply.run_id == "run1")).first()
        assert reply is not None
        reply.ttft_s = reply.total_s = 0.5
        score_judging(session, "run1.judge")
    assert {row.model: row.times for row in board(store)} == {"measured": "measured", "written": "submitted"}
    shown = next(row.as_json() for row in board(store) if row.model == "written")
    assert BOARD_COLUMNS["TTFT"](shown) == "0.50 s †" and "† times as submitted" in BOARD_COLUMNS["notes"](shown)
    assert {row["times"] for row in item_rows(store, "run1.judge")} == {"submitted"}
    view = conversation(store, "run1.judge", "set000")
    assert view is not None and view.times == "submitted"
