"""Machines that measure: what takes times takes its machine alone, and holds back everything else there."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import is_alive, this_machine
from vivace.store.records import clock, ensure
from vivace.store.tables import Machine, Shard, Worker

PATIENCE_S = 10.0
"""So long a machine is kept free for what waits to measure there, after it last asked."""


def why_not_now(session: Session, shard: Shard, worker_id: str) -> str | None:
    """Why a shard may not begin on this machine now; None where it may.

    What is timed waits until nothing else runs here, and from then on nothing new begins before it: otherwise it
    would wait for ever.
    """
    name = this_machine()
    ensure(session, Machine, {"id": name}, {})
    # All who begin something on this machine come one after the other.
    query = select(Machine).where(Machine.id == name).with_for_update(key_share=True)
    machine = session.scalars(query.execution_options(populate_existing=True)).one()
    running = session.execute(
        select(Shard.timed, Shard.worker_id)
        .join(Worker, Shard.worker_id == Worker.id)
        .where(Shard.status == "running", Worker.machine == name, Shard.worker_id != worker_id)
    )
    others = [(timed, other) for timed, other in running if is_alive(session, other)]
    time_now = clock(session)
    if shard.timed:
        if others:
            machine.awaited_by, machine.awaited_until = shard.id, time_now + timedelta(seconds=PATIENCE_S)
            return f"it takes this machine alone, and {others[0][1]} still works here"
        machine.awaited_by = machine.awaited_until = None
        return None
    measuring = next((other for timed, other in others if timed), None)
    if measuring is not None:
        return f"{measuring} measures on this machine"
    is_awaited = machine.awaited_until is not None and machine.awaited_until > time_now
    if is_awaited and machine.awaited_by != shard.id:
        return "this machine is awaited by what will measure here"
    return None
