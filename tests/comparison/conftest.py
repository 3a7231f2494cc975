"""A store to write judged runs into, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vivace.settings import load_settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A new store with its tables."""
    database = open_for_writing(load_settings(tmp_path / "home", database_url))
    yield database
    database.close()
