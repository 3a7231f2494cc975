"""Workers under a role that can do what they must and no more, with the very SQL of the page that gives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from engine.lab import Gate, Lab, laboratory
from vivace.engine.claims.leases import Heartbeat, register_worker
from vivace.engine.execution import StopSignal
from vivace.engine.work import Workplace
from vivace.settings import Settings
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing

ROLE = "vivace_worker"
PAGE = Path(__file__).parents[2] / "docs" / "workers.md"


def _statements() -> list[str]:
    """What the page has an owner of the tables execute."""
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [statement.strip() for statement in block.split(";") if statement.strip()]


def _granted(lab: Lab, *, with_queue: bool) -> str:
    """The database's URL for the role, which has been given what the page says."""
    engine = create_engine(lab.settings.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in _statements():
            if statement.startswith("CREATE ROLE") and connection.scalar(
                text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": ROLE}
            ):
                continue
            if not with_queue:
                statement = statement.replace(", dbos", "")
            if with_queue or "dbos" not in statement:
                connection.execute(text(statement))
    engine.dispose()
    return make_url(lab.settings.database_url).set(username=ROLE).render_as_string(hide_password=False)


def _drop_role(url: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {ROLE}"))
    engine.dispose()


def test_a_worker_needs_no_more_than_the_page_grants(postgres_url: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, postgres_url, Gate(), conversations=2) as lab:
        submission = lab.submit()
        url = _granted(lab, with_queue=False)
        settings = Settings(home=tmp_path / "worker", database=url)
        database = open_for_writing(settings)
        worker = register_worker(database, ["default"], 60)
        with Heartbeat(database, worker, 60) as heartbeat:
            place = Workplace(database, settings, heartbeat, StopSignal())
            assert place.execute(f"{submission}-1").status == "complete"
        for statement in ("SELECT * FROM api_token", "DELETE FROM verdict", "CREATE TABLE mine (id int)"):
            with pytest.raises(ProgrammingError, match="permission denied"), database.write() as session:
                session.execute(text(statement))
        database.close()
        _drop_role(lab.settings.database_url)


@pytest.mark.full
def test_a_worker_under_the_role_takes_from_the_queue(postgres_url: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, postgres_url, Gate(), conversations=2) as lab:
        Database(lab.settings.database_url).close()
        assert lab.start_worker("--until-empty").wait(300) == 0  # makes the schemas
        submission = lab.submit()
        url = _granted(lab, with_queue=True)
        worker = lab.start("worker", "--home", tmp_path / "worker", "--database", url, "--until-empty")
        assert worker.wait(300) == 0
        assert lab.view(submission).status == "complete"
        _drop_role(lab.settings.database_url)
