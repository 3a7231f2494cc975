"""`/health/live` and `/health/ready`: whether the service runs, and whether it can do its work now."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from vivace.api.access import InHouse, anybody
from vivace.api.faults import Refused, answers
from vivace.upkeep.health import readiness

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
        raise Refused(503, health.reason, 10)
    return State(status="ok")
