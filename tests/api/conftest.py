"""The API over a database of its own, as a client meets it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from vivace.api.app import make_app
from vivace.api.bounds import server_options
from vivace.api.door import Door
from vivace.demo import SYSTEMS
from vivace.engine.access.tokens import create_token
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing

REPLIES = SYSTEMS[0].replies.read_bytes()
CARD = {"name": "A system"}


@dataclass
class Client:
    """Somebody who holds a token, or none."""

    http: TestClient
    token: str | None

    def __call__(self, method: str, path: str, **request: Any) -> Any:
        """Ask for something."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return self.http.request(method, path, headers={**headers, **request.pop("headers", {})}, **request)

    def upload(self, content: bytes = REPLIES, **request: Any) -> Any:
        """Send a file in."""
        return self("POST", "/v1/uploads", content=content, **request)

    def submit(self, **changes: Any) -> Any:
        """Have recorded replies judged."""
        asked: dict[str, Any] = {"set": "demo", "card": CARD}
        if "model" not in changes and "outputs" not in changes:
            asked["outputs"] = self.upload().json()["sha256"]
        return self("POST", "/v1/submissions", json={**asked, **changes})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home of its own."""
    return Settings(home=tmp_path / "home", database=None)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database behind the API."""
    opened = open_for_writing(settings)
    yield opened
    opened.close()


Guest = Callable[..., Client]


@pytest.fixture
def door() -> Door:
    """What is open; tests that need another one bring it."""
    return Door.model_validate({"limits": {"requests-per-minute": 100_000, "refusals-per-minute": 100_000}})


@pytest.fixture
def guest(settings: Settings, database: Database, door: Door) -> Guest:
    """Somebody with a token of these scopes, or with none."""
    http = TestClient(make_app(settings, database, door), raise_server_exceptions=False)

    def made(name: str | None, *scopes: str, **token: Any) -> Client:
        if name is None:
            return Client(http, None)
        return Client(http, create_token(database, name, scopes or ("submit", "read"), **token))

    return made


def lines(rows: list[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def server(settings: Settings, database: Database, door: Door) -> Iterator[int]:
    """The API behind a real socket, and its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        served = uvicorn.Server(uvicorn.Config(make_app(settings, database, door), **server_options(None)))
        thread = threading.Thread(target=lambda: served.run(sockets=[listener]), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        served.should_exit = True
        thread.join()
