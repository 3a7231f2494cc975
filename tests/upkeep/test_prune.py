"""What may go and what never goes: runs that something shows or refers to, and files that rows stand upon."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from engine import crowd
from support.program import vivace
from vivace.engine.claims.leases import Lease, register_worker, try_lease
from vivace.settings import Settings
from vivace.store.artifacts import open_artifacts
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.records import insert_new
from vivace.store.tables import Judging, Night, Reply, Run, Schedule, Submission, Worker
from vivace.store.trees import store_tree

RUNS = 10


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """Runs `run0` to `run9`, made a year ago and judged, of which all but the first two are open again."""
    crowd.prepare(database_url, RUNS, tmp_path / "home")
    database = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with database.write() as session:
        session.execute(update(Run).values(created_at=now() - timedelta(days=365)))
        session.execute(update(Judging).where(Judging.run_id.not_in(("run0", "run1"))).values(status="open"))
        session.execute(update(Judging).where(Judging.run_id.in_(("run0", "run1"))).values(status="ended"))
    yield database
    database.close()


def pruned(database: Database, home: Path, *options: object) -> list[str]:
    """The runs that the command names."""
    done = vivace("db", "prune", "--format", "json", "--home", home, "--database", database.url, *options)
    assert done.returncode == 0, done.stderr
    return [row["run"] for row in json.loads(done.stdout)]


def runs(database: Database) -> set[str]:
    """Those that are there."""
    with database.read() as session:
        return set(session.scalars(select(Run.id)))


def night(**values: Any) -> Night:
    """A night of the job 1."""
    return Night(schedule_id=1, status="ended", causes=[], **{"runs": [], "baseline": [], **values})


def test_only_what_nothing_shows_names_or_compares_with_may_go(database: Database, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with database.write() as session:
        session.execute(update(Run).where(Run.id == "run1").values(retracted_at=now(), retraction_reason="wrong"))
        session.add(
            Schedule(
                id=1, name="job", spec={"model": "x"}, baseline="run4", gates={}, time_zone="UTC", queue="default",
                email=[],
            )
        )  # fmt: skip
        session.flush()
        session.add(night(id="n1", runs=[{"stage": "gate", "run": "run2", "judging": None}], baseline=["run3"]))
        session.add(Submission(id="s5", run_id="run5", spec={}, queue="default", status="queued"))
        session.add(Submission(id="s6", run_id="run6", spec={}, status="incomplete", ended_at=now()))
        session.execute(update(Run).where(Run.id == "run8").values(created_at=now()))
        insert_new(
            session, Reply, [{"run_id": "run9", "conversation_id": 1, "repeat": 0, "text": "a", "created_at": now()}]
        )
    assert vivace("label", "run7", "+keep", "--home", home, "--database", database.url).stdout == "keep\n"
    assert pruned(database, home) == ["run9"]
    assert len(runs(database)) == RUNS, "named, and not removed"
    assert set(pruned(database, home, "--retracted")) == {"run1", "run9"}
    assert pruned(database, home, "--yes") == ["run9"]
    assert runs(database) == {f"run{number}" for number in range(RUNS - 1)}
    assert sorted(pruned(database, home, "--retracted", "--days", 0, "--yes")) == ["run1", "run6", "run8"]
    assert pruned(database, home, "--days", 0, "--yes") == []


def test_a_run_that_is_executed_stays(database: Database, tmp_path: Path) -> None:
    worker = register_worker(database, [], 600)
    with database.write() as session:
        crowd.queue_submission(session, "run9")
        session.get_one(Submission, "s").status = "complete"
    assert isinstance(try_lease(database, "s-1", worker, 600), Lease)
    assert "run9" not in pruned(database, tmp_path / "home", "--days", 0)
    pruned(database, tmp_path / "home", "--days", 0, "--yes")
    with database.read() as session:
        assert session.get(Worker, worker) is not None, "nor is a worker forgotten that lives"


def test_files_that_nothing_refers_to_go_and_those_of_rows_lists_and_the_last_day_stay(
    database: Database, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    store = open_artifacts(Settings(home=home))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("inside a folder that a spec names")
    tree = store_tree(store, tmp_path / "data")
    spoken, lost, fresh = store.put(b"a recording"), store.put(b"nobody's"), store.put(b"stored just now")
    again = store.put(b"old, and stored again")
    member = next(one.sha256 for one in store.listed() if b"inside" in store.get(one.sha256))
    listing = tree.partition(":")[2].partition("/")[0]
    for one in store.listed():
        if one.sha256 != fresh:
            os.utime(store.path(one.sha256), (time.time() - 10**6,) * 2)
    store.put(b"old, and stored again")
    with database.write() as session:
        session.add(Submission(id="s", run_id="run9", spec={"data": tree}, queue="default", status="queued"))
        session.execute(update(Run).where(Run.id == "run0").values(manifest={"deep": [{"file": spoken}]}))
    options = ["db", "prune", "--artifacts", "--days", 9999, "--home", home, "--database", database.url]
    said = vivace(*options)
    assert "1 files (0.0 MB)" in said.stderr
    assert "2 more are too young to tell" in said.stderr
    assert store.has(lost)
    done = vivace(*options, "--yes")
    assert done.returncode == 0, done.stderr
    assert {one.sha256 for one in store.listed()} == {spoken, fresh, again, member, listing}

    store.delete(listing)
    refused = vivace(*options, "--yes", "--grace", 0)
    assert refused.returncode == 1
    assert "Nothing is removed" in refused.stderr
    assert store.has(fresh)


def test_labels_are_shown_and_found_by_and_bad_ones_refused(database: Database, tmp_path: Path) -> None:
    place = ["--home", tmp_path / "home", "--database", database.url]
    with database.write() as session:
        session.add(Submission(id="s", run_id="run0", spec={}, queue="default", status="complete"))
    assert vivace("label", "run0", "+nightly", "+old", *place).stdout == "nightly\nold\n"
    assert vivace("label", "s", "-old", "+v1.2", *place).stdout == "nightly\nv1.2\n"
    for change in ("nightly", "+", "+two words", "+" + 41 * "x"):
        refused = vivace("label", "run0", change, *place)
        assert refused.returncode == 2, change
        assert "is no change of labels" in refused.stderr
    assert vivace("label", "nothing", "+a", *place).returncode == 2
    shown = json.loads(vivace("status", "--label", "nightly", "--format", "json", *place).stdout)
    assert [(row["id"], row["labels"]) for row in shown] == [("s", ["nightly", "v1.2"])]
    assert "Nothing bears the label 'old'" in vivace("status", "--label", "old", *place).stderr
    board = json.loads(vivace("leaderboard", "--label", "nightly", "--format", "json", *place).stdout)
    assert [row["run"] for row in board] == ["run0"]
