"""When jobs are due: cron lines over changes of summer time, and each tick fired once whoever looks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from engine.lab import Gate, laboratory, wait_until
from support.program import vivace
from vivace.engine.claims.leases import register_worker
from vivace.errors import UsageError
from vivace.regressions.shift import claim, fire_due, left_here, settle_dead
from vivace.regressions.ticks import next_tick, ticks_until
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.regressions import jobs
from vivace.store.tables import Alert, Night, Schedule

BERLIN = "Europe/Berlin"
LONGER_THAN_ANY_PAUSE = "600"
"""Seconds."""


def utc(*parts: int) -> datetime:
    """A moment in UTC."""
    return datetime(*parts, tzinfo=UTC)


def ticks(cron: str, after: datetime, count: int) -> list[str]:
    """The next ticks in Berlin, in UTC."""
    found = []
    for _ in range(count):
        after = next_tick(cron, BERLIN, after)
        found.append(after.astimezone(UTC).strftime("%d %H:%M"))
    return found


def test_a_daily_job_fires_once_on_the_days_that_summer_time_begins_and_ends() -> None:
    assert ticks("30 2 * * *", utc(2026, 3, 27, 12), 3) == ["28 01:30", "29 01:00", "30 00:30"]
    assert ticks("30 2 * * *", utc(2026, 10, 23, 12), 4) == ["24 00:30", "25 00:30", "26 01:30", "27 01:30"]
    assert ticks("0 3 * * *", utc(2026, 3, 28, 12), 2) == ["29 01:00", "30 01:00"]


def test_an_hourly_job_fires_every_hour_of_a_day_with_25_and_of_one_with_23() -> None:
    assert ticks("30 * * * *", utc(2026, 10, 24, 23, 40), 3) == ["25 00:30", "25 01:30", "25 02:30"]
    assert ticks("0 * * * *", utc(2026, 3, 29, 0, 30), 3) == ["29 01:00", "29 02:00", "29 03:00"]


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 30 2 *", "never comes to pass"),
        ("61 * * * *", "cannot be read"),
        ("every night", "cannot be read"),
        ("", "cannot be read"),
        ("R * * * *", "to chance"),
        ("0 0 3 * * * 2026", "names years"),
    ],
)
def test_cron_lines_that_cannot_be_get_a_sentence(cron: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        next_tick(cron, "UTC", utc(2026, 1, 1))


def test_missed_ticks_are_counted_and_no_further_than_is_of_use() -> None:
    due = utc(2026, 1, 1, 3)
    assert ticks_until("0 3 * * *", "UTC", due, due) == 1
    assert ticks_until("0 3 * * *", "UTC", due, due + timedelta(days=4)) == 5
    assert ticks_until("* * * * * *", "UTC", due, due + timedelta(days=4)) == 1000


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A new database with a job that is due at three o'clock."""
    opened = open_for_writing(Settings(home=tmp_path / "home", database=database_url))
    with opened.write() as session:
        session.add(
            Schedule(
                name="nightly", spec={"track": "audio-multichallenge", "model": "m"}, baseline="window", gates={},
                cron="0 3 * * *", time_zone="UTC", queue="default", email=[], next_due_at=utc(2026, 1, 1, 3),
            )
        )  # fmt: skip
    yield opened
    opened.close()


def nights(database: Database) -> list[Night]:
    """All nights, the oldest first."""
    with database.read() as session:
        return list(session.scalars(select(Night).order_by(Night.created_at, Night.due_at)))


def test_a_tick_is_fired_once_however_many_look_at_the_same_time(database: Database) -> None:
    assert fire_due(database, now=utc(2026, 1, 1, 2, 59)) == []
    with ThreadPoolExecutor(6) as threads:
        fired = [
            one
            for found in threads.map(lambda _: fire_due(database, now=utc(2026, 1, 1, 3)), range(6))
            for one in found
        ]
    assert len(fired) == 1
    assert [night.due_at for night in nights(database)] == [utc(2026, 1, 1, 3)]
    with database.read() as session:
        assert session.scalars(select(Schedule.next_due_at)).one() == utc(2026, 1, 2, 3)


def test_after_days_off_one_night_stands_for_the_missed_ones_and_says_so(database: Database) -> None:
    fire_due(database, now=utc(2026, 1, 5, 12))
    (night,) = nights(database)
    assert "4 later ticks were missed" in str(night.message)
    assert fire_due(database, now=utc(2026, 1, 5, 13)) == []


def test_a_tick_finds_its_job_still_running_and_makes_no_night(database: Database) -> None:
    (first,) = fire_due(database, now=utc(2026, 1, 1, 3))
    worker = register_worker(database, ["default"], 60)
    assert claim(database, first, worker)
    assert not claim(database, first, "another")
    assert fire_due(database, now=utc(2026, 1, 2, 3)) == []
    assert [night.outcome for night in nights(database)] == [None, "skipped"]
    assert first in str(nights(database)[1].message)


def test_ticks_that_made_no_night_hide_none_that_was_made(database: Database) -> None:
    with database.write() as session:
        (job,) = session.scalars(select(Schedule.id))
        for number, outcome in enumerate(["accepted", *["skipped"] * 5]):
            at = utc(2026, 1, 1 + number, 3)
            night = Night(id=f"n{number}", schedule_id=job, due_at=at, created_at=at, status="ended", outcome=outcome)
            night.runs, night.baseline, night.causes = [], [], []
            session.add(night)
    (view,) = jobs(database, nights=2)
    assert [night.outcome for night in view.nights] == ["accepted", "skipped", "skipped"]
    assert (view.made, view.state) == (1, "quiet")
    assert view.last_night is not None and view.last_night.id == "n0"


def test_a_night_that_no_worker_takes_is_an_incident_by_the_next_tick(database: Database) -> None:
    (first,) = fire_due(database, now=utc(2026, 1, 1, 3))
    fire_due(database, now=utc(2026, 1, 2, 3))
    assert [night.outcome for night in nights(database)] == [None, "incident"]
    assert "vivace worker --queue default" in str(nights(database)[1].message)
    with database.read() as session:
        assert [one.kind for one in session.scalars(select(Alert))] == ["incident"]
    assert settle_dead(database, ["default"], "me") == [first], "it still waits for a worker"


def test_a_dead_workers_night_goes_to_another_and_three_deaths_are_an_incident(database: Database) -> None:
    (night,) = fire_due(database, now=utc(2026, 1, 1, 3))
    for _ in range(2):
        assert claim(database, night, "dead")
        assert settle_dead(database, ["default"], "me") == [night]
    assert claim(database, night, "dead")
    assert settle_dead(database, ["default"], "me") == []
    assert nights(database)[0].outcome == "incident"


def test_a_night_made_by_hand_whose_process_died_stops_no_later_tick(database: Database) -> None:
    (night,) = fire_due(database, here=True, now=utc(2026, 1, 1, 3))
    assert claim(database, night, "dead")
    assert left_here(database) == [night]
    assert claim(database, night, "dead")
    assert len(fire_due(database, now=utc(2026, 1, 2, 3))) == 1
    assert [one.outcome for one in nights(database)] == ["skipped", None]


def test_a_clock_that_is_set_back_delays_no_tick_and_fires_none_twice(database: Database) -> None:
    def due() -> datetime:
        with database.read() as session:
            found = session.scalars(select(Schedule.next_due_at)).one()
            assert found is not None
            return found

    first = due()
    assert len(fire_due(database, now=first)) == 1
    second = due()
    fire_due(database, now=first + timedelta(days=365))
    assert due() > first + timedelta(days=364)
    fire_due(database, now=first - timedelta(minutes=1))
    assert due() == first, "and not in a year"
    count = len(nights(database))
    assert fire_due(database, now=first) == []
    assert due() == second
    assert len(nights(database)) == count


def test_a_paused_job_fires_nothing(database: Database) -> None:
    with database.write() as session:
        session.scalars(select(Schedule)).one().paused_at = utc(2026, 1, 1)
    assert fire_due(database, now=utc(2026, 1, 5)) == []


@pytest.mark.full
def test_three_workers_make_each_night_once_also_when_one_is_killed(database_url: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, database_url, Gate(0.02), conversations=2) as lab:
        made = vivace(
            "regress", "add", "often", *lab.run_arguments()[1:-4], *lab.common, "--cron", "*/4 * * * * *"
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        # A killed process is seen to be gone at once. A lease of few seconds is missed by live ones too on a busy
        # machine, where nights then wait for nobody, which is an incident.
        workers = [lab.start_worker("--lease", LONGER_THAN_ANY_PAUSE) for _ in range(3)]
        database = open_for_writing(lab.settings)

        def ended(count: int) -> bool:
            return sum(night.outcome == "accepted" for night in nights(database)) >= count

        wait_until(lambda: ended(2), "two nights", 600)
        busy = {worker.pid: worker for worker in workers}

        def caught() -> bool:
            running = [night.worker_id for night in nights(database) if night.status == "running"]
            return bool(running) and any(f"-{pid}-" in str(running[0]) and not busy[pid].kill() for pid in busy)

        wait_until(caught, "a worker is killed at its work", 600)
        before = sum(night.outcome == "accepted" for night in nights(database))
        wait_until(lambda: ended(before + 2), "nights go on", 600)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(300)
        found = nights(database)
        due = [night.due_at for night in found]
        assert len(due) == len(set(due))
        odd = [
            (night.outcome, night.message) for night in found if night.outcome not in ("accepted", "skipped", None)
        ]
        assert odd == []
        (job,) = jobs(database)
        assert {len(night.runs) for night in job.nights if night.outcome == "accepted"} == {1}
        database.close()
