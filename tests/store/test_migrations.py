"""The schema: migrations and models say the same, old and new databases are told apart, constraints hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from support.judged import add_dataset, add_judging
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store import migrate, tables
from vivace.store.database import Database
from vivace.store.migrate import open_for_reading, open_for_writing


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a new database on either system."""
    return Settings(home=tmp_path / "home", database=database_url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A new, empty database."""
    opened = open_for_writing(settings)
    yield opened
    opened.close()


@pytest.fixture
def migrated(database: Database) -> Database:
    """The same, made by the migrations from the first to the last."""
    migrate_to(database, "base")
    migrate.upgrade(database)
    return database


def migrate_to(database: Database, revision: str) -> None:
    """Take a database down to an older schema."""
    with database.engine.connect() as connection, connection.begin():
        config = migrate._config()
        config.attributes["connection"] = connection
        downgrade(config, revision)


def described(database: Database) -> dict[str, Any]:
    """All that the database says of its tables, in whatever order their columns stand."""
    said = inspect(database.engine)
    return {
        name: {
            "columns": {column["name"]: {**column, "type": str(column["type"])} for column in said.get_columns(name)},
            "primary key": said.get_pk_constraint(name),
            "foreign keys": sorted(map(repr, said.get_foreign_keys(name))),
            "indexes": sorted(map(repr, said.get_indexes(name))),
            "unique": sorted(map(repr, said.get_unique_constraints(name))),
            "checks": sorted(map(repr, said.get_check_constraints(name))),
        }
        for name in said.get_table_names()
    }


def test_a_new_database_is_what_the_migrations_come_to(database: Database) -> None:
    new = described(database)
    assert set(new) == {"alembic_version", *tables.Base.metadata.tables}
    migrate_to(database, "base")
    with database.write() as session:
        session.execute(text("DROP TABLE alembic_version"))
    with database.engine.connect() as connection, connection.begin():
        migrate._migrate(connection)
    assert described(database) == new


def test_the_head_is_alembics_own_and_each_file_begins_with_its_revision() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert migrate.head() == scripts.get_current_head()
    assert migrate._revisions() == sorted(script.revision for script in scripts.walk_revisions())


def test_the_migrations_make_exactly_the_models(migrated: Database) -> None:
    database = migrated
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.Base.metadata) == []
    checks = {
        constraint["name"]
        for name in tables.Base.metadata.tables
        for constraint in inspect(database.engine).get_check_constraints(name)
    }
    assert checks >= {"ck_verdict_three_values", "ck_score_one_owner"}


def test_every_migration_can_be_undone_and_done_again(database: Database) -> None:
    migrate_to(database, "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    assert migrate.state(database) == "empty"
    migrate.upgrade(database)
    assert migrate.state(database) == "current"


def test_a_set_that_was_run_whole_knows_its_size_after_the_upgrade_and_a_part_does_not(database: Database) -> None:
    with database.write() as session:
        add_judging(session, add_dataset(session, 3, name="whole"), [[[True, True]]] * 3)
        add_judging(session, add_dataset(session, 3, name="part"), [[[True, True]]] * 2)
    migrate_to(database, "0004")
    migrate.upgrade(database)
    with database.read() as session:
        sizes = {one.name: one.conversations for one in session.scalars(select(tables.Dataset))}
    assert sizes == {"whole": 3, "part": None}


def test_an_old_database_is_refused_upgraded_and_keeps_its_rows(database: Database, settings: Settings) -> None:
    with database.write() as session:
        session.add(tables.Judge(fingerprint="f", target="t", name="kept", parameters={}, parser_version="1"))
    migrate_to(database, "0001")
    assert migrate.state(database) == "old"
    for opening in (open_for_writing, open_for_reading):
        with pytest.raises(UsageError, match="`vivace db upgrade`"):
            opening(settings)
    assert migrate.upgrade(database) is True
    assert migrate.upgrade(database) is False
    with database.read() as session:
        assert session.query(tables.Judge).one().name == "kept"


def test_foreign_keys_rest_while_migrating_and_hold_again_after(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewriting a parent table on SQLite would otherwise delete its children."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL does not rewrite tables")
    seen = []

    def upgrade_and_look(config: Any, _revision: str) -> None:
        seen.append(config.attributes["connection"].exec_driver_sql("PRAGMA foreign_keys").scalar())

    migrate_to(database, "0001")
    monkeypatch.setattr("alembic.command.upgrade", upgrade_and_look)
    migrate.upgrade(database)
    with database.write() as session:
        seen.append(session.scalar(text("PRAGMA foreign_keys")))
    assert seen == [0, 1]


def test_a_newer_database_and_a_foreign_one_are_told_apart(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate.state(database) == "newer"
    with pytest.raises(UsageError, match="newer Vivace"):
        migrate.upgrade(database)
    with database.engine.connect() as connection, connection.begin():
        for name in reversed(tables.Base.metadata.sorted_tables):
            connection.execute(text(f'DROP TABLE "{name.name}"'))
    assert migrate.state(database) == "foreign"


def test_a_missing_database_is_no_error_for_readers_and_made_for_writers(settings: Settings) -> None:
    assert open_for_reading(settings) is None
    assert not settings.home.exists()
    open_for_writing(settings).close()
    found = open_for_reading(settings)
    assert found is not None
    found.close()


def a_verdict(session: Any) -> dict[str, Any]:
    """The keys of a verdict whose judging, reply and criterion exist."""
    dataset = tables.Dataset(fingerprint="d", name="d", revision="r", has_audio=False)
    model = tables.Model(fingerprint="m", target="t", adapter="a", name="m", parameters={})
    judge = tables.Judge(fingerprint="j", target="t", name="j", parameters={}, parser_version="1")
    session.add_all([dataset, model, judge])
    session.flush()
    conversation = tables.Conversation(dataset_id=dataset.id, external_id="c", position=0, axis="VOICE_EDITING")
    run = tables.Run(
        id="run", identity="i", ordinal=0, track="t", dataset_id=dataset.id, model_id=model.id,
        input_form="transcript", items=["c"], limited=False, manifest={},
    )  # fmt: skip
    session.add_all([conversation, run])
    session.flush()
    criterion = tables.Criterion(conversation_id=conversation.id, number=0, text="x")
    reply = tables.Reply(run_id="run", conversation_id=conversation.id, text="y")
    judging = tables.Judging(id="judging", run_id="run", judge_id=judge.id)
    session.add_all([criterion, reply, judging])
    session.flush()
    return {"judging_id": "judging", "reply_id": reply.id, "criterion_id": criterion.id}


@pytest.mark.parametrize(
    ("met", "reason", "allowed"),
    [
        (True, None, True), (False, None, True), (None, "timeout", True),
        (None, None, False), (True, "timeout", False), (False, "timeout", False),
    ],
)  # fmt: skip
def test_a_verdict_has_one_of_three_values(
    database: Database, met: bool | None, reason: str | None, allowed: bool
) -> None:
    with database.write() as session:
        keys = a_verdict(session)
    if allowed:
        with database.write() as session:
            session.add(tables.Verdict(**keys, met=met, unscored_reason=reason))
    else:
        with pytest.raises(IntegrityError), database.write() as session:
            session.add(tables.Verdict(**keys, met=met, unscored_reason=reason))


def test_a_second_verdict_in_the_same_place_is_refused(database: Database) -> None:
    with database.write() as session:
        keys = a_verdict(session)
        session.add(tables.Verdict(**keys, met=True))
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(tables.Verdict(**keys, met=False))


def test_a_row_cannot_refer_to_nothing_and_children_go_with_their_run(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(tables.Judging(id="x", run_id="no-such-run", judge_id=1))
    with database.write() as session:
        session.add(tables.Verdict(**a_verdict(session), met=True))
    with database.write() as session:
        session.execute(text("DELETE FROM run"))
    with database.read() as session:
        assert session.query(tables.Verdict).count() == session.query(tables.Reply).count() == 0


def test_a_score_belongs_to_a_judging_or_an_arm_and_not_to_both_or_none(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(tables.Score(metric="apr", n=1, unscored=0))


def test_times_are_utc_and_a_time_without_a_zone_is_refused(database: Database) -> None:
    with database.write() as session:
        keys = a_verdict(session)
        session.add(tables.Verdict(**keys, met=True))
    with database.read() as session:
        made = session.query(tables.Verdict).one().created_at
    assert made.utcoffset() is not None and made.utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    with pytest.raises(StatementError), database.write() as session:
        session.query(tables.Verdict).update({"created_at": datetime(2026, 1, 1)})  # noqa: DTZ001
