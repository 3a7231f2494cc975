"""A model's and a judge's chat server in a process of their own, so that no contestant pays for their work.

They do as little as a server can, since they share the machine with whoever is measured: request bodies, which
hold megabytes of audio, are counted and searched, never parsed, and answers are prepared once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

REPLY = (
    "Of course. The train to the coast leaves at a quarter past nine from platform four, and the return ticket "
    "costs twenty-three euros; I have put the window seat that you asked for first on the list."
)
PIECES = 12
"""Into how many events a streamed reply is divided: servers send several tokens at a time."""
VERDICT = json.dumps({"explanation": "The reply names the time, the platform and the price.", "criteria_met": True})
USAGE = {"prompt_tokens": 640, "completion_tokens": 48, "total_tokens": 688}
STREAMED = (b'"stream":true', b'"stream": true')
AUDIO_PART = b'"input_audio"'
"""Stands twice in every part of a message that is audio: as its type and as its key."""


@dataclass
class Counts:
    """What one server was asked."""

    requests: int = 0
    streamed: int = 0
    audio_parts: int = 0
    request_bytes: int = 0
    most_at_once: int = 0
    at_once: int = 0


def completion(text: str) -> bytes:
    """An answer in one piece."""
    message = {"role": "assistant", "content": text}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _http("application/json", json.dumps(_envelope("chat.completion", [choice], USAGE)).encode())


def event_stream(text: str) -> bytes:
    """The same answer as server-sent events."""
    size = -(-len(text) // PIECES)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[start : start + size]} for start in range(0, len(text), size)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [_envelope("chat.completion.chunk", [choice], None) for choice in choices]
    events.append(_envelope("chat.completion.chunk", [], USAGE))
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return _http("text/event-stream", body.encode())


def _envelope(kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
    shared: dict[str, Any] = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "loopback"}
    return {**shared, "choices": choices, "usage": usage}


def _http(kind: str, body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class ChatServer:
    """One server: the same answer to every chat request, after a fixed time."""

    def __init__(self, text: str, latency_s: float) -> None:
        self.counts = Counts()
        self._whole = completion(text)
        self._events = event_stream(text)
        self._latency_s = latency_s

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The bytes to send back."""
        if method == "POST" and path.endswith("/chat/completions"):
            return await self._complete(body)
        if method == "POST" and path == "/reset":
            self.counts = Counts()
            return _http("application/json", b"{}")
        if path == "/counts":
            return _http("application/json", json.dumps(asdict(self.counts)).encode())
        if path.endswith("/models"):
            models = {"object": "list", "data": [{"id": "loopback", "object": "model"}]}
            return _http("application/json", json.dumps(models).encode())
        return _http("application/json", b'{"error": {"message": "no such path"}}', "404 Not Found")

    async def _complete(self, body: bytes) -> bytes:
        counts = self.counts
        streamed = any(mark in body for mark in STREAMED)
        counts.requests += 1
        counts.streamed += streamed
        counts.audio_parts += body.count(AUDIO_PART) // 2
        counts.request_bytes += len(body)
        counts.at_once += 1
        counts.most_at_once = max(counts.most_at_once, counts.at_once)
        try:
            await asyncio.sleep(self._latency_s)
        finally:
            counts.at_once -= 1
        return self._events if streamed else self._whole

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other until the client hangs up."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                writer.write(await self.answer(method, path, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # hanging up is how a client ends
        finally:
            writer.close()


async def serve(latency_s: float) -> None:
    """Run both servers on free ports, print where, and stop when standard input ends.

    Its other end is held by the benchmark: however that dies, no server is left behind.
    """
    ports = {}
    for role, text in (("model", REPLY), ("judge", VERDICT)):
        server = await asyncio.start_server(ChatServer(text, latency_s).connection, "127.0.0.1", 0, limit=2**20)
        ports[role] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=50.0, help="from the whole request to the answer")
    asyncio.run(serve(parser.parse_args().latency_ms / 1000))


if __name__ == "__main__":
    main()
