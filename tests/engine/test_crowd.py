"""Many processes on one database: nobody is locked out, and nothing is lost."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from engine import crowd
from engine.lab import opened
from vivace.store.tables import Attempt, Event, Reply, Verdict

WRITERS = 8
# Forked from a process that has loaded what they need, and has no threads and no connections.
forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["engine.crowd"])


def test_eight_writers_and_a_reader_share_one_sqlite_file(tmp_path: Path) -> None:
    _share_one_file(tmp_path, transactions=40)


@pytest.mark.full
def test_eight_writers_and_a_reader_share_one_sqlite_file_for_long(tmp_path: Path) -> None:
    _share_one_file(tmp_path, transactions=4000)


def _share_one_file(tmp_path: Path, transactions: int) -> None:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    runs = crowd.prepare(url, WRITERS, tmp_path / "home")
    start, stop, told = forked.Barrier(WRITERS + 1), forked.Event(), forked.Queue()
    writers = [forked.Process(target=crowd.write, args=(url, run, transactions, start, told)) for run in runs]
    reader = forked.Process(target=crowd.read, args=(url, WRITERS, start, stop, told))
    for process in (*writers, reader):
        process.start()
    try:
        said = [told.get(timeout=500) for _ in writers]
        stop.set()
        _, looks, longest_look = told.get(timeout=60)
    finally:
        for process in (*writers, reader):
            process.join(10)
            process.kill()
    assert [process.exitcode for process in (*writers, reader)] == [0] * (WRITERS + 1)
    committed = {run: count for run, count, _ in said}
    assert committed == dict.fromkeys(runs, transactions)
    with opened(url) as database, database.read() as session:
        found = dict(session.execute(select(Reply.run_id, func.count()).group_by(Reply.run_id)).all())
        for table in (Verdict, Attempt, Event):
            assert session.scalar(select(func.count()).select_from(table)) == sum(committed.values())
    assert found == committed
    assert looks > 0
    slowest = max(longest for _, _, longest in said)
    print(f"{sum(committed.values())} transactions by {WRITERS} writers, the slowest {slowest:.2f} s")
    print(f"{looks} looks at the board meanwhile, the slowest {longest_look:.2f} s")


def test_a_new_database_can_be_opened_by_several_processes_at_once(bare_database_url: str, tmp_path: Path) -> None:
    count = 5
    start, told = forked.Barrier(count), forked.Queue()
    processes = [
        forked.Process(target=crowd.open_new, args=(bare_database_url, tmp_path / "home", start, told))
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        assert [told.get(timeout=90) for _ in processes] == [None] * count
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    with opened(bare_database_url) as database, database.read() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == count
