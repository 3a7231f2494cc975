"""Quotas over all workers of a run: taken from the database in small parts, given back unused, forgotten in time.

A part of a rate may be used for a few seconds, and counts until a minute after those are over: within any minute all
workers together stay within the rate. A worker that dies takes nothing with it for longer than that.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from vivace.models.client.pacing import WINDOW_S
from vivace.store.database import Database
from vivace.store.records import clock
from vivace.store.tables import Attempt, Reservation, Run, Submission

USABLE_S = 5.0
"""So long a part of a rate may be used; as a part of a minute, so much of the rate is taken at a time."""
BUDGET_S = 60.0
"""So long a part of a budget may be used."""
PART_OF_BUDGET = 8
"""What is left of a budget is taken in so many parts, the smallest of them a thousandth of the whole."""
LOOK_AGAIN_S = 0.5


@dataclass
class _Part:
    """What this worker holds of one quota."""

    row: int
    left: float
    until: float
    """On this process's own clock."""


class SharedQuotas:
    """One worker's share of the quotas of one run.

    Args:
        database: that all workers share.
        run_id: the run.
        worker_id: this worker.
    """

    def __init__(self, database: Database, run_id: str, worker_id: str) -> None:
        self._database, self._run_id, self._worker_id = database, run_id, worker_id
        self._parts: dict[str, _Part] = {}

    async def take(self, name: str, per_minute: float, amount: float) -> float:
        """Take so much of a rate: 0 where it is taken, else the seconds after which to ask again.

        Args:
            name: of the rate, the same with all workers.
            per_minute: the rate.
            amount: calls or tokens.
        """
        quota = f"{self._run_id}:{name}"
        part = self._parts.get(quota)
        if part is None or part.until < time.monotonic() or part.left < amount:
            wait_s = await asyncio.to_thread(self._reserve_rate, quota, per_minute, amount)
            if wait_s > 0:
                return wait_s
        self._parts[quota].left -= amount
        return 0.0

    def correct(self, name: str, surplus: float) -> None:
        """Note that a call took less than was taken for it, or, below 0, more."""
        part = self._parts.get(f"{self._run_id}:{name}")
        if part is not None:
            part.left += surplus

    async def take_budget(self, most: float) -> float | None:
        """See that another call may cost something: 0 where it may, else seconds; None where all is spent.

        Args:
            most: US dollars that the run's calls may cost in all.
        """
        quota = f"{self._run_id}:cost"
        part = self._parts.get(quota)
        if part is not None and part.until >= time.monotonic() and part.left > 0:
            return 0.0
        return await asyncio.to_thread(self._reserve_budget, quota, most)

    def spend(self, cost: float) -> None:
        """Note what calls have cost."""
        self.correct("cost", -cost)

    async def errors_of(self, submission_id: str) -> int:
        """Calls of a submission that have failed, with all workers."""

        def count() -> int:
            with self._database.read() as session:
                since = session.get_one(Submission, submission_id).started_at
                failed = select(func.count()).where(Attempt.run_id == self._run_id, Attempt.error.is_not(None))
                return session.scalar(failed.where(Attempt.created_at >= since)) or 0

        return await asyncio.to_thread(count)

    def close(self) -> None:
        """Give back what was not used."""
        with self._database.write() as session:
            for part in self._parts.values():
                _give_back(session, part)
        self._parts.clear()

    def _reserve_rate(self, quota: str, per_minute: float, amount: float) -> float:
        allowed, window_s = max(1.0, per_minute), WINDOW_S / min(1.0, per_minute)
        with self._database.write() as session:
            self._one_after_the_other(session)
            _give_back(session, self._parts.pop(quota, None))
            time_now = clock(session)
            session.execute(delete(Reservation).where(Reservation.quota == quota, Reservation.expires_at <= time_now))
            held = select(func.sum(Reservation.amount), func.min(Reservation.expires_at))
            taken, first_end = session.execute(held.where(Reservation.quota == quota)).one()
            room = allowed - (taken or 0.0)
            # What takes more than all there is in a minute has a minute to itself.
            if room < amount and not (amount > allowed and not taken):
                wait_s = (first_end - time_now).total_seconds() if first_end is not None else LOOK_AGAIN_S
                return max(LOOK_AGAIN_S, wait_s)
            granted = max(amount, min(room, allowed * USABLE_S / 60))
            part = self._row(session, quota, granted, USABLE_S + window_s)
        self._parts[quota] = _Part(part, granted, time.monotonic() + USABLE_S)
        return 0.0

    def _reserve_budget(self, quota: str, most: float) -> float | None:
        with self._database.write() as session:
            self._one_after_the_other(session)
            self._parts.pop(quota, None)
            time_now = clock(session)
            spent = session.scalar(select(func.sum(Attempt.cost_usd)).where(Attempt.run_id == self._run_id)) or 0.0
            # What this worker has spent is recorded by now; of the others the whole of what they hold counts.
            over = (Reservation.expires_at <= time_now) | (Reservation.worker_id == self._worker_id)
            session.execute(delete(Reservation).where(Reservation.quota == quota, over))
            held = session.scalar(select(func.sum(Reservation.amount)).where(Reservation.quota == quota)) or 0.0
            room = most - spent - held
            if room <= 0:
                return None if spent >= most else LOOK_AGAIN_S
            granted = min(room, max(room / PART_OF_BUDGET, most / 1000))
            part = self._row(session, quota, granted, BUDGET_S)
        self._parts[quota] = _Part(part, granted, time.monotonic() + BUDGET_S)
        return 0.0

    def _one_after_the_other(self, session: Session) -> None:
        session.execute(select(Run.id).where(Run.id == self._run_id).with_for_update(key_share=True))

    def _row(self, session: Session, quota: str, amount: float, seconds: float) -> int:
        expires_at = clock(session) + timedelta(seconds=seconds)
        row = Reservation(
            quota=quota, run_id=self._run_id, worker_id=self._worker_id, amount=amount, expires_at=expires_at
        )
        session.add(row)
        session.flush()
        return row.id


def _give_back(session: Session, part: _Part | None) -> None:
    """Let a reservation be what was used of it, less or more than was taken."""
    if part is not None and part.left:
        mine = update(Reservation).where(Reservation.id == part.row)
        session.execute(mine.values(amount=Reservation.amount - part.left))
