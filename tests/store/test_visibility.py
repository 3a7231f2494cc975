"""Private runs and hidden items: what only the owner and the operator may see is in nobody else's answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import aliased

from support.judged import add_dataset, add_judging
from support.measured import run_of
from support.program import vivace
from vivace.analysis.breakdown import breakdown
from vivace.analysis.comparison import compare
from vivace.analysis.gaps import gaps
from vivace.engine.access.withholding import hide_items, set_private
from vivace.errors import UsageError
from vivace.interchange.judged import judged_of
from vivace.settings import Settings
from vivace.store import tables, visibility
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import find, judgings_of, short_ids
from vivace.store.migrate import open_for_writing
from vivace.store.queries.board import board, data_version
from vivace.store.queries.conversation import conversation, conversations, item_rows, turns_of_run
from vivace.store.queries.efficiency import arm_board, diagnoses, trial_rows
from vivace.store.queries.explorer import Wanted, page_of
from vivace.store.queries.heard import criterion_texts, heard_by
from vivace.store.queries.log import log
from vivace.store.queries.regressions import jobs
from vivace.store.queries.submissions import submissions
from vivace.store.records import add_event
from vivace.store.tables import Model, Schedule
from vivace.store.verdicts import standing_judgings
from vivace.store.visibility import HIDDEN, NOBODY, OPERATOR, Ownership, Viewer
from vivace.tracks.rows import ensure_run

SECRET = "canary"
ALICE, BOB, NURSE = Viewer("alice@example.org"), Viewer("bob@example.org"), Viewer("admin@example.org", sees_all=True)
PASSED, FAILED = [[True, True]], [[False, True]]
SHOWN, ALICES, ARMS = "run0", "run1", "r1"


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A public run with a telling text wherever items have one, and two private ones: Alice's, and the operator's."""
    opened = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with opened.write() as session:
        shared, own = add_dataset(session, 2), add_dataset(session, 2, name=f"{SECRET}-set")
        add_judging(session, shared, [PASSED, FAILED], name="open")
        add_judging(session, shared, [PASSED, PASSED], name=SECRET, owner=ALICE.name, private_since=now())
        add_judging(session, own, [PASSED, PASSED], name=f"{SECRET} again", private_since=now())
        for run, name in ((SHOWN, "plain"), (ALICES, SECRET)):
            submission = tables.Submission(
                id=f"s-{run}", run_id=run, judging_id=f"{run}.judge", spec={"model": name}, status="queued",
                queue="default", message=name,
            )  # fmt: skip
            session.add(submission)
            session.flush()
            add_event(session, f"{name} submitted", run_id=run, submission_id=f"s-{run}")
        session.add(
            Schedule(name=f"{SECRET} job", spec={"track": "x", "model": "m", "private": True}, baseline="window",
                     gates={}, time_zone="UTC", queue="default", email=[])
        )  # fmt: skip
    run_of(opened, private_since=now())
    yield opened
    opened.close()


def everything(database: Database) -> str:
    """All that readers ask of the store, of every run that there is, as text."""
    with database.engine.connect() as connection:
        runs = list(connection.scalars(select(tables.Run.__table__.c.id)))
        names = list(connection.scalars(select(tables.Conversation.__table__.c.external_id)))
    seen: list[Any] = [board(database, include_retracted=True), arm_board(database), gaps(database), jobs(database)]
    seen += [submissions(database), standing_judgings(database)]
    for run in runs:
        seen += [arm_board(database, run=run), trial_rows(database, run), diagnoses(database, run, "sparse")]
        seen += [log(database, run), judgings_of(database, run)]
        judging = f"{run}.judge"
        seen += [conversations(database, judging), item_rows(database, judging)]
        seen += [page_of(database, [f"{SHOWN}.judge", judging], Wanted(differs=True))]
        seen += [page_of(database, [judging], Wanted()), page_of(database, [judging], Wanted(text=SECRET))]
        seen += [conversation(database, judging, name) for name in names[::2]]
        for ask in (lambda one: breakdown(database, one, "axis"), lambda one: judged_of(database, one)):
            try:
                seen.append(ask(judging))
            except (UsageError, StopIteration, LookupError) as error:
                seen.append(str(error).replace(judging, ""))
    with database.read() as session:
        seen += [criterion_texts(session, 1), [heard_by(session, run) for run in runs]]
        seen += [short_ids(session), [find(session, run[:4]) for run in runs]]
        shown = session.scalars(select(tables.Run)).all()
        seen += [turns_of_run(session, run) for run in shown if run.track == "audio-multichallenge"]
    return repr(seen)


def test_a_private_run_is_there_for_its_owner_and_the_operator_alone(database: Database) -> None:
    for viewer in (NOBODY, BOB):
        told = everything(database.seen_by(viewer))
        assert SECRET not in told and ALICES not in told and "open" in told, viewer
        assert "'sparse'" not in told, "arms of a private run"
    mine = everything(database.seen_by(ALICE))
    assert {row.model for row in board(database.seen_by(ALICE))} == {"open", SECRET}
    assert f"{SECRET} again" not in mine and f"{SECRET}-set" not in mine and f"{SECRET} job" not in mine
    assert {row.model for row in board(database.seen_by(NURSE))} == {"open", SECRET, f"{SECRET} again"}
    assert everything(database.seen_by(OPERATOR)) == everything(database)


def test_a_private_run_of_the_operator_alone_is_withheld_from_people_with_names_too(database: Database) -> None:
    with database.write() as session:
        session.execute(update(tables.Run).values(private_since=None).where(tables.Run.id.in_((ALICES, ARMS))))
        session.execute(update(Schedule).values(spec={}))
    for viewer in (NOBODY, ALICE, BOB):
        assert {row.model for row in board(database.seen_by(viewer))} == {"open", SECRET}, viewer


def test_ranks_and_ties_are_those_of_what_is_seen(database: Database) -> None:
    (row,) = board(database.seen_by(NOBODY))
    assert (row.rank, row.tied, row.private) == (1, False, False)
    assert {(row.owner, row.private) for row in board(database)} >= {(None, False), (ALICE.name, True)}


def test_comparing_with_a_private_run_says_that_there_is_none(database: Database) -> None:
    for viewer in (NOBODY, BOB):
        with pytest.raises(UsageError, match="There is no"):
            compare(database.seen_by(viewer), [f"{SHOWN}.judge", f"{ALICES}.judge"])


def test_the_boards_version_changes_where_as_much_is_seen_as_before(database: Database) -> None:
    public, alice = database.seen_by(NOBODY), database.seen_by(ALICE)
    with database.write() as session:
        session.execute(update(tables.Judging).values(ended_at=now()))
        again = session.scalars(select(tables.Run.id).where(tables.Run.id.not_in((SHOWN, ALICES, ARMS)))).one()
    versions = [data_version(public), data_version(alice)]
    set_private(database, ALICES, True, BOB.name)
    set_private(database, again, True, ALICE.name)
    assert data_version(alice) != versions[1], "one run of hers for another"
    set_private(database, SHOWN, True)
    set_private(database, ALICES, False)
    assert data_version(public) != versions[0], "one public run for another"


def test_made_public_and_private_again_the_boards_version_changes_and_the_log_says_it(database: Database) -> None:
    public = database.seen_by(NOBODY)
    versions = [data_version(public)]
    for private in (False, True, True):
        assert ("private" if private else "public") in set_private(database, f"{ALICES}.judge", private)
        versions.append(data_version(public))
        assert (SECRET in everything(public)) is not private
    assert versions[0] != versions[1] != versions[2] and versions[2] == versions[3]
    assert data_version(public) != data_version(database.seen_by(ALICE))
    versions = [data_version(public)]
    with database.write() as session:
        session.scalars(select(Model)).first().licence = "apache-2.0"  # type: ignore[union-attr]
    assert data_version(public) not in versions, "a card says something else"
    set_private(database, SHOWN, True, BOB.name)
    assert {row.model for row in board(database.seen_by(BOB))} == {"open"} and not board(public)
    assert "private: bob@example.org sees it" in repr(log(database, SHOWN))
    with pytest.raises(UsageError, match="no run 'nothing'"):
        set_private(database, "nothing", True)


def hide(database: Database) -> None:
    """Plant telling texts in all columns that tell of items of the shared set, and hide it."""
    with database.write() as session:
        session.execute(update(tables.Turn).values(transcript=SECRET, audio_sha256=SECRET))
        session.execute(update(tables.Criterion).values(text=SECRET, machine_check={"contains": SECRET}))
        heard = [{"number": 1, "text": SECRET, "unscored": None, "detail": None, "errors": 0, "words": 1,
                  "seconds": 1.0, "cost_usd": None}]  # fmt: skip
        session.execute(
            update(tables.Reply).values(text=SECRET, raw_text=SECRET, audio_sha256=SECRET, heard=heard, detail=SECRET)
        )
        session.execute(update(tables.Verdict).values(explanation=SECRET))
        session.add(
            tables.Attempt(run_id=SHOWN, stage="judge", seconds=1.0, error="unreadable", detail=f"said {SECRET}")
        )
        session.execute(update(tables.Run).values(private_since=None).where(tables.Run.id.in_((SHOWN, ARMS))))
        trial = session.scalars(select(tables.Trial)).first()
        assert trial is not None
        trial.measurements = {**trial.measurements, "answer": SECRET}
    hide_items(database, [1, 3], True)


def test_hidden_items_are_blank_while_scores_counts_and_comparisons_stay(database: Database) -> None:
    open_items = everything(database.seen_by(NOBODY))
    before = board(database.seen_by(NOBODY))
    hide(database)
    for viewer in (NOBODY, BOB):
        public = database.seen_by(viewer)
        assert SECRET not in everything(public)
        (row,) = board(public)
        assert row == before[0]
        assert [one.met for one in conversations(public, f"{SHOWN}.judge")] == [2, 1]
        assert breakdown(public, f"{SHOWN}.judge", "axis") == breakdown(database, f"{SHOWN}.judge", "axis")
    shown = conversation(database.seen_by(ALICE), f"{SHOWN}.judge", "set000")
    assert shown is not None and shown.reply is None
    assert [(one.text, one.met) for one in shown.verdicts] == [(HIDDEN, True), (HIDDEN, True)]
    assert SECRET in everything(database) and SECRET in everything(database.seen_by(NURSE))
    hide_items(database, [1, 3], False)
    assert SECRET in everything(database.seen_by(NOBODY)) and SECRET not in open_items


def test_hidden_texts_are_found_by_no_search_alias_or_part_of_a_query(database: Database) -> None:
    hide(database)
    other, reply = aliased(tables.Criterion), tables.Reply
    asked: list[Any] = [
        select(tables.Turn.transcript),
        select(func.length(reply.text)),
        select(other.number).where(other.text.contains(SECRET)),
        select(tables.Run.id).join(reply).where(reply.text == SECRET),
        select(tables.Conversation.id).where(
            tables.Conversation.id.in_(select(tables.Turn.conversation_id).where(tables.Turn.transcript == SECRET))
        ),
        select(select(tables.Verdict.explanation.label("said")).subquery().c.said),
    ]
    for query in asked:
        with database.seen_by(BOB).read() as session:
            found = session.execute(query.limit(5)).all()
            assert SECRET not in repr(found) and not (query is not asked[1] and found), query
        with database.read() as session:
            assert session.execute(query.limit(5)).all(), "the operator's search finds it"
    assert page_of(database.seen_by(BOB), [f"{SHOWN}.judge"], Wanted(text=SECRET)).total == 0
    with database.seen_by(BOB).read() as session:
        assert session.scalar(select(func.count()).select_from(tables.Criterion)), "rows that are counted stay"


def test_a_published_site_holds_nothing_private_or_hidden(database: Database, tmp_path: Path) -> None:
    if not database.is_sqlite:
        pytest.skip("the pages are the same")
    hide(database)
    site = tmp_path / "site"
    done = vivace("publish", site, "--database", database.url, "--home", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text() for page in site.rglob("*") if page.is_file()}
    assert not [page for page, text in pages.items() if SECRET in text or ALICES in text]
    assert any("open" in text for text in pages.values()) and any(HIDDEN in text for text in pages.values())


def test_every_table_that_leads_to_a_run_a_job_or_a_set_is_under_the_rule() -> None:
    ruled = visibility._rules_of_rows(None)
    of_runs = {tables.Run.__table__, tables.Dataset.__table__, Schedule.__table__}
    while more := {
        table
        for table in tables.Base.metadata.sorted_tables
        if table not in of_runs and any(key.column.table in of_runs for key in table.foreign_keys)
    }:
        of_runs |= more
    assert {one.__table__ for one in ruled} >= of_runs


def test_whoever_looks_cannot_go_round_the_rule_and_writes_nothing(database: Database) -> None:
    with database.seen_by(NOBODY).read() as session:
        for statement in (select(tables.Run.__table__.c.id), text("SELECT id FROM run")):
            with pytest.raises(TypeError, match="mapped classes"):
                session.execute(statement)
        assert session.get(tables.Run, ALICES) is None
    with pytest.raises(TypeError, match="only read"), database.seen_by(ALICE).write():
        pass
    with database.write() as session:
        session.execute(text("SELECT 1"))


def test_nobody_is_given_anothers_run_for_asking_for_the_same(database: Database) -> None:
    values = {"track": "x", "dataset_id": 1, "model_id": 1, "input_form": "t", "items": [], "limited": False,
              "manifest": {}}  # fmt: skip

    def made(owner: str | None, private: bool = False, force: bool = False) -> tables.Run:
        with database.write() as session:
            return ensure_run(
                session, "i" * 64, values, ownership=Ownership(owner, private), force=force, run_id=None
            )

    first, second = made(ALICE.name, private=True), made(BOB.name)
    assert first.id != second.id and (first.private_since is None, second.private_since is None) == (False, True)
    assert made(ALICE.name).id == first.id and made(ALICE.name).private_since is not None
    assert made(BOB.name, private=True).id == second.id and made(BOB.name).private_since is not None
    assert made(None).id not in (first.id, second.id) and made(None).id == made(None).id
    assert made(ALICE.name, force=True).id not in (first.id, made(None).id)
    assert made(ALICE.name).ordinal == made(ALICE.name, force=False).ordinal == 3
