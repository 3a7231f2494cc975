"""Bounds on what a connection may send: how much, in which form, and how slowly."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from vivace.api.faults import Refused
from vivace.errors import UsageError

LARGEST_REQUEST = 64 * 1024
"""Bytes of a request that is no upload."""
LARGEST_HEADERS = 16 * 1024
IDLE_S = 10.0
"""Seconds in which something of a request has to arrive."""
SLOWEST = 16 * 1024
"""Bytes a second that a body takes at the least, after a first half minute."""
PATIENCE_S = 30.0
HEADERS_S = 10.0
"""Seconds in which a request's line and headers have to arrive."""
UNREAD_S = 60.0
"""Seconds in which an answer has to be read, as far as the sockets between do not hold it."""
MOST_CONNECTIONS = 256
MOST_OF_ONE = 64
"""Connections of one address; a proxy's are not counted, since they are many people's."""

_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Bounded:
    """The application with bounds on the bodies of requests.

    Args:
        app: the application.
        most: bytes of a request to a path.
    """

    def __init__(self, app: ASGIApp, most: Callable[[str], int]) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            # What is two lengths to two readers may hide a second request from one of them.
            fault = JSONResponse({"detail": "A request has one length, not two."}, 400, {"Connection": "close"})
            await fault(scope, receive, answer)
            return
        await self._app(scope, _Body(scope, receive, self._most(scope["path"])), answer)


class _Body:
    """What arrives of one request's body."""

    def __init__(self, scope: Scope, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._headers = dict(scope["headers"])
        self._taken = 0
        self._over = False
        self._until = asyncio.get_running_loop().time() + PATIENCE_S + most / SLOWEST

    async def __call__(self) -> Message:
        """The next piece.

        Raises:
            Refused: there is more than allowed, it comes too slowly, or in a form that is not taken.
        """
        if self._over:
            return await self._receive()  # whether the other side is still there
        self._check_headers()
        try:
            async with asyncio.timeout(min(IDLE_S, self._until - asyncio.get_running_loop().time())):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, "The request came too slowly; send it again.") from None
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            raise self._too_large()
        self._over = not message.get("more_body", False)
        return message

    def _check_headers(self) -> None:
        encoding = self._headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"", b"identity"):
            raise Refused(415, "Send it as it is: no compressed request is taken.")
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 15 or int(length) > self._most):
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(413, f"A request to this address holds at most {self._most:,} bytes.")


class PatientProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, but headers must arrive and answers be read in time, and connections are counted."""

    _due: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as anything is left unread
        if len(self.connections) > MOST_CONNECTIONS or self._are_too_many():
            transport.abort()
            return
        self._expect_headers()

    def _are_too_many(self) -> bool:
        if self.config.proxy_headers or self.client is None:
            return False
        clients = [one.client for one in self.connections if isinstance(one, H11Protocol) and one.client is not None]
        return sum(address == self.client[0] for address, _port in clients) > MOST_OF_ONE

    def data_received(self, data: bytes) -> None:
        """Go on with what has arrived."""
        if self._due is None and self.conn.their_state is h11.IDLE:
            self._expect_headers()
        super().data_received(data)

    def handle_events(self) -> None:
        """See whether a request is there by now."""
        super().handle_events()
        if self._due is not None and self.conn.their_state is not h11.IDLE:
            self._due.cancel()
            self._due = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._due is not None:
            self._due.cancel()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the other side to read, but not for ever: whoever reads nothing would keep the connection."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, now that it has read."""
        self._is_read()
        super().resume_writing()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect_headers(self) -> None:
        self._due = self.loop.call_later(HEADERS_S, self._too_slow)

    def _too_slow(self) -> None:
        self._due = None
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self.transport.abort()


def server_options(proxy: str | None) -> dict[str, Any]:
    """Uvicorn's options under which nobody holds a connection for long.

    Args:
        proxy: the address of the proxy that is believed what it says of a request's origin; None for no proxy.

    Raises:
        UsageError: it is no address: nobody would be believed, or, with `*`, everybody, and no limit would hold.
    """
    for each in () if proxy is None else proxy.split(","):
        try:
            ipaddress.ip_network(each.strip())
        except ValueError as error:
            raise UsageError(
                f"--proxy '{each}' is not an address ({error}); give its own, such as 127.0.0.1 or 10.0.0.0/24."
            ) from error
    return {
        "http": PatientProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": proxy is not None,
        "forwarded_allow_ips": proxy or "",
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": 5,
        "h11_max_incomplete_event_size": LARGEST_HEADERS,
    }
