"""Many processes on one database: nobody is locked out, and nothing is lost."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from sqlalchemy import func, select

from engine import crowd
from engine.lab import full_version, opened
from vivace.store.tables import Attempt, Event, Reply, Verdict

WRITERS = 8
SECONDS = 60.0 if full_version() else 10.0
spawn = multiprocessing.get_context("spawn")


def test_eight_writers_and_a_reader_share_one_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    runs = crowd.prepare(url, WRITERS, tmp_path / "home")
    start, stop, told = spawn.Barrier(WRITERS + 1), spawn.Event(), spawn.Queue()
    writers = [spawn.Process(target=crowd.write, args=(url, run, SECONDS, start, told)) for run in runs]
    reader = spawn.Process(target=crowd.read, args=(url, WRITERS, start, stop, told))
    for process in (*writers, reader):
        process.start()
    try:
        said = [told.get(timeout=SECONDS + 90) for _ in writers]
        stop.set()
        _, looks, longest_look = told.get(timeout=60)
    finally:
        for process in (*writers, reader):
            process.join(10)
            process.kill()
    assert [process.exitcode for process in (*writers, reader)] == [0] * (WRITERS + 1)
    committed = {run: count for run, count, _ in said}
    with opened(url) as database, database.read() as session:
        found = dict(session.execute(select(Reply.run_id, func.count()).group_by(Reply.run_id)).all())
        for table in (Verdict, Attempt, Event):
            assert session.scalar(select(func.count()).select_from(table)) == sum(committed.values())
    assert found == committed
    assert looks > 0
    slowest = max(longest for _, _, longest in said)
    print(f"{sum(committed.values()) / SECONDS:.0f} transactions/s by {WRITERS} writers, the slowest {slowest:.2f} s")
    print(f"{looks} looks at the board meanwhile, the slowest {longest_look:.2f} s")


def test_a_new_database_can_be_opened_by_several_processes_at_once(database_url: str, tmp_path: Path) -> None:
    count = 5
    start, told = spawn.Barrier(count), spawn.Queue()
    processes = [
        spawn.Process(target=crowd.open_new, args=(database_url, tmp_path / "home", start, told))
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
    with opened(database_url) as database, database.read() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == count
