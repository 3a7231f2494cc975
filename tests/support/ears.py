"""A server of transcriptions on loopback that hears as a test says, for the ears of cascades."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

EAR = "litellm:hosted_vllm/ear"
ADDRESS = "HOSTED_VLLM_API_BASE"
"""The variable that holds the server's address."""


class EarServer:
    """The server: what it was sent, and what it makes of it."""

    def __init__(self, server: HTTPServer, hears: Callable[[bytes], str | int]) -> None:
        self.base = server.url_for("/v1")
        self.received: list[bytes] = []
        self._hears = hears
        server.expect_request("/v1/audio/transcriptions", method="POST").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        wav = request.files["file"].read()
        self.received.append(wav)
        made = self._hears(wav)
        if isinstance(made, int):
            return Response("{}", status=made, content_type="application/json")
        return Response(json.dumps({"text": made}), content_type="application/json")


@contextmanager
def ear_server(hears: Callable[[bytes], str | int]) -> Iterator[EarServer]:
    """A running server.

    Args:
        hears: makes a transcript of a WAV file, or a status to fail with.
    """
    with HTTPServer() as server:
        yield EarServer(server, hears)
