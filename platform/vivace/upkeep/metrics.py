"""What is queued, done, failed and spent, and who works, as Prometheus reads it: asked anew at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import is_alive
from vivace.store.database import Database, DatabaseUnavailableError
from vivace.store.records import clock
from vivace.store.tables import Attempt, Shard, Submission, Worker
from vivace.store.write_lock import stuck_writer

HERE = "(here)"
"""The queue of what the submitting process executes itself."""
SHOWN_WORKERS = 1000
"""Workers that have not stopped, the last to give a sign of life first."""


def exposition(database: Database) -> bytes:
    """All figures in Prometheus' text form; `vivace_database_up 0` alone where the database does not answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(database))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Every figure, as of one moment."""
        try:
            with self._database.read() as session:
                found = [*_work(session), *_calls(session), *_workers(session)]
            up = 1.0
        except DatabaseUnavailableError:
            found, up = [], 0.0
        yield GaugeMetricFamily("vivace_database_up", "Whether the database answers.", value=up)
        if self._database.path is not None:
            stuck = stuck_writer(self._database.path) is not None
            yield GaugeMetricFamily("vivace_database_stuck", "Whether a process is frozen in a write.", value=stuck)
        yield from found


def _work(session: Session) -> Iterator[Metric]:
    """Submissions and the parts of them that are queued or executed."""
    submissions = GaugeMetricFamily(
        "vivace_submissions", "Submissions by how they stand.", labels=("queue", "status")
    )
    counted = select(Submission.queue, Submission.status, func.count()).group_by(Submission.queue, Submission.status)
    for queue, status, count in session.execute(counted):
        submissions.add_metric((queue or HERE, status), count)
    yield submissions
    parts = GaugeMetricFamily("vivace_parts", "Parts of submissions by how they stand.", labels=("queue", "status"))
    open_ones = (
        select(Submission.queue, Shard.status, func.count())
        .join(Submission, Shard.submission_id == Submission.id)
        .group_by(Submission.queue, Shard.status)
    )
    found = {(queue or HERE, status): count for queue, status, count in session.execute(open_ones)}
    for queue in sorted({queue for queue, _ in found}):
        for status in ("queued", "running"):
            parts.add_metric((queue, status), found.get((queue, status), 0))
    yield parts


def _calls(session: Session) -> Iterator[Metric]:
    """Sums over all calls, by stage."""
    calls = CounterMetricFamily(
        "vivace_calls", "Calls; `error` is empty of those that succeeded.", labels=("stage", "error")
    )
    tokens = CounterMetricFamily("vivace_tokens", "Tokens that servers reported.", labels=("stage", "kind"))
    cost = CounterMetricFamily("vivace_cost_usd", "US dollars, where a price is known.", labels=("stage",))
    seconds = CounterMetricFamily("vivace_call_seconds", "Seconds that calls took.", labels=("stage",))
    failures = select(Attempt.stage, Attempt.error, func.count()).group_by(Attempt.stage, Attempt.error)
    for stage, error, count in session.execute(failures):
        calls.add_metric((stage, error or ""), count)
    query = select(
        Attempt.stage,
        func.sum(Attempt.input_tokens),
        func.sum(Attempt.output_tokens),
        func.sum(Attempt.cost_usd),
        func.sum(Attempt.seconds),
    ).group_by(Attempt.stage)
    for stage, read, written, spent, took in session.execute(query):
        tokens.add_metric((stage, "input"), read or 0)
        tokens.add_metric((stage, "output"), written or 0)
        cost.add_metric((stage,), spent or 0)
        seconds.add_metric((stage,), took or 0)
    yield from (calls, tokens, cost, seconds)


def _workers(session: Session) -> Iterator[Metric]:
    """Who has not stopped, and how long ago each gave its last sign of life."""
    names = ("worker", "host")
    age = GaugeMetricFamily("vivace_worker_heartbeat_age_seconds", "Since the last sign of life.", labels=names)
    alive = GaugeMetricFamily("vivace_worker_alive", "Whether it may still be working.", labels=names)
    query = select(Worker).where(Worker.stopped_at.is_(None)).order_by(Worker.heartbeat_at.desc())
    time_now = clock(session)
    for worker in session.scalars(query.limit(SHOWN_WORKERS)):
        labels = (worker.id, worker.host.partition(":")[0])
        age.add_metric(labels, max(0.0, (time_now - worker.heartbeat_at).total_seconds()))
        alive.add_metric(labels, is_alive(session, worker.id))
    yield from (age, alive)
