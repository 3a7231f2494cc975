"""The page of runs: queue and workers as they are, why one is not official, what failed, what made two differ."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from streamlit.testing.v1 import AppTest

from support.judged import add_dataset, add_judging
from vivace.settings import Settings, load_settings
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.log import log
from vivace.store.queries.runs import failures, manifest, runs, workers
from vivace.store.visibility import NOBODY, Viewer
from vivace_app import data, viewer
from vivace_app.tables import run_tables

ADDRESS = "http://10.0.0.5:8000"


def _page() -> None:
    from vivace_app.views import runs as view

    view.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run."""
    app = AppTest.from_function(_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


@pytest.fixture
def database(home: Path) -> Database:
    """Two runs, the second private, worked on by a worker that lives; another is silent, a third long gone."""
    opened = open_for_writing(Settings(home=home))
    with opened.write() as session:
        dataset = add_dataset(session, 4)
        add_judging(session, dataset, [[[True, True]]] * 4, name="open")
        add_judging(session, dataset, [[[True, None]]] * 2, name="secret", owner="alice", private_since=now())
        first, second = (session.get_one(tables.Run, f"run{number}") for number in range(2))
        first.manifest, second.manifest = {"python": "3.11", "packages": {"torch": "2.11"}}, {"python": "3.12"}
        for name, age, stopped in (("w-alive", 1, None), ("w-silent", 99, None), ("w-gone", 9e5, now())):
            session.add(tables.Worker(
                id=name, host="h", pid=1, process_started=0.0, queues=["default"], lease_seconds=30.0,
                heartbeat_at=now() - timedelta(seconds=age), stopped_at=stopped,
            ))  # fmt: skip
        session.add(tables.Worker(
            id="own", host="h", pid=2, process_started=0.0, queues=[], lease_seconds=30.0, stopped_at=now(),
        ))  # fmt: skip
        session.flush()
        for run, status, worker in (("run0", "queued", None), ("run1", "running", "w-alive")):
            session.add(tables.Submission(
                id=f"s-{run}", run_id=run, judging_id=f"{run}.judge", spec={}, queue="default", status=status,
                worker_id=worker, started_at=now() if worker else None,
            ))  # fmt: skip
        for error, detail in (("timeout", "first"), ("timeout", "second"), ("rate_limited", None)):
            session.add(tables.Attempt(run_id="run0", stage="generate", seconds=1.0, error=error, detail=detail))
        session.add(tables.Event(run_id="run0", level="info", message=f"<b>began</b> at {ADDRESS}/v1"))
    return opened


def test_what_the_page_asks_of_the_store(database: Database) -> None:
    found = {one.run: one for one in runs(database)}
    assert (found["run0"].status, found["run1"].status) == ("queued", "running")
    assert found["run1"].private and found["run1"].owner == "alice"
    assert any("a part of the data" in why for why in found["run1"].why_not["run1.judge"])
    assert [(one.worker, one.health, one.works_on) for one in workers(database)] == [
        ("w-alive", "alive", ["run1"]), ("w-silent", "silent", []),
    ]  # fmt: skip
    assert [(one.stage, one.reason, one.count, one.detail) for one in failures(database, "run0")][:2] == [
        ("calls: generate", "timeout", 2, "second"), ("calls: generate", "rate_limited", 1, None),
    ]  # fmt: skip
    assert [line.message for line in log(database, "run0")][-4:] == [
        line.message for line in log(database, "run0", 4)
    ]
    assert len(log(database, "run0", 2)) == 2
    differing = run_tables.manifest(manifest(database, "run0"), manifest(database, "run1")).set_index("What")
    assert list(differing.loc["python"]) == ["3.11", "3.12"]
    assert differing.loc["packages.torch"].isna()["The other"] and "track" not in differing.index


def test_private_runs_are_nowhere_for_others(database: Database) -> None:
    for person, ids in ((NOBODY, {"run0"}), (Viewer("bob"), {"run0"}), (Viewer("alice"), {"run0", "run1"})):
        seen = database.seen_by(person)
        assert {one.run for one in runs(seen)} == ids
        assert {run for one in workers(seen) for run in one.works_on} == ids - {"run0"}
        assert bool(manifest(seen, "run1")) == ("run1" in ids)


def test_the_page_shows_queue_workers_reasons_and_differences(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page()
    assert next(one.value for one in app.text if "running" in one.value) == "0 running, 1 waiting, 1 workers alive"
    texts = "\n".join(str(frame.value.to_dict()) for frame in app.dataframe)
    assert "secret" not in texts and "alice" not in texts  # nobody has logged in
    assert "w-silent" in texts and "timeout" in texts and "<b>began</b> at [address]" in texts
    assert ADDRESS not in texts, "the operator alone is told where servers are"
    asked: list[None] = []
    monkeypatch.setattr(viewer, "load_settings", lambda: asked.append(None) or load_settings())
    assert set(viewer.told_table(pd.DataFrame({"a": [f"at {ADDRESS}"] * 99}))["a"]) == {"at [address]"}
    assert len(asked) < 5, "not for each cell"
    monkeypatch.setenv("VIVACE_SHOW_PRIVATE", "1")
    assert any(ADDRESS in str(frame.value.to_dict()) for frame in page(run="run0").dataframe)
    assert any("not official" in one.value for one in app.warning)
    assert not page(run="gone").exception


def test_an_empty_database_says_how_to_fill_it(home: Path) -> None:
    open_for_writing(Settings(home=home)).close()
    assert [one.value for one in page().info]


def test_two_runs_are_set_beside_each_other_by_the_address(judgings: dict[str, str], home: Path) -> None:
    with Database(f"sqlite:///{home / 'vivace.db'}", read_only=True).read() as session:
        ids = list(session.scalars(select(tables.Run.id).limit(2)))
    app = page(run=ids[0], other=ids[1])
    assert app.selectbox(key="address-other").value == ids[1]


def test_a_queue_that_cannot_be_read_while_the_page_is_open_is_a_sentence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page()

    def gone(_database: Database) -> None:
        raise OperationalError("select 1", {}, Exception("no such table: run"))

    monkeypatch.setattr(data, "live", gone)
    app.run()
    assert not app.exception and "could not be read just now" in app.error[0].value
    assert any("Newest runs" in heading.value for heading in app.subheader), "the rest of the page stays"
