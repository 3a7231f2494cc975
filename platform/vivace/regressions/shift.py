"""Who makes the nights: ticks are fired once by whoever sees them first, and dead workers' nights go to others."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import Heartbeat, is_alive
from vivace.engine.execution import StopSignal
from vivace.engine.setbacks import DEATHS_WITHOUT_PROGRESS
from vivace.regressions.alerts import incident_text, raise_alert
from vivace.regressions.nights import NightInterruptedError, conduct
from vivace.regressions.ticks import MOST_MISSED, next_tick, ticks_until
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.records import clock
from vivace.store.tables import NIGHT, Night, Schedule, Worker


def fire_due(database: Database, *, here: bool = False, now: datetime | None = None) -> list[str]:
    """Fire every tick that is due, each once whoever else looks at the same time; the ids of the new nights.

    Several ticks that nobody fired become one night, which says so. A tick that finds its job's night before still
    running, or waiting, makes none; where no worker serves its queue, that is an incident.

    Args:
        here: whether this process conducts the nights itself; else they are queued.
        now: the present moment, by default the database's clock.
    """
    with database.read() as session:
        time_now = now or clock(session)
        due = select(Schedule.id).where(Schedule.next_due_at <= time_now, Schedule.paused_at.is_(None))
        ids = session.scalars(due.order_by(Schedule.next_due_at)).all()
        waiting = session.scalars(select(Schedule).where(Schedule.next_due_at > time_now)).all()
    for job in waiting:
        _draw_near(database, job, time_now)
    fired = []
    for key in ids:
        with database.write() as session:
            night = _fire(session, key, time_now, here)
            if night is not None and night.status == "queued":
                fired.append(night.id)
    return fired


def _draw_near(database: Database, job: Schedule, time_now: datetime) -> None:
    """Beyond a job's next tick there is none to wait for: the clock was ahead when that one was set."""
    tick = next_tick(str(job.cron), job.time_zone, time_now)
    if job.next_due_at is not None and job.next_due_at > tick:
        with database.write() as session:
            late = (Schedule.id == job.id, Schedule.next_due_at > tick)
            session.execute(update(Schedule).where(*late).values(next_due_at=tick))


def _fire(session: Session, key: int, time_now: datetime, here: bool) -> Night | None:
    """Fire one job's tick; None where somebody else has."""
    job = session.scalars(select(Schedule).where(Schedule.id == key).with_for_update()).one_or_none()
    if job is None or job.cron is None or job.next_due_at is None or job.next_due_at > time_now:
        return None
    due = job.next_due_at
    ticks = ticks_until(job.cron, job.time_zone, due, time_now)
    job.next_due_at = next_tick(job.cron, job.time_zone, time_now)
    if session.scalar(select(Night.id).where(Night.schedule_id == key, Night.due_at == due)) is not None:
        return None  # fired already, before the clock was set back
    before = _still_open(session, key)
    night = _night(job, due, None if here else job.queue)
    if ticks > 1:
        count = f"{ticks - 1} or more" if ticks == MOST_MISSED else str(ticks - 1)
        night.message = f"{count} later ticks were missed since it was due, and this one run stands for them"
    if before is not None:
        night.status, night.ended_at = "ended", time_now
        waits = before.status == "queued" and before.queue is not None
        if waits and not _is_served(session, str(before.queue)):
            night.outcome = "incident"
            night.message = (
                f"no worker serves the queue '{before.queue}', in which the night {before.id} waits; start "
                f"`vivace worker --queue {before.queue}`"
            )
        else:
            night.outcome = "skipped"
            state = "still waiting for a worker that is free" if waits else "still running"
            night.message = f"the night {before.id} was {state}, so that this tick makes none"
    session.add(night)
    session.flush()
    if night.outcome == "incident":
        raise_alert(session, job, night, "incident", incident_text(job.name, str(night.message)), [])
    return night


def _is_served(session: Session, queue: str) -> bool:
    """Whether some worker that lives takes from a queue."""
    working = session.scalars(select(Worker).where(Worker.stopped_at.is_(None)))
    return any(queue in worker.queues and is_alive(session, worker.id) for worker in working)


def _still_open(session: Session, key: int) -> Night | None:
    """A job's night that has not ended. One that a process left that conducted it by itself is ended here."""
    query = select(Night).where(Night.schedule_id == key, Night.status != "ended").order_by(Night.created_at)
    for night in session.scalars(query):
        if night.queue is None and not is_alive(session, night.worker_id):
            night.status, night.outcome, night.ended_at = "ended", "skipped", clock(session)
            night.message = "the process that conducted it was stopped, and the next tick came"
        else:
            return night
    return None


def _night(job: Schedule, due: datetime | None, queue: str | None) -> Night:
    return Night(
        id=NIGHT + secrets.token_hex(5), schedule_id=job.id, due_at=due, queue=queue, status="queued", runs=[],
        baseline=[], causes=[],
    )  # fmt: skip


def left_here(database: Database) -> list[str]:
    """Nights whose process conducted them by itself and was stopped, the oldest first; they are queued again."""
    with database.write() as session:
        query = select(Night).where(Night.status != "ended", Night.queue.is_(None)).order_by(Night.created_at)
        left = [night for night in session.scalars(query) if not is_alive(session, night.worker_id)]
        for night in left:
            night.status, night.worker_id = "queued", None
        return [night.id for night in left]


def ask_for(database: Database, job: Schedule) -> str:
    """A night by hand: the id of one that was interrupted here, else of a new one."""
    with database.write() as session:
        left = select(Night).where(Night.schedule_id == job.id, Night.status != "ended", Night.queue.is_(None))
        for night in session.scalars(left.order_by(Night.created_at)):
            if not is_alive(session, night.worker_id):
                night.status, night.worker_id = "queued", None
                return night.id
        night = _night(job, None, None)
        session.add(night)
    return night.id


def claim(database: Database, night_id: str, worker_id: str) -> bool:
    """Make a queued night this worker's own; whether it is."""
    with database.write() as session:
        time_now = clock(session)
        taken = session.execute(
            update(Night)
            .where(Night.id == night_id, Night.status == "queued")
            .values(status="running", worker_id=worker_id, started_at=time_now)
            .returning(Night.id)
        ).all()
    return bool(taken)


def give_back(database: Database, night_id: str, worker_id: str) -> None:
    """Have a night of this worker's taken again, by it or another."""
    with database.write() as session:
        session.execute(
            update(Night)
            .where(Night.id == night_id, Night.status == "running", Night.worker_id == worker_id)
            .values(status="queued", worker_id=None)
        )


def settle_dead(database: Database, queues: list[str], worker_id: str) -> list[str]:
    """Put the nights of dead workers back into their queues; the ids of those that wait in them, the oldest first."""
    with database.read() as session:
        query = select(Night).where(Night.status != "ended", Night.queue.in_(queues)).order_by(Night.created_at)
        nights = session.scalars(query).all()
        dead = [
            night.id
            for night in nights
            if night.status == "running" and night.worker_id != worker_id and not is_alive(session, night.worker_id)
        ]
    for key in dead:
        with database.write() as session:
            _settle(session, key)
    with database.read() as session:
        waiting = select(Night.id).where(Night.id.in_([night.id for night in nights]), Night.status == "queued")
        return list(session.scalars(waiting.order_by(Night.created_at)))


def _settle(session: Session, key: str) -> None:
    night = session.scalars(select(Night).where(Night.id == key).with_for_update()).one_or_none()
    if night is None or night.status != "running" or is_alive(session, night.worker_id):
        return
    night.deaths += 1
    night.status, night.worker_id = "queued", None
    if night.deaths >= DEATHS_WITHOUT_PROGRESS:
        job = session.get_one(Schedule, night.schedule_id)
        night.status, night.outcome, night.ended_at = "ended", "incident", clock(session)
        night.message = f"{night.deaths} workers in a row stopped answering while they conducted it"
        raise_alert(session, job, night, "incident", incident_text(job.name, night.message), [])


def make(
    database: Database,
    settings: Settings,
    night_id: str,
    heartbeat: Heartbeat,
    stop: StopSignal,
    say: Callable[[str], None],
) -> Night | None:
    """Claim a night and conduct it; None where another has it.

    Raises:
        NightInterruptedError: it was stopped, and waits to be taken again.
    """
    if not claim(database, night_id, heartbeat.worker_id):
        return None
    try:
        return conduct(database, settings, night_id, heartbeat, stop, say)
    except NightInterruptedError:
        give_back(database, night_id, heartbeat.worker_id)
        raise


class NightShift:
    """What a worker does for regression jobs beside its submissions."""

    give_back = staticmethod(give_back)

    def look_after(self, database: Database, queues: list[str], worker_id: str) -> list[str]:
        """Fire what is due, and free dead workers' nights; the ids of nights that need a workflow."""
        fire_due(database)
        return settle_dead(database, queues, worker_id)

    def make(
        self,
        database: Database,
        settings: Settings,
        night_id: str,
        heartbeat: Heartbeat,
        stop: StopSignal,
        say: Callable[[str], None],
    ) -> str:
        """Conduct a night that was taken from a queue; its outcome."""
        try:
            night = make(database, settings, night_id, heartbeat, stop, say)
        except NightInterruptedError as error:
            say(f"{night_id} goes back into the queue: {error}")
            return "given back"
        if night is None:
            return "skipped"
        say(f"{night_id} {night.outcome}: {night.message}")
        return str(night.outcome)
