"""What the tests of regression jobs share: a model and a judge that behave as a test says, and a place for alerts."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import vivace

CONVERSATIONS = 16


@dataclass
class World:
    """A folder with a database, a data set, and a server whose model and judge change when told."""

    folder: Path
    url: str
    data: Path
    server: ChatServer = field(init=False)
    failing: float = 0.0
    """The share of conversations to which the model says something wrong."""
    strict: float = 0.0
    """The share of right replies that the judge finds wrong."""
    status: int = 200
    """What the model's calls are answered with."""
    nights: int = 0

    def answer(self, call: Call) -> Answer:
        """Answer one call: of one conversation always alike, until something is changed."""
        text = json.dumps(call.body["messages"])
        if "judge" in call.model:
            right = "RIGHT" in text
            return verdict(right and _place(text) >= self.strict)
        if self.status != 200:
            spent = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
            return Answer(status=self.status, raw=json.dumps(spent).encode())
        place = _place(text)
        return Answer("WRONG answer" if place < self.failing else f"RIGHT answer for {text[-60:-30]!r}")

    def regress(self, *arguments: object, **changes: str) -> CompletedProcess[str]:
        """`vivace regress …` on this database."""
        common = ["--home", self.folder / "home", "--database", self.url]
        return vivace("regress", *arguments, *common, **changes)

    def add(self, name: str = "nightly", *more: object) -> CompletedProcess[str]:
        """A job over the whole set."""
        return self.regress(
            "add", name, "audio-multichallenge", "--data", self.data, "--model", "litellm:openai/talker",
            "--api-base", self.server.base, "--judge", "litellm:openai/judge", "--judge-api-base", self.server.base,
            "--retries", 0, *more,
        )  # fmt: skip

    def run(self, name: str = "nightly") -> CompletedProcess[str]:
        """One night."""
        return self.regress("run", name)

    def shown(self, name: str = "nightly") -> dict[str, Any]:
        """The job as JSON."""
        done = self.regress("show", name, "--format", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _place(text: str) -> float:
    """A number from 0 to 1 that belongs to the conversation a call is about."""
    found = re.search(r"user (\d+) (?:says|shouts)", text)
    number = "" if found is None else found[1]
    return int(hashlib.sha256(number.encode()).hexdigest()[:8], 16) / 2**32


@contextmanager
def world(folder: Path, url: str, conversations: int = CONVERSATIONS) -> Iterator[World]:
    """A world with its server."""
    rows = conversation_rows(conversations, turns=1, criteria=1, audio=False)
    for row in rows:
        row["rubric_checks"] = None
    made = World(folder, url, write_jsonl(folder / "data.jsonl", rows))
    with chat_server(made.answer) as server:
        made.server = server
        yield made


class Inbox:
    """A webhook on loopback: what it was sent, and what it answers."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.statuses: list[int] = []
        """What the next calls are answered with; 200 once they are used up."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(owner.statuses.pop(0) if owner.statuses else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    @contextmanager
    def open(self) -> Iterator[Inbox]:
        """Listen."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
