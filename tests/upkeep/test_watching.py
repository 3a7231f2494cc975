"""Figures for Prometheus, health by HTTP, and logs that are put aside."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from engine import crowd
from vivace.engine.claims.leases import register_worker
from vivace.errors import UsageError
from vivace.output.rotation import rotating_log
from vivace.output.secrets import note_password
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import Attempt
from vivace.upkeep.health import readiness, served
from vivace.upkeep.metrics import exposition


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Of a database with a run and a queued submission."""
    crowd.prepare(database_url, 1, tmp_path / "home")
    return Settings(home=tmp_path / "home", database=database_url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """That database."""
    opened = open_for_writing(settings)
    with opened.write() as session:
        crowd.queue_submission(session, "run0", parts=3)
    yield opened
    opened.close()


def figures(content: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and labels' values → figure."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


def test_figures_say_what_is_queued_called_spent_and_who_works(database: Database) -> None:
    worker = register_worker(database, ["default"], 600)
    with database.write() as session:
        for error, cost in ((None, 0.25), (None, 0.5), ("timeout", None)):
            session.add(
                Attempt(run_id="run0", stage="judge", seconds=2.0, error=error, cost_usd=cost, input_tokens=100)
            )
    found = figures(exposition(database))
    assert found["vivace_parts", ("default", "queued")] == 3
    assert found["vivace_parts", ("default", "running")] == 0
    assert found["vivace_submissions", ("default", "queued")] == 1
    assert found["vivace_calls_total", ("timeout", "judge")] == 1
    assert found["vivace_calls_total", ("", "judge")] == 2
    assert found["vivace_cost_usd_total", ("judge",)] == 0.75
    assert found["vivace_tokens_total", ("input", "judge")] == 300
    assert found["vivace_call_seconds_total", ("judge",)] == 6
    (age,) = [value for (name, labels), value in found.items() if name.endswith("age_seconds") and worker in labels]
    assert 0 <= age < 600
    assert found["vivace_database_up", ()] == 1


def test_a_database_that_is_away_is_a_figure_and_no_error(tmp_path: Path) -> None:
    gone = Database(f"sqlite:///{tmp_path / 'gone.db'}", read_only=True)
    assert figures(exposition(gone))["vivace_database_up", ()] == 0


def _asked(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_says_whether_it_lives_and_is_ready_and_why_not(database: Database, settings: Settings) -> None:
    lives = [True]
    with served(settings, ":0", lambda: lives[0]) as where:
        assert _asked(f"{where}/health/live") == (200, json.dumps({"status": "ok", "reason": ""}))
        assert _asked(f"{where}/health/ready")[0] == 200
        assert "vivace_parts" in _asked(f"{where}/metrics")[1]
        assert _asked(f"{where}/../etc/passwd")[0] == 404
        lives[0] = False
        assert _asked(f"{where}/health/live")[0] == 503
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        status, said = _asked(f"{where}/health/ready")
        assert status == 503
        assert "install the newer Vivace" in said
        with pytest.raises(UsageError, match="Nothing can listen"), served(settings, where[7:], lambda: True):
            pass


def test_a_database_that_nobody_has_made_yet_is_no_hindrance(tmp_path: Path) -> None:
    assert readiness(Settings(home=tmp_path)).ok
    (tmp_path / "vivace.db").write_text("a letter")
    assert "cannot be opened" in readiness(Settings(home=tmp_path)).reason


def test_a_log_is_put_aside_when_it_is_large_holds_warnings_and_no_passwords(tmp_path: Path) -> None:
    note_password("correct-horse-battery", None, None, None)
    file = tmp_path / "logs" / "worker.log"
    with rotating_log(file, 0.001, 2) as write:
        for number in range(60):
            write(f"line {number} {'x' * 40}")
        logging.getLogger("anything").warning("the password is correct-horse-battery")
    assert sorted(each.name for each in file.parent.iterdir()) == ["worker.log", "worker.log.1", "worker.log.2"]
    kept = "".join(each.read_text() for each in file.parent.iterdir())
    assert "line 59" in kept
    assert "line 0 " not in kept
    assert "the password is" in kept
    assert "correct-horse" not in kept
    logging.getLogger("anything").warning("after it was closed")
    with pytest.raises(UsageError, match="cannot be written"), rotating_log(tmp_path, 1, 1):
        pass
