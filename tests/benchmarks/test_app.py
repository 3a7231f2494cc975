"""The leaderboard's benchmark: what it generates, what it counts of queries, and that no board reads long tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from boards_data import Amount, fill
from sqlalchemy import func, select

import app
from vivace.analysis.gaps import gaps
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database
from vivace.store.queries.board import board
from vivace.store.queries.efficiency import arm_board
from vivace.store.tables import Verdict

TINY = Amount(8, systems=4, arms=6, arms_of_a_run=3)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny database, made as the large one is."""
    monkeypatch.setenv("VIVACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIVACE_DATABASE", "")
    address = f"sqlite:///{tmp_path / 'tiny.db'}"
    database = migrate.open_for_writing(Settings(home=tmp_path, database=address))
    fill(database, TINY)
    database.close()
    return address


def test_boards_over_generated_results_read_no_long_table_and_are_as_runs_leave_them(url: str) -> None:
    database = Database(url, read_only=True)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Verdict)) == TINY.verdicts == 176
    rows = board(database)
    assert len(rows) == 4 and all(row.figures.coverage == 1 and row.cost_usd for row in rows)
    assert len(gaps(database)) == 4 and len(arm_board(database)) == 6
    seen = app.visit("board", url, 1)
    assert seen.statements and seen.rows and seen.touched > seen.rows and "score" in seen.tables
    assert not set(seen.tables) & set(app.LONG_TABLES)
    assert app.query_times(url, seen.statements) > 0


def test_what_is_asked_of_the_benchmark(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "pages", lambda: {"regressions": None})
    size = app.Size(TINY, TINY, rounds=2, visits=1)
    rows, seen = app.measured("sqlite", {"small": url, "large": url}, size)
    assert {row.metric for row in rows} == {"query_s", "touched", "warm_s", "long_tables"}
    assert {row.metric for row in rows if row.headline} == set(app.LIMITS)
    assert [one["verdicts"] for one in seen] == [176, 176]
    assert app.WHOLE.large.verdicts > 1_000_000 and app.WHOLE.large.arms == 200
