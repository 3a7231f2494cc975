"""A server on loopback that speaks OpenAI's Realtime protocol, records it all, and behaves as a test says."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

PCM = bytes(range(256)) * 75
"""0.4 s of 16-bit sound at 24 kHz."""
DEFAULT_INSTRUCTIONS = "You are a helpful, witty, and friendly AI."
"""A system prompt of the server's own, as OpenAI's sessions start with."""


@dataclass
class Answer:
    """What the server does when a response is asked for."""

    text: str = "Hello there."
    audio: bytes | None = PCM
    """The spoken answer, `text` being its transcript; None for an answer in text."""
    status: str = "completed"
    details: dict[str, Any] | None = None
    raw: list[str] | None = None
    """Messages that replace the answer's events."""
    cut_after: int | None = None
    """Cut the connection after so many of the answer's messages."""
    close: tuple[int, str] | None = None
    """Close the connection after the messages, with this code and reason."""
    deaf: bool = False
    """Send the messages, then read nothing more, not even the closing of the connection."""


def error_event(kind: str, code: str | None, message: str) -> str:
    """An `error` event."""
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    return json.dumps({"type": "error", "event_id": "event_e", "error": error})


@dataclass
class Conversation:
    """One connection: what was asked in its handshake, and every message that came in."""

    path: str
    headers: dict[str, str]
    received: list[dict[str, Any]] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=dict)
    """The session's settings in effect."""
    items: list[tuple[str, str, str | bytes]] = field(default_factory=list)
    """Role, kind of content, and its text or samples, in the order of the conversation."""

    @property
    def kinds(self) -> list[str]:
        """The types of the messages."""
        return [str(event["type"]) for event in self.received]


Behaviour = Callable[[Conversation], Answer]


class RealtimeServer:
    """The server; `base` is its address, `conversations` what it was asked."""

    def __init__(self, behave: Behaviour, refuse: dict[str, Any] | None, refuse_session: str | None) -> None:
        self.conversations: list[Conversation] = []
        self._open: dict[ServerConnection, Conversation] = {}
        self._behave = behave
        self._refuse = refuse
        self._refuse_session = refuse_session
        self._stopping = threading.Event()
        self._server = serve(
            self._converse, "127.0.0.1", 0, process_request=self._greet, max_size=2**25, close_timeout=0.2
        )
        self.base = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close what listens and what is connected."""
        self._stopping.set()
        self._server.shutdown()

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        headers = {key.lower(): value for key, value in request.headers.raw_items()}
        conversation = self._open[connection] = Conversation(request.path, headers)
        self.conversations.append(conversation)
        if self._refuse is None:
            return None
        response = connection.respond(HTTPStatus(self._refuse["status"]), self._refuse.get("body", ""))
        for key, value in self._refuse.get("headers", {}).items():
            response.headers[key] = value
        return response

    def _converse(self, connection: ServerConnection) -> None:
        conversation = self._open[connection]
        model = conversation.path.partition("model=")[2]
        conversation.session = {
            "type": "realtime",
            "object": "realtime.session",
            "id": "sess_1",
            "model": f"{model}-snapshot",
            "instructions": DEFAULT_INSTRUCTIONS,
            "output_modalities": ["audio"],
            "audio": {
                "input": {"turn_detection": {"type": "server_vad"}},
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy"},
            },
        }
        with suppress(ConnectionClosed, OSError):
            _send(connection, "session.created", session=conversation.session)
            buffer = b""
            for message in connection:
                event = json.loads(message)
                conversation.received.append(event)
                if event["type"] == "session.update":
                    if self._refuse_session:
                        connection.send(self._refuse_session)
                        continue
                    _merge(conversation.session, event["session"])
                    _send(connection, "session.updated", session=conversation.session)
                elif event["type"] == "conversation.item.create":
                    (content,) = event["item"]["content"]
                    self._add(connection, conversation, event["item"]["role"], content)
                elif event["type"] == "input_audio_buffer.append":
                    buffer += base64.b64decode(event["audio"], validate=True)
                elif event["type"] == "input_audio_buffer.commit":
                    audio = base64.b64encode(buffer).decode()
                    self._add(connection, conversation, "user", {"type": "input_audio", "audio": audio})
                    buffer = b""
                elif event["type"] == "response.create":
                    self._answer(connection, self._behave(conversation))

    def _add(self, connection: ServerConnection, conversation: Conversation, role: str, content: Any) -> None:
        value = content["text"] if "text" in content else base64.b64decode(content["audio"], validate=True)
        conversation.items.append((role, content["type"], value))
        for kind in ("conversation.item.added", "conversation.item.done"):
            _send(connection, kind, item={"id": "item_1", "type": "message", "role": role, "content": [content]})

    def _answer(self, connection: ServerConnection, answer: Answer) -> None:
        messages = answer.raw if answer.raw is not None else _answer_events(answer)
        for message in messages[: answer.cut_after]:
            connection.send(message)
        if answer.cut_after is not None:
            connection.socket.shutdown(socket.SHUT_RDWR)
        elif answer.close is not None:
            connection.close(*answer.close)
        elif answer.deaf:
            with connection.protocol_mutex:  # what comes in stays unread
                self._stopping.wait(30)


def _send(connection: ServerConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, "event_id": "event_1", **fields}))


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(name), dict):
            _merge(settings[name], value)
        else:
            settings[name] = value


def _answer_events(answer: Answer) -> list[str]:
    place = {"event_id": "event_2", "response_id": "resp_1", "item_id": "item_2", "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"status": "in_progress"}}]
    spoken = answer.audio is not None
    text_kind = "response.output_audio_transcript.delta" if spoken else "response.output_text.delta"
    for start in range(0, len(answer.text), 5):
        events.append({"type": text_kind, "delta": answer.text[start : start + 5], **place})
    audio = answer.audio or b""
    for start in range(0, len(audio), 4801):  # pieces that end in the middle of a sample
        delta = base64.b64encode(audio[start : start + 4801]).decode()
        events.append({"type": "response.output_audio.delta", "delta": delta, **place})
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    response = {"id": "resp_1", "status": answer.status, "status_details": answer.details, "usage": usage}
    events.append({"type": "response.done", "event_id": "event_3", "response": response})
    return [json.dumps(event) for event in events]


@contextmanager
def realtime_server(
    behave: Behaviour | Answer | None = None,
    *,
    refuse: dict[str, Any] | None = None,
    refuse_session: str | None = None,
) -> Iterator[RealtimeServer]:
    """A running server.

    Args:
        behave: the answer to every conversation, or a function of the conversation.
        refuse: refuse every handshake with this `status`, `body` and `headers`.
        refuse_session: the message that answers `session.update` in place of accepting it.
    """
    answer = behave if behave is not None else Answer()
    function: Behaviour = (lambda _: answer) if isinstance(answer, Answer) else answer
    server = RealtimeServer(function, refuse, refuse_session)
    try:
        yield server
    finally:
        server.stop()
