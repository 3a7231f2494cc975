"""A dataset hub on loopback that holds one dataset, with the answers that `huggingface_hub` reads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Hub:
    """The server's content and address; a test may move a branch while it runs."""

    name: str
    commits: dict[str, dict[str, bytes]]
    """Commit → file name → content."""
    branches: dict[str, str]
    """Branch or tag → commit."""
    base: str = ""
    requests: list[str] = field(default_factory=list)
    """Method and path of every request."""

    def environment(self, cache: Path) -> dict[str, str]:
        """What points the client's library to this hub, with a cache of its own."""
        return {"HF_ENDPOINT": self.base, "HF_HOME": str(cache)}


@contextmanager
def hub_server(name: str, commits: dict[str, dict[str, bytes]], branches: dict[str, str]) -> Iterator[Hub]:
    """A running hub that holds one dataset."""
    hub = Hub(name, commits, branches)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing: tests read `requests`."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            described, files = f"/api/datasets/{hub.name}", f"/datasets/{hub.name}/resolve/"
            if path == described or path.startswith(f"{described}/revision/"):
                self._describe(path.removeprefix(described).removeprefix("/revision/") or "main")
            elif path.startswith(f"{described}/tree/"):
                self._list(path.removeprefix(f"{described}/tree/"))
            elif path.startswith(files):
                revision, _, file = path.removeprefix(files).partition("/")
                self._give(revision, file)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _describe(self, revision: str) -> None:
            commit = hub.branches.get(revision, revision)
            if commit in hub.commits:
                self._send_json({"id": hub.name, "sha": commit})
            else:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

        def _list(self, commit: str) -> None:
            if commit not in hub.commits:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            self._send_json(
                [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in hub.commits[commit].items()
                ]
            )

        def _give(self, revision: str, file: str) -> None:
            commit = hub.branches.get(revision, revision)
            content = hub.commits.get(commit, {}).get(file)
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"etag": f'"{etag}"', "x-repo-commit": commit})

        def _send_json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
