"""Searching conversations: what matches, in which order, what lies beside it, and what is read for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from support.judged import add_dataset, add_judging
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.explorer import Came, Listed, Page, Wanted, page_of
from vivace.store.tables import Criterion, Turn

A: list[list[list[bool | None]]] = [
    [[True, True]], [[True, False]], [[None, True]], [[None, False]], [[True, True]], [[True, True]], [[False, True]],
]  # fmt: skip
B: list[list[list[bool | None]]] = [[[True, True]], [[True, True]], [[None, True]], [[True, True]], [[False, True]]]


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[tuple[Database, str, str]]:
    """Seven conversations of one to three turns under one judging, the first five also under another."""
    database = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with database.write() as session:
        dataset = add_dataset(session, 7, turns=(1, 2, 3), seconds=(1.0, 2.0, None, 4.0))
        judgings = [add_judging(session, dataset, found, name=name) for name, found in (("a", A), ("b", B))]
        session.execute(update(Turn).where(Turn.id == 1).values(transcript="Fifty % of Walnuts_"))
        session.execute(update(Criterion).where(Criterion.id == 14).values(text="It names no walnut."))
    yield database, judgings[0], judgings[1]
    database.close()


def ids(page: Page) -> list[str]:
    return [row.id for row in page.rows]


def test_a_page_tells_how_each_conversation_came_out(store: tuple[Database, str, str]) -> None:
    database, a, b = store
    page = page_of(database, [a, b], Wanted())
    assert page.rows[0] == Listed(
        "set000", "INFERENCE_MEMORY", 1, 1.0, (Came("pass", 1, 1, 2, 2), Came("pass", 1, 1, 2, 2))
    )
    assert [(row.user_turns, row.seconds) for row in page.rows[:4]] == [(1, 1.0), (2, 4.0), (3, None), (1, 4.0)]
    assert [row.came[0].result for row in page.rows] == ["pass", "fail", "unscored", "fail", "pass", "pass", "fail"]
    assert [row.came[1].result for row in page.rows[3:]] == ["pass", "fail", "absent", "absent"]
    assert (page.opened, page.previous, page.next, page.total) == ("set000", None, "set001", 7)


MATCHES: list[tuple[Wanted, list[int]]] = [
    (Wanted(axis="SELF_COHERENCE"), [2, 6]),
    (Wanted(axis="none such"), []),
    (Wanted(turns=(2, None)), [1, 2, 4, 5]),
    (Wanted(turns=(2, 2)), [1, 4]),
    (Wanted(turns=(None, 1), seconds=(1.5, None)), [3]),
    (Wanted(seconds=(None, 2.0)), [0, 4]),
    (Wanted(text="WALNUT"), [0, 6]),
    (Wanted(text="walnuts_"), [0]),
    (Wanted(text="50 %"), []),
    (Wanted(text="%"), [0]),
    (Wanted(text="set00"), [0, 1, 2, 3, 4, 5, 6]),
    (Wanted(results=("pass", None)), [0, 4, 5]),
    (Wanted(results=("unscored", None)), [2]),
    (Wanted(results=("fail", "pass")), [1, 3]),
    (Wanted(results=(None, "absent")), [5, 6]),
    (Wanted(differs=True), [1, 3, 4, 5, 6]),
    (Wanted(differs=True, results=(None, "fail")), [4]),
]


def test_what_matches(store: tuple[Database, str, str]) -> None:
    database, a, b = store
    for wanted, found in MATCHES:
        page = page_of(database, [a, b], wanted)
        assert (ids(page), page.total) == ([f"set{place:03d}" for place in found], len(found)), wanted


def test_nothing_is_unlike_where_there_is_one(store: tuple[Database, str, str]) -> None:
    database, a, _ = store
    assert page_of(database, [a], Wanted(differs=True)).total == 0


def test_pages_join_without_gap_or_overlap(store: tuple[Database, str, str]) -> None:
    database, a, _ = store
    wanted = Wanted(turns=(None, 2))  # 0, 1, 3, 4, 6
    seen: list[str] = []
    page = page_of(database, [a], wanted, size=2)
    while True:
        assert page.first == len(seen)
        seen += ids(page)
        for place, key in enumerate(ids(page)):
            here = page_of(database, [a], wanted, key, size=2)
            assert (ids(here), here.opened) == (ids(page), key)
            if place:
                assert here.previous == ids(page)[place - 1]
        if page.next_page is None:
            break
        following = page_of(database, [a], wanted, page.next_page, size=2)
        assert following.previous_page == ids(page)[0]
        assert page_of(database, [a], wanted, ids(page)[-1], size=2).next == ids(following)[0]
        page = following
    assert seen == ["set000", "set001", "set003", "set004", "set006"]
    assert page.next is None


def test_one_that_does_not_match_stands_between_its_neighbours(store: tuple[Database, str, str]) -> None:
    database, a, _ = store
    page = page_of(database, [a], Wanted(turns=(None, 2)), "set002", size=2)
    assert (page.opened, page.previous, page.next) == ("set002", "set001", "set003")
    assert ids(page) == ["set003", "set004"]
    assert page_of(database, [a], Wanted(), "unheard of").opened == "set000"


def test_no_search_reads_verdicts_replies_or_calls(store: tuple[Database, str, str]) -> None:
    database, a, b = store
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    everything = Wanted("SELF_COHERENCE", "set", (1, 9), (0.0, None), ("pass", "fail"), True)
    page_of(database, [a, b], everything, "set003")
    text = " ".join(asked).lower()
    assert "outcome" in text
    assert not any(f"{table}." in text for table in ("verdict", "reply", "attempt", "score"))
    assert len(asked) <= 10


def test_many_replies_come_out_as_a_share(database_url: str, tmp_path: Path) -> None:
    database = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with database.write() as session:
        dataset = add_dataset(session, 2)
        met, not_met = [True, True], [True, False]
        one = add_judging(session, dataset, [[met, not_met, met], [not_met, not_met, met]], name="one")
        other = add_judging(session, dataset, [[met, not_met, not_met], [met, not_met, not_met]], name="other")
    page = page_of(database, [one, other], Wanted(differs=True))
    database.close()
    assert ids(page) == ["set000"], "two of three is not one of three"
    assert page.rows[0].came == (Came("fail", 2, 3, 5, 6), Came("fail", 1, 3, 4, 6))
