"""`GET /v1/sets`: what can be submitted to."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from vivace.api.access import InHouse, anybody
from vivace.api.answered import OpenSet
from vivace.api.faults import answers

router = APIRouter(tags=["sets"])


@router.get("/v1/sets", responses=answers(), dependencies=[Depends(anybody)])
def sets(house: InHouse) -> list[OpenSet]:
    """The sets that can be submitted to."""
    found = []
    for name in sorted(house.door.sets):
        spec = house.door.spec_of(name, {"model": "replay:outputs"})
        found.append(
            OpenSet(
                name=name,
                judge=spec.judge,
                audio=spec.audio,
                takes_models=bool(house.door.models),
                largest_upload=int(house.door.limits.upload_mb * 2**20),
                longest_recording=house.door.limits.recording_seconds,
            )
        )
    return found
