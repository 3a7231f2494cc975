"""Tokens that open the API: made, listed, revoked, and known again by their hash alone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import select

from vivace.errors import UsageError
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.tables import ApiToken

Scope = Literal["submit", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "vivace_"
"""How every token begins, so that it is known for one wherever it has got to."""
LONGEST_NAME = 100
LONGEST_DAYS = 36_500
"""A hundred years; what shall hold for longer never expires."""


def as_person(name: str) -> str:
    """A person's name as logins give it: addresses are one person's however they are written."""
    name = name.strip()
    return name.lower() if "@" in name else name


@dataclass(frozen=True)
class Bearer:
    """Whoever holds a token.

    Attributes:
        token: the token's name.
        owner: whose it is.
        scopes: what it opens; `admin` opens everything.
        expired: whether its time is over.
        revoked: whether it was taken back.
    """

    token: str
    owner: str
    scopes: frozenset[str]
    expired: bool = False
    revoked: bool = False

    def may(self, scope: Scope) -> bool:
        """Whether the token opens this."""
        return bool(self.scopes & {scope, "admin"})


def create_token(
    database: Database, name: str, scopes: Sequence[str], *, owner: str | None = None, days: float | None = 90
) -> str:
    """A new token, which is told this once and not kept: 256 bits by chance, so that a plain hash is enough.

    Args:
        name: by which it is listed and revoked.
        scopes: what it opens.
        owner: whose it is; the name itself where None.
        days: until it expires; None for never.

    Raises:
        UsageError: the name is taken, or no name; a scope is unknown; it would expire at once, or after a century.
    """
    for what, text in (("name", name), ("owner", owner or name)):
        if not text.strip() or len(text) > LONGEST_NAME or not text.isprintable():
            raise UsageError(f"A token's {what} is a word or an address of at most {LONGEST_NAME} characters.")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise UsageError(f"A token's scopes are of {', '.join(SCOPES)}, not {', '.join(unknown) or 'none'}.")
    if days is not None and not 0 < days <= LONGEST_DAYS:
        raise UsageError(f"A token holds for more than 0 and at most {LONGEST_DAYS:,} days; {days:g} is neither.")
    token = PREFIX + secrets.token_urlsafe(32)
    with database.write() as session:
        if session.scalar(select(ApiToken.id).where(ApiToken.name == name)) is not None:
            raise UsageError(f"There is a token '{name}' already; give another name, and revoke what is not used.")
        session.add(
            ApiToken(
                name=name,
                owner=as_person(owner or name),
                token_sha256=_hash(token),
                scopes=list(dict.fromkeys(scopes)),
                expires_at=None if days is None else now() + timedelta(days=days),
            )
        )
    return token


def revoke_token(database: Database, name: str) -> None:
    """Take a token back, at once.

    Raises:
        UsageError: there is none of this name.
    """
    with database.write() as session:
        token = session.scalars(select(ApiToken).where(ApiToken.name == name)).one_or_none()
        if token is None:
            raise UsageError(f"There is no token '{name}'; `vivace token list` has them.")
        token.revoked_at = token.revoked_at or now()


def tokens(database: Database) -> list[dict[str, Any]]:
    """Every token, without what would open anything."""
    with database.read() as session:
        rows = session.scalars(select(ApiToken).order_by(ApiToken.created_at, ApiToken.id)).all()
    return [
        {
            "name": row.name,
            "owner": row.owner,
            "scopes": row.scopes,
            "created_at": row.created_at.isoformat(),
            "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
            "state": _state(row, now()),
        }
        for row in rows
    ]


def _state(row: ApiToken, at: datetime) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= at else "open"


def bearer_of(database: Database, token: str) -> Bearer | None:
    """Whose token this is; None where it is nobody's."""
    sought = _hash(token)
    with database.read() as session:
        row = session.scalars(select(ApiToken).where(ApiToken.token_sha256 == sought)).one_or_none()
    if row is None or not hmac.compare_digest(row.token_sha256, sought):
        return None
    state = _state(row, now())
    return Bearer(row.name, row.owner or row.name, frozenset(row.scopes), state == "expired", state == "revoked")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
