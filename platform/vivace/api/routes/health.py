"""`/health/live`, `/health/ready`, `/metrics`: whether the service runs and can do its work now, and its figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from sqlalchemy import select

from vivace.api.access import InHouse, anybody, opens
from vivace.api.faults import LOG, RETRY_S, Refused, answers, told
from vivace.engine.access.tokens import Bearer
from vivace.upkeep.health import readiness
from vivace.upkeep.metrics import exposition

router = APIRouter(tags=["health"])


class State(BaseModel):
    """How the service is."""

    status: str


@router.get("/health/live", responses=answers(), dependencies=[Depends(anybody)])
def live() -> State:
    """Whether the service runs."""
    return State(status="ok")


@router.get("/health/ready", responses=answers(), dependencies=[Depends(anybody)])
def ready(house: InHouse) -> State:
    """Whether the database answers and can be written."""
    health = readiness(house.settings)
    if not health.ok:
        LOG.warning("not ready: %s", told(health.reason, house.settings))
        raise Refused(503, "It is not ready; the operator's log says why.", RETRY_S)
    with house.database.read() as session:  # also where a file that was there is gone, which others would make anew
        session.execute(select(1))
    return State(status="ok")


@router.get("/metrics", responses=answers(401, 403), response_class=PlainTextResponse)
def metrics(house: InHouse, bearer: Annotated[Bearer, Depends(opens("admin"))]) -> Response:
    """The same figures as `vivace worker --watch` serves, for Prometheus with an operator's token."""
    return PlainTextResponse(exposition(house.database), media_type="text/plain; version=0.0.4; charset=utf-8")
