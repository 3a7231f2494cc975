"""An OpenAI-compatible chat server on loopback that records what it is sent and behaves as a test says."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends back; `raw` replaces the chat completion by these very bytes."""

    text: str | None = "Hello there."
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    message: dict[str, Any] = field(default_factory=dict)
    """More fields of the message, for instance a refusal."""
    raw: bytes | None = None
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    announces_length: bool = True
    """Whether a content-length says where the body ends; else only the end of the connection does."""
    drip_s: float = 0.0
    """Send one byte and wait so long, again and again, and never come to the end."""
    endless: bytes = b""
    """Send this after the body, as fast as it is read, again and again, and never come to the end."""
    resets: bool = False
    """Reset the connection in place of an answer."""
    delay_s: float = 0.0


def verdict(met: object = True, explanation: object = "because") -> Answer:
    """A judge's answer in the form that is asked for."""
    return Answer(json.dumps({"explanation": explanation, "criteria_met": met}))


@dataclass
class Call:
    """One chat request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body["model"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages."""
        return list(self.body["messages"])


Behaviour = Callable[[Call], Answer]


class ChatServer:
    """The server; `base` is its address, `calls` what it was asked."""

    def __init__(
        self, behave: Behaviour, *, streams: bool, models: list[str] | None, get_status: int, port: int
    ) -> None:
        self.calls: list[Call] = []
        self.most_in_flight = 0
        """The most calls that were under way at one time."""
        self._in_flight = 0
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._behave = behave
        self._stopping = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                owner._connections.append(self.connection)

            def log_message(self, *_: object) -> None:
                """Nothing: tests read `calls`."""

            def do_GET(self) -> None:
                listed = {"object": "list", "data": [{"id": name} for name in models or []]}
                status = get_status if models is None else 200
                self._send(Answer(status=status), {"content-type": "application/json"}, json.dumps(listed).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                call = Call(body, {key.lower(): value for key, value in self.headers.items()})
                owner.calls.append(call)
                with owner._counted():
                    self._answer(call)

            def _answer(self, call: Call) -> None:
                answer = owner._behave(call)
                owner._stopping.wait(answer.delay_s)
                streamed = streams and bool(call.body.get("stream")) and answer.status == 200 and answer.raw is None
                content = _event_stream(call, answer) if streamed else _completion(call, answer)
                kind = "text/event-stream" if streamed else "application/json"
                self._send(answer, {"content-type": kind, **answer.headers}, content)

            def _send(self, answer: Answer, headers: dict[str, str], content: bytes) -> None:
                if answer.resets:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                head = [f"HTTP/1.1 {answer.status} X"]
                announces_length = answer.announces_length and not answer.endless
                head += [f"content-length: {len(content)}"] if announces_length else ["connection: close"]
                head += [f"{key}: {value}" for key, value in headers.items()]
                # Head and body in one write: two would wait for each other (Nagle, delayed ACK).
                first = 1 if answer.drip_s else answer.cut_after
                self.wfile.write("\r\n".join([*head, "", ""]).encode() + content[:first])
                while answer.drip_s and not owner._stopping.wait(answer.drip_s):
                    self.wfile.write(b" ")
                while answer.endless and not owner._stopping.is_set():
                    self.wfile.write(answer.endless)
                self.close_connection = first is not None or not announces_length

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is part of the tests."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    @property
    def port(self) -> int:
        """Where it listens; a later server can be given the same."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop as a process that dies does: what listens and what is connected is closed."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._stopping.set()  # last, or what waits to be answered would be answered now


def _completion(call: Call, answer: Answer) -> bytes:
    if answer.raw is not None:
        return answer.raw
    if answer.status != 200:
        return json.dumps({"error": {"message": f"status {answer.status}", "type": "test"}}).encode()
    message = {"role": "assistant", "content": answer.text, **answer.message}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    shared = {"id": "c1", "object": "chat.completion", "created": 1, "model": f"{call.model}-snapshot"}
    return json.dumps({**shared, "choices": [choice], "usage": usage}).encode()


def _event_stream(call: Call, answer: Answer) -> bytes:
    shared = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": f"{call.model}-snapshot"}
    pieces = [(answer.text or "")[start : start + 20] for start in range(0, len(answer.text or ""), 20)]
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", **answer.message}, None)]
    deltas += [({"content": piece}, None) for piece in pieces]
    deltas.append(({}, answer.finish_reason))
    events = [
        {**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas
    ]
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    events.append({**shared, "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"


@contextmanager
def chat_server(
    behave: Behaviour | Answer | None = None,
    *,
    streams: bool = True,
    models: list[str] | None = None,
    get_status: int = 404,
    port: int = 0,
) -> Iterator[ChatServer]:
    """A running server.

    Args:
        behave: the answer to every call, or a function of the call.
        streams: whether it heeds `stream`; one that does not sends a plain completion, as small servers do.
        models: what `GET /models` lists; None for a server that answers `get_status` to every GET.
        port: 0 for any free one.
    """
    answer = behave if behave is not None else Answer()
    function: Behaviour = (lambda _: answer) if isinstance(answer, Answer) else answer
    server = ChatServer(function, streams=streams, models=models, get_status=get_status, port=port)
    try:
        yield server
    finally:
        server.stop()
