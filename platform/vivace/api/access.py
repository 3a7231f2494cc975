"""Who asks: the token of a request, what it opens, and how often it may come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from vivace.api.door import Door
from vivace.api.faults import Refused
from vivace.api.rates import Rates
from vivace.engine.access.tokens import Bearer, Scope, bearer_of
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.visibility import Viewer

LONGEST_TOKEN = 200

scheme = HTTPBearer(auto_error=False, description="A token that the operator has made, `vivace token create`.")


@dataclass(frozen=True)
class House:
    """What every address needs: where things are, what is open, and who came how often."""

    settings: Settings
    database: Database
    door: Door
    requests: Rates
    refusals: Rates


def house_of(request: Request) -> House:
    """What every address needs."""
    return cast(House, request.app.state.house)


InHouse = Annotated[House, Depends(house_of)]


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "nobody"


def _check(rates: Rates, name: str) -> None:
    if wait_s := rates.wait_s(name):
        raise Refused(429, f"That is too often; come again in {wait_s:.0f} s.", wait_s)


def anybody(request: Request, house: InHouse) -> None:
    """Whoever asks, with a token or without, not too often from one address."""
    _check(house.requests, f"address {_address(request)}")


def _bearer(request: Request, house: House, given: HTTPAuthorizationCredentials | None) -> Bearer:
    token = "" if given is None else given.credentials
    found = bearer_of(house.database, token) if 0 < len(token) <= LONGEST_TOKEN else None
    if found is not None and not found.expired and not found.revoked:
        return found  # also where many others of this address are refused: they shut nobody out
    _check(house.refusals, _address(request))
    if found is None:
        raise Refused(401, "Send a token as 'Authorization: Bearer TOKEN'; the operator has one for you.")
    raise Refused(
        401, f"This token {'was revoked' if found.revoked else 'has expired'}; ask the operator for another."
    )


def opens(scope: Scope) -> Callable[..., Bearer]:
    """A dependency: whoever asks has a token for this."""

    def bearer(
        request: Request,
        house: InHouse,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> Bearer:
        found = _bearer(request, house, given)
        _check(house.requests, f"token {found.token}")
        if not found.may(scope):
            raise Refused(403, f"This token does not open '{scope}'; ask the operator for one that does.")
        return found

    return bearer


Reader = Annotated[Bearer, Depends(opens("read"))]
Submitter = Annotated[Bearer, Depends(opens("submit"))]


def seen_by(house: House, bearer: Bearer) -> Database:
    """The database as whoever holds a token may see it."""
    return house.database.seen_by(Viewer(bearer.owner, sees_all="admin" in bearer.scopes))
