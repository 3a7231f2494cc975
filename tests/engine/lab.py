"""What the engine's tests share: one data set, one server, one database, and questions asked of them."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from sqlalchemy import func, select, text

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import start_vivace
from vivace.engine.submissions import submit
from vivace.settings import Settings
from vivace.spec import RunSpec, parse_spec
from vivace.store.database import Database
from vivace.store.queries.submissions import SubmissionView, submissions
from vivace.store.tables import Attempt, Event, Reply, Score, Verdict


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 300.0) -> Any:
    """Poll until the condition holds, and return what it returned; most of the time, sleep for those waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        before = time.process_time()
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(max(0.05, 4 * (time.process_time() - before)))


class Gate:
    """A server's behaviour: `yes` after a delay, but the calls of a number held back until the gate opens."""

    def __init__(self, delay_s: float = 0.0, hold_from: int | None = None) -> None:
        self.delay_s = delay_s
        self.hold_from = hold_from
        """The number of the first call (from 1) that is held back; None for none."""
        self.opened = threading.Event()
        self.text = "yes"
        self.held = 0
        self.let_go = 0
        """Calls that were held, and are so no more."""
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Answer:
        """Answer one call."""
        text = self.text
        with self._lock:
            self._count += 1
            hold = self.hold_from is not None and self._count >= self.hold_from
            self.held += hold
        if hold:
            self.opened.wait(600)
            self.let_go += 1
        answer = verdict(True) if "judge" in call.model else Answer(text)
        answer.delay_s = self.delay_s
        return answer


@dataclass
class Lab:
    """A database, a home folder, a data set and a server, and the commands that use them."""

    folder: Path
    url: str
    server: ChatServer
    data: Path
    processes: list[Popen[str]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The settings that the commands run under."""
        return Settings(home=self.folder / "home", database=self.url)

    @property
    def common(self) -> list[object]:
        """Options of every command."""
        return ["--home", self.folder / "home", "--database", self.url]

    def run_arguments(self, *more: object) -> list[object]:
        """`vivace run` on the whole data set, with machine checks for a judge unless `more` says otherwise."""
        return [
            "run", "audio-multichallenge", "--data", self.data, "--model", "litellm:openai/talker",
            "--api-base", self.server.base, "--judge", "checks", *self.common, *more,
        ]  # fmt: skip

    def spec(self, **changes: Any) -> RunSpec:
        """The same as a spec; None leaves a key out."""
        values = {
            "track": "audio-multichallenge",
            "data": str(self.data),
            "model": "litellm:openai/talker",
            "api_base": self.server.base,
            "judge": "checks",
        }
        return parse_spec({key: value for key, value in {**values, **changes}.items() if value is not None})

    def submit(self, *, queue: str = "default", **changes: Any) -> str:
        """Queue a spec, and return the submission's id."""
        database, _, submission_id = submit(self.spec(**changes), self.settings, queue=queue)
        database.close()
        return submission_id

    def start(self, *arguments: object, **changes: str) -> Popen[str]:
        """Start a command; it is killed at the end of the test if it still runs."""
        process = start_vivace(*arguments, cwd=self.folder, **changes)
        self.processes.append(process)
        return process

    def start_worker(self, *more: object) -> Popen[str]:
        """Start `vivace worker`."""
        return self.start("worker", *self.common, *more)

    def freeze(self, process: Popen[str]) -> None:
        """Stop a process between two of its transactions: one frozen within keeps its locks, and all others wait."""

        def stopped() -> bool:
            process.send_signal(signal.SIGSTOP)
            if not self._in_transaction():
                return True
            process.send_signal(signal.SIGCONT)
            return False

        wait_until(stopped, "a moment without a transaction")

    def _in_transaction(self) -> bool:
        if not self.url.startswith("sqlite"):
            with opened(self.url) as database, database.read() as session:
                writing = "backend_xid IS NOT NULL AND datname = current_database()"
                return bool(session.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {writing}")))
        for file in {Path(self.url.removeprefix("sqlite:///")), *self.settings.home.glob("*.db")}:
            connection = sqlite3.connect(file, timeout=0.2, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
            finally:
                connection.close()
        return False

    def view(self, submission_id: str) -> SubmissionView:
        """One submission as `vivace status` sees it."""
        with opened(self.url) as database:
            return submissions(database, submission_id)[0]

    def wait_for(self, submission_id: str, status: str, timeout_s: float = 300.0) -> SubmissionView:
        """Wait until a submission has a status."""

        def reached() -> SubmissionView | None:
            found = self.view(submission_id)
            return found if found.status == status else None

        view: SubmissionView = wait_until(reached, f"{submission_id} {status}", timeout_s)
        return view

    def recorded(self) -> dict[str, int]:
        """How many rows of results there are."""
        with opened(self.url) as database, database.read() as session:
            return {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in (Reply, Verdict, Attempt)
            }

    def results(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every result row in full."""
        with opened(self.url) as database, database.read() as session:
            return {
                table.__tablename__: [
                    tuple(row) for row in session.execute(select(*table.__table__.columns).order_by(table.id))
                ]
                for table in (Reply, Verdict, Attempt, Score)
            }

    def events(self, submission_id: str | None = None) -> list[str]:
        """The messages of the log, in order."""
        with opened(self.url) as database, database.read() as session:
            query = select(Event.message).order_by(Event.id)
            if submission_id is not None:
                query = query.where(Event.submission_id == submission_id)
            return list(session.scalars(query))


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database for reading."""
    database = Database(url, read_only=True)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def laboratory(
    folder: Path, url: str, behave: Callable[[Call], Answer], *, conversations: int, streams: bool = True
) -> Iterator[Lab]:
    """A lab with transcript data; what it started is killed at the end."""
    rows = conversation_rows(conversations, turns=1, audio=False)
    with chat_server(behave, streams=streams) as server:
        lab = Lab(folder, url, server, write_jsonl(folder / "data.jsonl", rows))
        try:
            yield lab
        finally:
            for process in lab.processes:
                if process.poll() is None:
                    process.kill()
                process.communicate()
