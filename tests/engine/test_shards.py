"""Runs that are divided: parts are executed by several workers, and what comes out is what one would have made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from engine import crowd
from engine.lab import Gate, Lab, laboratory, opened, wait_until
from support.program import vivace
from vivace.engine import shards, submissions, work
from vivace.engine.claims import leases, machines
from vivace.engine.claims.leases import Heartbeat, register_worker
from vivace.engine.execution import StopSignal
from vivace.engine.submissions import cancel
from vivace.engine.work import Workplace
from vivace.engine.worker import drain
from vivace.errors import VivaceError
from vivace.machine.offers import parse_need, unmet
from vivace.settings import Settings
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.submissions import submissions as submission_views
from vivace.store.tables import Machine, Shard, Submission, Worker

CONVERSATIONS = 7


@pytest.fixture
def gate() -> Gate:
    """A server that answers at once."""
    return Gate()


@pytest.fixture
def lab(database_url: str, tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Seven conversations, in three parts."""
    monkeypatch.setattr(submissions, "SHARD_ITEMS", 2)
    with laboratory(tmp_path, database_url, gate, conversations=CONVERSATIONS) as lab:
        yield lab


@contextmanager
def _workplace(lab: Lab, name: str) -> Iterator[Workplace]:
    """A worker with a home of its own."""
    settings = Settings(home=lab.folder / name, database=lab.url)
    database = open_for_writing(settings)
    worker = register_worker(database, ["default"], 15)
    with Heartbeat(database, worker, 15) as heartbeat:
        place = Workplace(database, settings, heartbeat, StopSignal(), keeps_runs=True)
        yield place
        place.close()
    database.close()


def _statuses(lab: Lab) -> list[str]:
    with opened(lab.url) as database, database.read() as session:
        return list(session.scalars(select(Shard.status).order_by(Shard.submission_id, Shard.number)))


def _scores(lab: Lab) -> list[tuple[Any, ...]]:
    """Those of the judging that was scored last, without their times."""
    rows = lab.results()["score"]
    last = rows[-1][1]
    return [row[3:] for row in rows if row[1] == last and not str(row[3]).endswith("_s")]


def test_parts_come_out_as_the_whole_whoever_executes_them(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = lab.submit(concurrency=3)
    assert _statuses(lab) == ["queued", "waiting", "waiting"]
    both = threading.Barrier(2)
    finish, conclude, concluded = shards.finish, shards._conclude, []

    def at_once(*arguments: Any) -> Any:
        both.wait(60)
        return finish(*arguments)

    def counted(*arguments: Any) -> None:
        concluded.append(arguments[2])
        conclude(*arguments)

    with _workplace(lab, "one") as one, _workplace(lab, "two") as two:
        assert two.execute(f"{submission}-2").status == "skipped", "the first part opens the run"
        assert one.execute(f"{submission}-1").message == "part 1 of 3 is recorded"
        assert len(lab.server.calls) == 2
        assert _statuses(lab) == ["complete", "queued", "queued"]
        assert lab.view(submission).status == "running"
        with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
            patch.setattr(shards, "finish", at_once)
            patch.setattr(shards, "_conclude", counted)
            ends = [threads.submit(place.execute, f"{submission}-{n}") for place, n in ((one, 2), (two, 3))]
            messages = sorted(end.result(120).message for end in ends)
    assert concluded == ["complete"], "the last one scores, and nobody else"
    assert [message.startswith("part") for message in messages] == [False, True]
    view = lab.view(submission)
    assert (view.status, view.items_done, view.verdicts_done) == ("complete", 7, 14)
    assert (view.parts, view.parts_done, view.workers) == (3, 3, 0)
    assert lab.recorded() == {"reply": 7, "verdict": 14, "attempt": 7}
    scores = _scores(lab)
    assert vivace(*lab.run_arguments("--force")).returncode == 0
    assert _scores(lab) == scores


def test_a_part_whose_worker_dies_goes_to_another_and_nothing_is_asked_twice(lab: Lab) -> None:
    submission = lab.submit()
    with _workplace(lab, "one") as one:
        one.execute(f"{submission}-1")
        database = one._database
        dead = register_worker(database, ["default"], 15)
        assert shards.claim(database, f"{submission}-2", dead).is_mine
        one.execute(f"{submission}-3")
        with database.write() as session:
            ago = now() - timedelta(hours=1)
            session.execute(update(Worker).where(Worker.id == dead).values(heartbeat_at=ago, host="elsewhere"))
        assert shards.settle_dead(database, ["default"]) == [f"{submission}-2"]
        assert lab.view(submission).status == "queued"
        assert one.execute(f"{submission}-2").status == "complete"
    assert lab.view(submission).status == "complete"
    assert len(lab.server.calls) == CONVERSATIONS
    assert any(f"part 2 of 3: {dead} no longer answers; back in the queue" in line for line in lab.events(submission))


def test_a_part_that_fails_ends_the_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = lab.submit()

    def broken(*_: Any, **__: Any) -> None:
        raise VivaceError("this machine lacks something")

    with _workplace(lab, "one") as one:
        one.execute(f"{submission}-1")
        monkeypatch.setattr(work, "execute", broken)
        with pytest.raises(VivaceError):
            one.execute(f"{submission}-2")
    assert _statuses(lab) == ["complete", "failed", "cancelled"]
    view = lab.view(submission)
    assert (view.status, view.message) == ("failed", "part 2 of 3: this machine lacks something")


def test_cancelling_ends_parts_that_nobody_has_begun_and_asks_those_that_run(lab: Lab, gate: Gate) -> None:
    submission = lab.submit(concurrency=1)
    gate.hold_from = 4
    with _workplace(lab, "one") as one:
        one.execute(f"{submission}-1")
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(one.execute, f"{submission}-2")
            wait_until(lambda: gate.held == 1, "a call in flight")
            assert "will stop" in cancel(one._database, submission)
            one._heartbeat.beat()
            gate.hold_from = None
            gate.opened.set()
            assert running.result(120).status in ("cancelled", "complete")
    assert _statuses(lab)[2] == "cancelled"
    view = lab.view(submission)
    assert view.status == "cancelled"
    assert view.items_done == len(lab.server.calls) < CONVERSATIONS


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with a run in three parts, all queued."""
    (run,) = crowd.prepare(database_url, 1, tmp_path / "home")
    database = Database(database_url)
    with database.write() as session:
        crowd.queue_submission(session, run, parts=3)
    yield database
    database.close()


def test_what_is_timed_has_its_machine_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [register_worker(database, ["default"], 15) for _ in range(3)]
    with database.write() as session:
        session.execute(update(Shard).where(Shard.id == "s-2").values(timed=True))
    assert shards.claim(database, "s-1", workers[0]).is_mine
    waits = shards.claim(database, "s-2", workers[1])
    assert not waits.is_mine
    assert f"{workers[0]} still works here" in str(waits.refusal)
    refusal = shards.claim(database, "s-3", workers[2]).refusal
    assert "awaited" in str(refusal), "nothing new begins before it"
    shards.end(database, "s-1", "queued", "interrupted", workers[0])
    assert "awaited" in str(shards.claim(database, "s-1", workers[0]).refusal)
    assert shards.claim(database, "s-2", workers[1]).is_mine
    assert "measures on this machine" in str(shards.claim(database, "s-1", workers[0]).refusal)
    monkeypatch.setattr(machines, "this_machine", lambda: "another")
    assert shards.claim(database, "s-3", workers[2]).is_mine, "another machine has nothing to do with it"


def test_a_machine_that_is_awaited_by_nobody_any_more_is_free(database: Database) -> None:
    worker = register_worker(database, ["default"], 15)
    with database.write() as session:
        past = now() - timedelta(minutes=1)
        session.add(Machine(id=leases.this_machine(), awaited_by="gone", awaited_until=past))
    assert shards.claim(database, "s-1", worker).is_mine


def test_parts_are_side_by_side_and_two_submissions_of_one_run_are_not(database: Database) -> None:
    one, two, three = (register_worker(database, ["default"], 15) for _ in range(3))
    assert isinstance(leases.try_lease(database, "s-1", one, 15), leases.Lease)
    assert isinstance(leases.try_lease(database, "s-2", two, 15), leases.Lease)
    with database.write() as session:
        run = session.get_one(Submission, "s").run_id
        session.add(Submission(id="t", run_id=run, judging_id=None, spec={}, queue="default", status="queued"))
        session.flush()
        session.add(Shard(id="t-1", submission_id="t", number=1, needs=[], status="queued"))
    assert leases.try_lease(database, "t-1", three, 15) in (one, two)


@pytest.mark.parametrize(
    ("needs", "lacks"),
    [
        (["gpu", "gpu=h200", "gpu-memory=80", "memory=64", "german"], []),
        (["gpu=A100"], ["gpu=A100"]),
        (["gpu-memory=200GB", "memory=1000", "french"], ["gpu-memory=200", "memory=1000", "french"]),
    ],
)
def test_needs_are_held_against_what_a_machine_has(needs: list[str], lacks: list[str]) -> None:
    offers = {"gpus": [{"name": "NVIDIA H200", "memory_gb": 150.0}], "memory_gb": 128.0, "words": ["German"]}
    written = [str(parse_need(need)) for need in needs]
    assert unmet(written, offers) == lacks
    assert unmet(["gpu"], {"gpus": [], "memory_gb": 1.0, "words": []}) == ["gpu"]


def test_a_need_that_no_worker_meets_is_said_to_whoever_waits(database: Database) -> None:
    register_worker(database, ["default"], 15, {"gpus": [], "memory_gb": 8.0, "words": ["german"]})
    with database.write() as session:
        session.execute(update(Shard).values(needs=["german", "gpu=H200"]))
    (view,) = submission_views(database, "s")
    assert view.message == "no worker of the queue 'default' has what it needs: gpu=H200"


def test_workers_of_a_queue_that_is_drained_hear_of_it(database: Database) -> None:
    worker = register_worker(database, ["default"], 15)
    register_worker(database, ["slow"], 15)
    with Heartbeat(database, worker, 15) as heartbeat:
        heartbeat.beat()
        assert not heartbeat.drain_asked
        assert drain(database, ["default"]) == [worker]
        heartbeat.beat()
        assert heartbeat.drain_asked
    assert drain(database, ["default"]) == [], "it has ended"


@pytest.mark.parametrize("need", ["", "=", "gpu=", "memory=much", "gpu-memory", "memory=-1"])
def test_a_need_that_says_nothing_is_refused(need: str) -> None:
    with pytest.raises(ValueError, match=r"need|amount"):
        parse_need(need)
