"""The kinds of columns that the tables are made of, which take what others wrote only as the store can hold it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from vivace.output.secrets import masked, without_keys, without_keys_inside
from vivace_rubrics.texts import storable


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always UTC: SQLite drops time zones, so they are put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, and store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


class Words(TypeDecorator[str]):
    """Text from outside: recorded without keys that this process knows, and without what no database takes."""

    impl: type[TypeEngine[str]] = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Mask keys."""
        return None if value is None else without_keys(storable(value))


class Message(Words):
    """What Vivace, a server or a library says: recorded without anything that looks like a key or password."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Mask keys and passwords."""
        return None if value is None else masked(storable(value))


class Name(Words):
    """A short text from outside."""

    impl = String
    cache_ok = True


class Values(TypeDecorator[Any]):
    """What JSON can hold, its texts as `Words` are."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Mask keys."""
        return without_keys_inside(value)
