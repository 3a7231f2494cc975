"""Quotas that hold over all workers of a run: taken in parts, given back unused, expired where a worker died."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import crowd
from vivace.engine.claims import quotas
from vivace.engine.claims.quotas import BUDGET_S, SharedQuotas
from vivace.models.client.pacing import CallPace, rates_are_shared
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.tables import Attempt


class Clock:
    """The time of the database and of each process, which goes on when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: datetime = now()
        self.own = 1000.0
        monkeypatch.setattr(quotas, "clock", lambda session: self.now)
        monkeypatch.setattr(quotas, "time", SimpleNamespace(monotonic=lambda: self.own))

    def pass_by(self, seconds: float) -> None:
        """Let time go on."""
        self.now += timedelta(seconds=seconds)
        self.own += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still."""
    return Clock(monkeypatch)


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with one run."""
    crowd.prepare(database_url, 1, tmp_path / "home")
    database = Database(database_url)
    yield database
    database.close()


def _taken(shared: SharedQuotas, per_minute: float, tries: int) -> int:
    """How many of so many calls may be made now."""

    async def take() -> int:
        return sum([await shared.take("model:requests", per_minute, 1) == 0 for _ in range(tries)])

    return asyncio.run(take())


def test_a_rate_holds_over_all_workers_and_over_any_minute(database: Database, clock: Clock) -> None:
    workers = [SharedQuotas(database, "run0", f"worker{number}") for number in range(3)]
    made: list[float] = []
    for _ in range(200):
        made += [clock.own] * sum(_taken(worker, 24, 3) for worker in workers)
        clock.pass_by(1)
    assert max(sum(moment <= each < moment + 60 for each in made) for moment in made) <= 24
    assert len(made) >= 0.7 * 24 * 200 / 66, "and next to all of it can be used"


def test_what_is_not_used_comes_back_at_once_and_what_the_dead_hold_after_a_while(
    database: Database, clock: Clock
) -> None:
    one, two = (SharedQuotas(database, "run0", name) for name in ("one", "two"))
    assert _taken(one, 12, 1) == 1
    assert _taken(one, 12, 11) == 11
    assert _taken(two, 12, 1) == 0
    clock.pass_by(67)
    assert _taken(two, 120, 1) == 1, "of ten that it has taken, one is used"
    two.close()
    assert _taken(one, 12, 12) == 11
    three = SharedQuotas(database, "run0", "three")
    clock.pass_by(67)
    assert _taken(three, 120, 1) == 1  # and dies
    assert _taken(one, 10, 1) == 0
    clock.pass_by(67)
    assert _taken(one, 10, 1) == 1


def test_a_call_larger_than_its_quota_has_a_minute_to_itself(database: Database, clock: Clock) -> None:
    one, two = (SharedQuotas(database, "run0", name) for name in ("one", "two"))
    assert asyncio.run(one.take("model:tokens", 100, 500)) == 0
    assert asyncio.run(two.take("model:tokens", 100, 1)) > 0
    clock.pass_by(67)
    assert asyncio.run(two.take("model:tokens", 100, 1)) == 0


def _spend(database: Database, shared: SharedQuotas, cost: float) -> None:
    with database.write() as session:
        session.add(Attempt(run_id="run0", stage="judge", seconds=0.1, cost_usd=cost))
    shared.spend(cost)


def test_a_budget_is_never_exceeded_by_more_than_the_calls_in_flight(database: Database, clock: Clock) -> None:
    workers = [SharedQuotas(database, "run0", f"worker{number}") for number in range(4)]
    spent, left = 0.0, set(workers)
    for _ in range(2000):
        for worker in list(left):
            may = asyncio.run(worker.take_budget(1.0))
            if may is None:
                left.discard(worker)
            elif may == 0:
                _spend(database, worker, 0.03)
                spent += 0.03
        if not left:
            break
        clock.pass_by(1)
    assert not left, "all hear that it is spent"
    assert 1.0 <= spent + 1e-9 < 1.0 + 0.03 * len(workers)


def test_a_dead_workers_budget_is_free_after_a_while(database: Database, clock: Clock) -> None:
    dead, alive = (SharedQuotas(database, "run0", name) for name in ("dead", "alive"))
    assert asyncio.run(dead.take_budget(1.0)) == 0
    _spend(database, alive, 0.9)
    assert asyncio.run(alive.take_budget(1.0)) not in (0, None), "the rest is held, and not spent"
    clock.pass_by(BUDGET_S + 1)
    assert asyncio.run(alive.take_budget(1.0)) == 0


def test_calls_take_their_part_of_what_is_shared(database: Database, clock: Clock) -> None:
    one, two = (SharedQuotas(database, "run0", name) for name in ("one", "two"))

    async def call(shared: SharedQuotas, tokens: int) -> None:
        pace = CallPace(tokens_per_minute=1000, name="model:m")
        with rates_are_shared(shared):
            async with pace.caller().turn(size=10) as turn:
                turn.ended(200, None, tokens)

    asyncio.run(call(one, 990))
    one.close()
    assert asyncio.run(two.take("model:m:tokens", 1000, 500)) > 0, "what it came to counts, not what was expected"
