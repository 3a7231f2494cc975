"""The tables of who may send what in: tokens of the API, and files that came from outside."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, now
from vivace.store.tables.base import Base


class ApiToken(Base):
    """A token that opens the API; only its hash is kept."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    """By which it is listed and revoked."""
    owner: Mapped[str | None] = mapped_column(Name)
    """Whose it is: what is submitted with it is theirs; null of the operator's own."""
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Upload(Base):
    """A file that somebody sent in, stored as an artifact; only they may submit it."""

    __tablename__ = "upload"
    __table_args__ = (UniqueConstraint("owner", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(Name)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int]
    rows: Mapped[int]
    """Replies that it holds; 0 of a recording."""
    created_at: Mapped[datetime] = mapped_column(default=now)
