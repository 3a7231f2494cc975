"""The table of uploads: which files came from outside, and whose they are."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, now
from vivace.store.foreign_tables import Base as Base


class Upload(Base):
    """A file that somebody sent in, stored as an artifact; only they may submit it."""

    __tablename__ = "upload"
    __table_args__ = (UniqueConstraint("owner", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(Name)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int]
    rows: Mapped[int]
    """Replies that it holds."""
    created_at: Mapped[datetime] = mapped_column(default=now)
