"""The ordeal: workers that share a database and an artifact URL take many runs, and everything happens to them."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from engine.lab import Gate, opened, wait_until
from support.chat_server import Call, ChatServer, chat_server
from support.datasets import conversation_rows, write_jsonl
from support.program import PROGRAM, environment
from vivace.engine.claims.leases import is_alive
from vivace.engine.submissions import submit
from vivace.errors import VivaceError
from vivace.settings import Settings
from vivace.spec import parse_spec
from vivace.store.database import Database
from vivace.store.tables import ENDED, Attempt, Event, Judging, Reply, Run, Score, Shard, Submission, Verdict

CONCURRENCY = 4
LEASE_S = 15
"""As by default: on a machine that has too much to do, silence comes before death."""
LARGE = 40
"""Conversations of a run that is divided."""
SMALL = 5


@dataclass
class Report:
    """What was done and what was seen."""

    kills: int = 0
    kills_at_work: int = 0
    """Of workers that had a shard at that moment."""
    restarts: int = 0
    cuts: int = 0
    overlaps: list[str] = field(default_factory=list)
    """Moments at which something ran beside what is timed."""
    takeovers: int = 0

    def __str__(self) -> str:
        """In a line."""
        return (
            f"{self.kills} workers killed, {self.kills_at_work} at work; database stopped {self.restarts} times, "
            f"connections cut {self.cuts} times; {self.takeovers} shards taken over"
        )


@dataclass
class Ordeal:
    """Workers, each with a home of its own, and what happens to them."""

    folder: Path
    url: str
    artifacts: str
    server: ChatServer
    chance: random.Random
    stop_and_start: Callable[[], None] | None
    """Of the database; None where it is a file."""
    workers: dict[str, Popen[bytes]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    submissions: list[str] = field(default_factory=list)
    _hits: Counter[str] = field(default_factory=Counter)
    """Shard → how often its worker was killed."""

    def submit(self, number: int) -> None:
        """One run from the submitter's own folder; every eighth is large, and every seventh is timed."""
        is_large = number % 8 == 3
        spec = parse_spec(
            {
                "track": "audio-multichallenge",
                "data": str(self.folder / "submitter" / "data.jsonl"),
                "model": "litellm:openai/talker",
                "api_base": self.server.base,
                "judge": "checks",
                "model_arg": {"seed": number},
                "limit": LARGE if is_large else SMALL,
                "concurrency": CONCURRENCY,
            }
        )
        settings = Settings(home=self.folder / "submitter" / "home", database=self.url, artifacts=self.artifacts)
        while True:
            with suppress(VivaceError, SQLAlchemyError):  # the database may be away just now
                database, _, submission = submit(spec, settings, queue="default")
                break
            time.sleep(0.5)
        # Times are what is measured in minutes; the lock that guards them is the same for a short run.
        if number % 7 == 2 and not is_large:
            with suppress(VivaceError, SQLAlchemyError), database.write() as session:
                mine = update(Shard).where(Shard.submission_id == submission, Shard.status == "queued")
                session.execute(mine.values(timed=True))
        database.close()
        self.submissions.append(submission)

    def start_worker(self, name: str) -> None:
        """Start a worker in its own home."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        with (home / "log").open("ab") as log:
            self.workers[name] = Popen(
                [*PROGRAM, "worker", "--home", home, "--database", self.url, "--artifacts", self.artifacts,
                 "--lease", str(LEASE_S)],
                cwd=home, env=environment(VIVACE_ARTIFACTS_CACHE_GB="1"), stdout=DEVNULL, stderr=log,
            )  # fmt: skip

    def trouble(self) -> None:
        """One piece of trouble: mostly a worker is killed, one that works where there is one."""
        kind = self.chance.random()
        if kind < 0.15 and self.stop_and_start is not None:
            self.stop_and_start()
            self.report.restarts += 1
        elif kind < 0.35 and self.stop_and_start is not None:
            self._cut_connections()
        else:
            self._kill()

    def _cut_connections(self) -> None:
        with suppress(VivaceError, SQLAlchemyError), opened(self.url) as database, database.read() as session:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
            self.report.cuts += 1

    def _kill(self) -> None:
        """Kill a worker. A shard that three workers in a row die of is given up, and rightly: none is hit thrice."""
        held: dict[str, str] = {}
        with suppress(VivaceError, SQLAlchemyError), opened(self.url) as database, database.read() as session:
            running = select(Shard.worker_id, Shard.id).where(Shard.status == "running")
            held = {str(worker): shard for worker, shard in session.execute(running)}
        shards = {
            name: shard
            for name, process in self.workers.items()
            for worker, shard in held.items()
            if f"-{process.pid}-" in worker
        }
        spared = {name for name, shard in shards.items() if self._hits[shard] >= 2}
        busy = [name for name in shards if name not in spared]
        name = self.chance.choice(busy or [name for name in self.workers if name not in spared] or ["worker0"])
        self._hits[shards.get(name, "")] += 1
        self.workers[name].kill()
        self.workers[name].wait()
        self.report.kills += 1
        self.report.kills_at_work += name in busy
        self.start_worker(name)

    def look(self, database: Database) -> Counter[str]:
        """How many submissions have which status; what runs beside something timed is noted."""
        with database.read() as session:
            running = [
                (shard.id, shard.timed)
                for shard in session.scalars(select(Shard).where(Shard.status == "running"))
                if is_alive(session, shard.worker_id)
            ]
            if len(running) > 1 and any(timed for _, timed in running):
                self.report.overlaps.append(str(running))
            return Counter(session.scalars(select(Submission.status)))

    def go_through(self, seconds: float, runs: int) -> None:
        """Submit all runs and make trouble for so many seconds; then let all of them end."""
        began = time.monotonic()
        next_trouble = began + 8.0
        with opened(self.url) as database:
            while (passed := time.monotonic() - began) < seconds or len(self.submissions) < runs:
                if len(self.submissions) < runs and passed >= len(self.submissions) * 0.8 * seconds / runs:
                    self.submit(len(self.submissions))
                if time.monotonic() >= next_trouble and passed < seconds:
                    self.trouble()
                    next_trouble = time.monotonic() + self.chance.uniform(3.0, 9.0)
                with suppress(VivaceError, SQLAlchemyError):
                    self.look(database)
                time.sleep(0.1)

            def all_ended() -> bool:
                for name, worker in self.workers.items():
                    if worker.poll() is not None:
                        self.start_worker(name)
                with suppress(VivaceError, SQLAlchemyError):
                    statuses = self.look(database)
                    return statuses.total() == runs and set(statuses) <= set(ENDED)
                return False

            wait_until(all_ended, "all runs end", 600 + seconds)

    def check(self) -> None:
        """All ended complete, every result is there once, and was asked for no oftener than trouble explains."""
        with opened(self.url) as database, database.read() as session:
            rows = session.execute(select(Submission, Run).join(Run, Submission.run_id == Run.id)).all()
            wrong = {one.id: (one.status, one.message) for one, _ in rows if one.status != "complete"}
            assert not wrong, wrong
            assert set(self.submissions) <= {one.id for one, _ in rows}
            planned = {run.id: len(run.items) for _, run in rows}
            replies = dict(session.execute(select(Reply.run_id, func.count()).group_by(Reply.run_id)).all())
            assert replies == planned, "every reply once"
            verdicts = dict(
                session.execute(
                    select(Judging.run_id, func.count()).join(Verdict, Verdict.judging_id == Judging.id)
                    .group_by(Judging.run_id)
                ).all()
            )  # fmt: skip
            assert verdicts == {run: 2 * count for run, count in planned.items()}
            calls = dict(session.execute(select(Attempt.run_id, func.count()).group_by(Attempt.run_id)).all())
            assert calls == planned, "a call is recorded with its reply, and once"
            scored = session.scalars(select(Judging.id).where(Judging.status == "ended")).all()
            assert len(scored) == len(planned)
            assert set(session.scalars(select(Score.judging_id))) >= set(scored)
            ends = Counter(session.scalars(select(Event.submission_id).where(Event.message.startswith("complete: "))))
            assert set(ends.values()) == {1}, "each is concluded once"
            back = select(func.count()).where(Event.message.endswith("no longer answers; back in the queue"))
            self.report.takeovers = session.scalar(back.select_from(Event)) or 0
        asked = len(self.server.calls)
        losses = self.report.kills + (self.report.restarts + self.report.cuts) * len(self.workers)
        assert asked - sum(planned.values()) <= losses * CONCURRENCY, "only calls in flight are repeated"
        assert not self.report.overlaps, self.report.overlaps


@contextmanager
def ordeal(
    folder: Path,
    url: str,
    artifacts: str,
    *,
    workers: int,
    seed: int,
    stop_and_start: Callable[[], None] | None = None,
) -> Iterator[Ordeal]:
    """Workers at the beginning of an ordeal; what still runs of them is killed at the end."""
    (folder / "submitter").mkdir()
    rows = conversation_rows(LARGE, turns=1, audio=False)
    data = write_jsonl(folder / "submitter" / "data.jsonl", rows)
    gate = Gate(0.4)
    with chat_server(lambda call: _answer(gate, call)) as server:
        found = Ordeal(folder, url, artifacts, server, random.Random(seed), stop_and_start)
        found.submit(0)
        try:
            for number in range(workers):
                found.start_worker(f"worker{number}")
            yield found
        finally:
            for worker in found.workers.values():
                if worker.poll() is None:
                    worker.kill()
                worker.wait()
    assert data.is_file()


def _answer(gate: Gate, call: Call) -> Any:
    return gate(call)


def workers_said(folder: Path) -> str:
    """The end of what each worker said, for whoever looks into a failure."""
    logs = sorted(folder.glob("worker*/log"))
    return "\n".join(f"{log.parent.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs) + os.linesep
