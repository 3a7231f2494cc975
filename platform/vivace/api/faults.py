"""What the API says when it does not do what was asked: one sentence, and nothing that is not the asker's to know."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, TimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException

from vivace.errors import UsageError, VivaceError
from vivace.output import for_strangers
from vivace.settings import Settings
from vivace.store.database import DatabaseUnavailableError

LOG = logging.getLogger("vivace.api")
LONGEST = 1_000
RETRY_S = 10
"""Seconds after which to come again while the database is away."""


class Fault(BaseModel):
    """Why it was not done."""

    detail: str


class Refused(HTTPException):
    """The request is not granted; while a body is read, FastAPI lets only its own kind of exception pass."""

    def __init__(self, status: int, detail: str, wait_s: float | None = None) -> None:
        super().__init__(status, detail)
        self.wait_s = wait_s


REASONS = {
    400: "It is not a request that can be read.",
    401: "There is no token, or it opens nothing.",
    403: "The token does not open this.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It is not in a state for that.",
    408: "It takes too long to arrive.",
    413: "It is larger than allowed.",
    415: "It is sent in a form that is not taken.",
    422: "Something in it is wrong; the sentence says what.",
    429: "There were too many; `Retry-After` says when to come again.",
    503: "The database is away, or the disk is full.",
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an address answers beside what it is for, as OpenAPI has it; some all addresses do."""
    return {
        status: {"model": Fault, "description": REASONS[status]} for status in sorted({400, 422, 429, 503, *statuses})
    }


def told(text: str, settings: Settings) -> str:
    """A message as strangers may read it, in one line of bounded length."""
    return " ".join(for_strangers.told(text, settings.home).split())[:LONGEST]


def handle(app: FastAPI, settings: Settings) -> None:
    """Have every fault become its sentence."""

    def answer(status: int, detail: str, wait_s: float | None = None) -> JSONResponse:
        headers = {} if wait_s is None else {"Retry-After": str(max(1, math.ceil(wait_s)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status in (408, 413, 415):
            headers["Connection"] = "close"  # what is still being sent is not read
        return JSONResponse({"detail": told(detail, settings)}, status, headers)

    @app.exception_handler(Refused)
    def refused(_request: Request, error: Refused) -> JSONResponse:
        return answer(error.status_code, error.detail, error.wait_s)

    @app.exception_handler(StarletteHTTPException)
    def of_the_framework(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        response = answer(error.status_code, f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        return answer(422, f"'{place:.200}' is wrong: {fault['msg']}.")  # and never what stood there

    @app.exception_handler(UsageError)
    def wrong(_request: Request, error: UsageError) -> JSONResponse:
        return answer(422, str(error))

    @app.exception_handler(DatabaseUnavailableError)
    @app.exception_handler(DBAPIError)
    @app.exception_handler(TimeoutError)
    def away(_request: Request, error: Exception) -> JSONResponse:
        LOG.warning("the database is away: %s", told(str(error), settings))
        return answer(503, "The results database is away; come again in a moment.", RETRY_S)

    @app.exception_handler(VivaceError)
    @app.exception_handler(OSError)
    def failed(_request: Request, error: Exception) -> JSONResponse:
        LOG.error("%s", told(str(error), settings))
        return answer(503, "This cannot be done at the moment; the operator's log says why.", RETRY_S)

    @app.exception_handler(Exception)
    def unforeseen(_request: Request, error: Exception) -> JSONResponse:
        LOG.error("%s", told(f"{type(error).__name__}: {error}", settings))
        return answer(500, "Vivace itself is at fault here; the operator's log says why.")
