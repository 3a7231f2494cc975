"""`GET /v1/leaderboard`: the board as whoever asks may see it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from vivace.api.access import InHouse, Reader, seen_by
from vivace.api.faults import answers
from vivace.store.queries.board import board

router = APIRouter(tags=["leaderboard"])


@router.get("/v1/leaderboard", responses=answers(401, 403))
def leaderboard(house: InHouse, bearer: Reader, official: bool = False) -> list[dict[str, Any]]:
    """Every row of the dialogue board that the token's owner may see."""
    return [row.as_json() for row in board(seen_by(house, bearer), official_only=official)]
