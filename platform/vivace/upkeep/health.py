"""Whether a process lives and is ready to work, and its figures, for those who watch over it by HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vivace.errors import UsageError, VivaceError
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database
from vivace.store.write_lock import stuck_writer


@dataclass(frozen=True)
class Health:
    """Whether a process can do its work now."""

    ok: bool
    reason: str
    """Why not; empty where it can."""

    def as_json(self) -> dict[str, Any]:
        """Both."""
        return {"status": "ok" if self.ok else "unavailable", "reason": self.reason}


def readiness(settings: Settings) -> Health:
    """Whether the database answers, is at this Vivace's schema, and can be written.

    A database that nobody has made yet is no hindrance: whoever writes first makes it.
    """
    try:
        database = Database(settings.database_url, read_only=True)
        try:
            found = migrate.state(database)
            if found not in ("current", "missing", "empty"):
                migrate.refuse(database, found)
            stuck = stuck_writer(database.path) if database.path is not None else None
        finally:
            database.close()
    except VivaceError as error:
        return Health(False, str(error))
    return Health(stuck is None, "" if stuck is None else stuck.sentence)


@contextmanager
def served(settings: Settings, address: str, is_alive: Callable[[], bool]) -> Iterator[str]:
    """Serve `/metrics`, `/health/live` and `/health/ready` from a thread while inside; where.

    Args:
        settings: of this process.
        address: `HOST:PORT`, or `:PORT` for this machine alone; port 0 is any that is free.
        is_alive: whether the process still does what it is there for.

    Raises:
        UsageError: the address cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        server = _Server((host, int(port)), _Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"Nothing can listen on '{address}' ({error}); write HOST:PORT.") from error
    server.settings, server.is_alive = settings, is_alive
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    settings: Settings
    is_alive: Callable[[], bool]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        """Answer one of the three addresses."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", _metrics(self.server.settings))
        elif path == "/health/live":
            self._tell(Health(self.server.is_alive(), "" if self.server.is_alive() else "it no longer works"))
        elif path == "/health/ready":
            self._tell(readiness(self.server.settings))
        else:
            self._answer(404, "text/plain; charset=utf-8", b"/metrics, /health/live, /health/ready\n")

    def _tell(self, health: Health) -> None:
        self._answer(200 if health.ok else 503, "application/json", json.dumps(health.as_json()).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who watches asks every few seconds."""


def _metrics(settings: Settings) -> bytes:
    from vivace.upkeep.metrics import exposition

    database = Database(settings.database_url, read_only=True)
    try:
        return exposition(database)
    finally:
        database.close()
