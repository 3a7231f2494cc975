"""Submissions to somebody else's Vivace: what `--server` does, over its API and with the token in `VIVACE_TOKEN`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from vivace.cli.common import say
from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.machine.environment import load_surroundings

if TYPE_CHECKING:
    import httpx

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        help="Address of somebody's Vivace API, to which VIVACE_TOKEN is the token.",
        envvar="VIVACE_SERVER",
        show_default="none, the database here",
    ),
]

KEYS = ("data", "model", "card", "private", "track")
"""What a spec that is sent away may say; the rest is the server's."""
MOST_WAITS = 20
LARGEST_REPLIES = 2**30
"""Bytes of a file of replies; the server says how many it takes."""


class Server:
    """A Vivace API.

    Args:
        address: its address; plain HTTP only to this machine, for whoever hears a token can use it.

    Raises:
        UsageError: the address or the token is missing or wrong.
    """

    def __init__(self, address: str) -> None:
        import httpx

        load_surroundings()
        parts = urlsplit(address)
        token = os.environ.get("VIVACE_TOKEN", "").strip()
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError(f"'{address}' is not the address of a server; write it as https://HOST.")
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError(f"'{address}' would send your token unencrypted; take https://.")
        if not token:
            raise UsageError("Set VIVACE_TOKEN to the token that the server's operator gave you; it is never a flag.")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise UsageError("VIVACE_TOKEN is no token; copy the line again that the operator gave you.")
        self._client = httpx.Client(
            base_url=address.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=120.0
        )

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """What the server answers, as JSON; where there were too many requests, they are made again.

        Raises:
            UsageError: the request is refused; the server says why.
            UnreachableError: nothing answers.
        """
        import httpx

        for _ in range(MOST_WAITS):
            try:
                answer = self._client.request(method, path, **request)
            except httpx.HTTPError as error:
                raise UnreachableError(f"The server does not answer ({error}); try again later.") from error
            if answer.status_code not in (429, 503):
                break
            time.sleep(_wait_s(answer))
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                raise VivaceError("What answers there is no Vivace API; check --server.") from error
        detail = _detail(answer)
        kind = UsageError if answer.is_client_error else UnreachableError
        raise kind(f"The server refuses this ({answer.status_code}): {detail}")

    def submit(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Send what a spec asks for: its outputs first, then the request.

        Raises:
            UsageError: the spec says what is the server's to say, or the server refuses it.
        """
        from vivace.models.registry import adapter_of
        from vivace.spec import read_card

        values = {str(key).replace("_", "-"): value for key, value in values.items()}
        if left := [key for key in values if key not in KEYS]:
            raise UsageError(
                f"'{left[0]}' is what the server says for each of its sets; a spec that is sent there holds data "
                "(the set's name there), model, card and private."
            )
        if missing := [key for key in ("data", "model") if not isinstance(values.get(key), str)]:
            raise UsageError(f"'{missing[0]}' is missing in the spec, or is no text.")
        card = read_card(Path(str(values["card"]))) if values.get("card") else {}
        model = str(values["model"])
        adapter, name = adapter_of(model), model.partition(":")[2]
        is_recorded = adapter is not None and adapter.capabilities.is_recorded
        asked: dict[str, Any] = {"set": values["data"], "private": bool(values.get("private", False))}
        asked["card"] = {"name": Path(name).stem if is_recorded else model, **_texts(card)}
        if is_recorded:
            asked["outputs"] = self._upload_replies(Path(name))
        else:
            asked["model"] = model
        found: dict[str, Any] = self.ask("POST", "/v1/submissions", json=asked)
        return found

    def _upload_replies(self, path: Path) -> str:
        """Send a file of replies, or a folder of recordings; every recording first, and in its name's place its hash.

        Raises:
            UsageError: something of it cannot be read, or the server refuses it.
        """
        from vivace.files.text import read_text
        from vivace.models.adapters.replay import recorded_replies

        replies = recorded_replies(path)
        if not replies.recordings:
            return self._upload(read_text(path, "file of replies", LARGEST_REPLIES).encode())
        say(f"sending {len(replies.recordings)} recordings")
        rows = dict(replies.rows)
        for key, file in replies.recordings.items():
            try:
                content = file.read_bytes()
            except OSError as error:
                raise UsageError(f"The recording '{file}' cannot be read ({error.strerror or error}).") from error
            rows[key] = {**rows[key], "audio": self._upload(content, f"The recording '{file}': ")}
        return self._upload("".join(f"{json.dumps(row)}\n" for row in rows.values()).encode())

    def _upload(self, content: bytes, what: str = "") -> str:
        try:
            return str(self.ask("POST", "/v1/uploads", content=content)["sha256"])
        except UsageError as error:
            raise UsageError(f"{what}{error}") from error


def _texts(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(value) if key == "size" else value for key, value in card.items()}


def _wait_s(answer: httpx.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(60.0, float(asked)) if asked.isdigit() else 5.0


def _detail(answer: httpx.Response) -> str:
    from vivace.output.printable import printable

    try:
        return printable(str(answer.json()["detail"]))[:1000]
    except (ValueError, KeyError, TypeError):
        return "it does not say why; check --server"
