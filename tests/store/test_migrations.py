"""The schema: migrations and models say the same, old and new databases are told apart, constraints hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError

from support.judged import add_dataset, add_judging
from support.measured import run_of
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store import migrate, tables
from vivace.store.database import Database
from vivace.store.migrate import open_for_reading, open_for_writing
from vivace.store.queries.board import board
from vivace.store.queries.efficiency import diagnoses, layer_rows
from vivace.tracks.dialogue.judging.results import score_judging
from vivace.tracks.efficiency.scores import score_run
from vivace_methods.diagnosis import Diagnosis


@pytest.fixture
def settings(bare_database_url: str, tmp_path: Path) -> Settings:
    """Settings of a new database on either system."""
    return Settings(home=tmp_path / "home", database=bare_database_url)


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


def test_models_known_by_replies_made_elsewhere_are_told_from_their_adapters(database: Database) -> None:
    with database.write() as session:
        for adapter in ("replay", "import", "litellm"):
            session.add(tables.Model(fingerprint=adapter, target="t", adapter=adapter, name="m", parameters={}))
    migrate_to(database, "0019")
    with database.engine.connect() as connection, connection.begin():
        migrate._migrate(connection)
    with database.read() as session:
        recorded = dict(session.execute(select(tables.Model.adapter, tables.Model.recorded)).tuples().all())
    assert recorded == {"replay": True, "import": True, "litellm": False}


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


def test_an_older_database_shows_on_its_board_what_replies_and_calls_took(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.tracks.dialogue.judging.results.renew_effort", lambda session, run: None)
    with database.write() as session:
        dataset = add_dataset(session, 3)
        judging, other = (add_judging(session, dataset, [[[True, None]]] * 3, name=name) for name in "ab")
        session.get_one(tables.Judging, other).status = "open"
        run = judging.partition(".")[0]
        replies = session.scalars(
            select(tables.Reply).where(tables.Reply.run_id == run).order_by(tables.Reply.id)
        ).all()
        replies[0].total_s, replies[1].total_s, replies[2].ttft_s = 1.0, 2.0, 0.25
        calls: list[dict[str, Any]] = [
            {"stage": "generate", "input_tokens": 10, "audio_seconds": 1.5, "cost_usd": 0.5},
            {"stage": "generate", "input_tokens": 10, "audio_seconds": 1.5, "error": "timeout"},
            {"stage": "judge", "judging_id": judging, "output_tokens": 5, "cost_usd": 0.25},
            {"stage": "judge", "judging_id": judging, "cached": True, "cost_usd": 0.0},
            {"stage": "judge", "judging_id": judging, "input_tokens": 1},
        ]
        session.add_all(tables.Attempt(run_id=run, seconds=1.0, **call) for call in calls)
    migrate_to(database, "0006")
    for _ in range(2):  # down and up again, it is the same
        migrate.upgrade(database)
        (row,) = board(database)
        assert (row.judging, row.figures.coverage) == (judging, 0.5)
        assert (row.ttft_median_s, row.total_median_s) == (0.25, 1.5)
        assert (row.cost_usd, row.unpriced_calls) == (0.75, 1)
        assert [(stage, vars(calls)) for stage, calls in row.accounting.items()] == [
            ("generate", {
                "calls": 2, "failed": 1, "cached": 0, "input_tokens": 20, "output_tokens": None,
                "input_audio_tokens": None, "audio_seconds": 3.0, "cost_usd": 0.5, "unpriced": 0,
            }),
            ("judge", {
                "calls": 3, "failed": 0, "cached": 1, "input_tokens": 1, "output_tokens": 5,
                "input_audio_tokens": None, "audio_seconds": None, "cost_usd": 0.25, "unpriced": 1,
            }),
        ]  # fmt: skip
        migrate_to(database, "0006")
    migrate.upgrade(database)
    monkeypatch.undo()
    with database.write() as session:
        score_judging(session, judging)
    assert [replace(found, date=row.date) for found in board(database)] == [row], "scored again, it is the same"


def test_an_older_database_knows_how_each_conversation_came_out(database: Database) -> None:
    with database.write() as session:
        dataset = add_dataset(session, 3)
        replies = [[[True, True], [True, True]], [[True, None], [True, True]], [[None, True], [False, True]]]
        judging, other = (add_judging(session, dataset, replies, name=name) for name in "ab")
        session.get_one(tables.Judging, other).status = "open"
    found = tables.Outcome
    query = select(found.position, found.passed, found.pass_rate, found.verdicts).where(found.judging_id == judging)
    expected = [(0, True, 1.0, "11/11"), (1, None, 0.5, "1?/11"), (2, False, 0.0, "?1/01")]
    for _ in range(2):  # down and up again, it is the same
        with database.read() as session:
            assert session.execute(query.order_by(tables.Outcome.position)).all() == expected
        migrate_to(database, "0011")
        migrate.upgrade(database)
    with database.read() as session:
        assert set(session.scalars(select(tables.Outcome.judging_id))) == {judging}, "the other has not ended"


def test_what_arms_of_an_older_database_do_in_each_layer_moves_into_its_table(database: Database) -> None:
    run = run_of(database)
    migrate_to(database, "0006")
    module = {
        "sparsity": 0.5,
        "ratio": 0.9,
        "rank": 3,
        "criterion": "magnitude",
        "threshold": 0.1,
        "output_error": 0.04,
    }
    modules = {"up": module, "down": {**module, "rank": 0, "output_error": None}}
    recipe = {"calibration": "text", "tokens": 9, "model": "m"}
    before = {"sessions": [], "recipes": {"sparse": {**recipe, "modules": modules}}}
    with database.write() as session:
        session.execute(update(tables.Run).values(measured=before))
        arm = session.scalars(select(tables.Arm).where(tables.Arm.name == "sparse")).one().id
        of_arm = select(tables.Trial).where(tables.Trial.arm_id == arm).order_by(tables.Trial.id)
        trials = session.scalars(of_arm).all()
        seen = [({"up": 0.2, "down": 0.5}, 3), ({"up": 0.6, "down": 0.5}, 1), ({"up": 9.0, "down": 9.0}, 7)]
        for trial, (kept, tokens) in zip(trials, seen, strict=False):
            told = trial.measurements["trial"]
            figures = {"sparsity": 0.5, "kept": kept, "token_sparsity": [0.5] * tokens}
            trial.measurements = {**trial.measurements, "trial": {**told, "figures": figures}}
        trials[2].unscored_reason = "out of memory"
        measurements = [trial.measurements for trial in trials]
    expected = [
        {"layer": "up", "kept_channels": (0.2 * 3 + 0.6) / 4, **module},
        {"layer": "down", "kept_channels": 0.5, **modules["down"]},
    ]
    for _ in range(2):  # down and up again, it is the same
        migrate.upgrade(database)
        assert layer_rows(database, run, "sparse") == expected
        assert diagnoses(database, run, "sparse")[-1] == Diagnosis("kept_channels", "down", "", 0.5, 4)
        assert layer_rows(database, run, "dense") == []
        with database.read() as session:
            assert session.get_one(tables.Run, run).measured == {"sessions": [], "recipes": {"sparse": recipe}}
            now = session.get_one(tables.Trial, trials[1].id).measurements
        assert now["trial"]["figures"] == {"sparsity": 0.5, "token_sparsity": [0.5]}
        assert now["diagnoses"] == [["kept_channels", "up", "", 0.6, 1], ["kept_channels", "down", "", 0.5, 1]]
        with database.write() as session:
            session.add(tables.Diagnosis(arm_id=arm, kind="kept_tokens", layer="7", setting="", value=0.2, n=3))
        migrate_to(database, "0021")
        with database.read() as session:
            layers = select(tables.Diagnosis.layer, tables.Diagnosis.kind).where(tables.Diagnosis.kind == "kept")
            assert {layer for layer, _ in session.execute(layers)} == {"up", "down", "7"}
        migrate_to(database, "0006")
        with database.read() as session:
            assert session.scalars(select(tables.Run.measured)).one() == before
            now = [trial.measurements for trial in session.scalars(of_arm)]
            assert now == measurements
    migrate.upgrade(database)
    with database.write() as session:
        score_run(session, run, margin=0.05)
    assert layer_rows(database, run, "sparse") == expected, "scored again, it is the same"


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
