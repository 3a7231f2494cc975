"""Retracting a run or one judging of it, undoing that, and who heeds it; and ids that are written in part."""

from __future__ import annotations

import pytest

from support.judged import add_dataset, add_judging
from vivace.analysis.comparison import compare
from vivace.engine.access.retractions import restore, retract
from vivace.errors import UsageError
from vivace.machine.manifest import fingerprint
from vivace.store.database import Database
from vivace.store.identifiers import find, judgings_of, run_of, short_ids
from vivace.store.queries.board import board
from vivace.store.queries.conversation import item_rows
from vivace.store.queries.log import log
from vivace.store.tables import Judge, Judging, Run, Submission
from vivace.store.verdicts import judging_card, standing_judgings
from vivace.tracks.dialogue.registration import Judges, register_judging
from vivace_rubrics.judges import JudgeCard

PASS = [[True, True]]


@pytest.fixture
def judgings(store: Database) -> tuple[str, str]:
    """Two judgings of one run, and a judging of another run."""
    with store.write() as session:
        dataset = add_dataset(session, 4)
        first = add_judging(session, dataset, [PASS] * 4, name="a")
        add_judging(session, dataset, [PASS] * 4, name="b")
        judge = Judge(fingerprint=fingerprint("strict"), target="x", name="strict", parameters={}, parser_version="1")
        session.add(judge)
        session.flush()
        second = Judging(id="run0.strict", run_id="run0", judge_id=judge.id, status="ended")
        session.add(second)
        session.flush()
        from vivace.tracks.dialogue.judging.results import score_judging

        score_judging(session, second.id)
    return first, second.id


def shown(store: Database) -> set[str]:
    """The judgings on the board."""
    return {row.judging for row in board(store)}


def test_a_judging_is_retracted_alone_and_brought_back(store: Database, judgings: tuple[str, str]) -> None:
    first, second = judgings
    said = retract(store, first, " a broken judge ")
    assert said == f"Judging {first} is retracted; its run run0 stays, with its other judgings: {second}."
    assert shown(store) == {second, "run1.judge"}
    assert {card.judging for card in standing_judgings(store)} == {second, "run1.judge"}
    (row,) = (row for row in board(store, include_retracted=True) if row.judging == first)
    assert (row.retracted, row.standing) == ("a broken judge", "retracted")
    assert judgings_of(store, "run0") == [second] and judgings_of(store, first) == [first]
    assert judging_card(store, "run0").judging == second
    assert {one["retracted"] for one in item_rows(store, first)} == {"a broken judge"}
    with pytest.raises(UsageError, match=r"retracted already .a broken judge.; `vivace retract --undo run0.judge`"):
        retract(store, first, "again")
    with pytest.raises(UsageError, match=r"Run run0 is not retracted; retracted by themselves are .* run0.judge\."):
        restore(store, "run0")
    assert restore(store, first) == f"Judging {first} is no longer retracted."
    assert shown(store) == {first, second, "run1.judge"}
    assert [line.message for line in log(store, "run0")] == [
        f"judging {first} retracted: a broken judge", f"retraction of judging {first} undone: a broken judge",
    ]  # fmt: skip


def test_a_run_is_retracted_with_all_of_its_judgings_which_is_said(
    store: Database, judgings: tuple[str, str]
) -> None:
    first, second = judgings
    retract(store, first, "a broken judge")
    said = retract(store, "run0", "another checkpoint")
    assert said == f"Run run0 is retracted, with all of its judgings: {first}, {second}."
    assert shown(store) == {"run1.judge"}
    with pytest.raises(UsageError, match=r"Run run0 was retracted already .another checkpoint."):
        retract(store, second, "too")
    with pytest.raises(UsageError, match=r"is not retracted; its run run0 is \(another checkpoint\)\."):
        restore(store, second)
    said = restore(store, "run0")
    assert said == f"Run run0 is no longer retracted; retracted by themselves are its judgings {first}."
    assert shown(store) == {second, "run1.judge"}


def test_a_retracted_judging_is_not_compared_nor_judged_anew_unnoticed(
    store: Database, judgings: tuple[str, str]
) -> None:
    first, _ = judgings
    with store.write() as session:
        card = JudgeCard("litellm:judge", "judge", "1")
        made = register_judging(session, "run1", Judges(card)).judging_id
    assert made is not None
    retract(store, first, "a broken judge")
    with pytest.raises(UsageError, match=f"{first} was retracted .a broken judge."):
        compare(store, [first, "run1.judge"])
    retract(store, made, "asked too early")
    with store.write() as session, pytest.raises(UsageError, match=f"`vivace retract --undo {made}`"):
        register_judging(session, "run1", Judges(card))


def test_a_retraction_needs_a_reason_and_something_to_retract(store: Database, judgings: tuple[str, str]) -> None:
    with store.write() as session:
        session.add(Submission(id="s123", run_id="run0", judging_id=judgings[0], spec={}, status="complete"))
    with pytest.raises(UsageError, match="needs a reason"):
        retract(store, "run0", " ")
    with pytest.raises(UsageError, match="There is no run 'nobody'"):
        retract(store, "nobody", "x")
    with pytest.raises(UsageError, match="'s123' is a submission; name its run run0"):
        retract(store, "s123", "x")
    assert shown(store) == {*judgings, "run1.judge"}


def test_an_id_may_be_cut_where_no_other_begins_so(store: Database, judgings: tuple[str, str]) -> None:
    with store.write() as session:
        whole = session.get_one(Run, "run0")
        made_of = {column.name: getattr(whole, column.name) for column in Run.__table__.columns}
        for number, name in enumerate(("abcdef012345", "abcdef012345-2", "abcdff", "ab_d")):
            session.add(Run(**{**made_of, "id": name, "identity": name, "ordinal": number}))
    assert run_of(store, "abcdff") == run_of(store, "abcdf") == "abcdff"
    assert run_of(store, "abcdef012345") == "abcdef012345", "written in full, it is no beginning"
    assert run_of(store, "abc") is None, "too short to be meant"
    assert run_of(store, "ab%d") is None and run_of(store, "ab_d") == "ab_d"
    with pytest.raises(UsageError, match=r"'abcdef' begins several ids \(abcdef012345, abcdef012345-2\)"):
        run_of(store, "abcdef")
    with store.read() as session:
        assert find(session, "run0.str") is not None
        short = short_ids(session)
        assert short["abcdef012345-2"] == "abcdef012345-2" and short["abcdff"] == "abcdff"
        for whole, cut in short.items():
            found = find(session, cut)
            assert found is not None and found.run == whole
