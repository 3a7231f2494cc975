"""Regression jobs of the efficiency tracks: the figures of arms, and a machine told apart from a method."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from support.measured import PROMPTS, run_of
from support.program import vivace
from vivace.regressions.causes import find_causes
from vivace.regressions.samples import Figure, RunSample, sample_of, spread_of_speeds
from vivace.settings import Settings
from vivace.spec import parse_spec
from vivace.statistics.regression import Sample, noticeable
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import Dataset

SPEC = {"track": "sparsity", "model": "zoo:moe", "tasks": ["sums"], "arms": ["teal"]}
GATES = {"quality": 0.0, "speed": 0.03, "machine": 0.1}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A recorded run of a baseline and an arm that takes half the time."""
    opened = open_for_writing(Settings(home=tmp_path))
    run_of(opened)
    return opened


def slower(sample: Sample, share: float) -> Sample:
    """A speed's logarithms after a loss, with a little noise."""
    return {
        unit: value + math.log(1 - share) + 0.001 * (place % 3) for place, (unit, value) in enumerate(sample.items())
    }


def read(database: Database) -> tuple[RunSample, Figure, Figure]:
    """The run, its arm's throughput and its machine."""
    with database.read() as session:
        sample = sample_of(session, "r1", None)
    (speed,) = (figure for figure in sample.figures if figure.metric == "throughput")
    (machine,) = (figure for figure in sample.figures if figure.metric == "machine")
    return sample, speed, machine


def test_a_run_of_arms_is_its_qualities_speeds_beside_the_baseline_and_the_machine(database: Database) -> None:
    sample, speed, machine = read(database)
    assert sample.coverage == 1.0
    assert set(sample.figures[speed]) == set(PROMPTS)
    assert all(value == pytest.approx(math.log(2), abs=0.2) for value in sample.figures[speed].values())
    assert machine.slice != speed.slice
    assert {figure.metric for figure in sample.figures} == {"quality", "throughput", "first_token", "machine"}
    assert speed.tolerance(GATES) == pytest.approx(-math.log(0.97))


@pytest.mark.parametrize(("machine_lost", "method_lost", "names"), [
    (0.3, 0.0, ["machine"]), (0.0, 0.2, ["model"]), (0.3, 0.2, ["machine", "model"]),
])  # fmt: skip
def test_a_slower_machine_and_a_slower_method_are_told_apart(
    database: Database, machine_lost: float, method_lost: float, names: list[str]
) -> None:
    sample, speed, machine = read(database)
    changed = {
        speed: slower(sample.figures[speed], method_lost),
        machine: slower(sample.figures[machine], machine_lost),
    }
    tonight = replace(sample, figures={**sample.figures, **changed})
    confirmed = [figure for figure, lost in ((machine, machine_lost), (speed, method_lost)) if lost]
    found = find_causes(
        database, parse_spec(dict(SPEC)), confirmed, [tonight] * 2, [sample] * 7,
        {figure: figure.tolerance(GATES) for figure in sample.figures},
    )  # fmt: skip
    assert found.names == names
    said = "slower itself" if machine_lost else "The baseline arm itself, measured in the same runs: +0.1 %"
    assert any(said in note for note in found.notes)


def test_tasks_of_another_revision_are_named_and_no_model_is_blamed(database: Database) -> None:
    sample, speed, _ = read(database)
    with database.write() as session:
        session.add(Dataset(fingerprint="other", name="sums", revision="revision-2", has_audio=False))
        session.flush()
        other = session.scalars(select(Dataset.id).where(Dataset.fingerprint == "other")).one()
    worse = {**sample.figures, speed: slower(sample.figures[speed], 0.2)}
    tonight = replace(sample, dataset_id=other, figures=worse)
    found = find_causes(
        database, parse_spec(dict(SPEC)), [speed], [tonight] * 2, [sample] * 7, {speed: speed.tolerance(GATES)}
    )
    assert found.names == ["data"]
    assert "of prompts only the names are kept" in found.notes[0]
    assert "−20" in found.notes[1]


def test_what_a_job_can_notice_is_said_before_it_is_made(tmp_path: Path) -> None:
    done = vivace("plan", "regression", "--conversations", 452, "--figures", 20, "--home", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3." in done.stdout
    assert vivace("plan", "regression", "--home", tmp_path).returncode == 2
    assert vivace("plan", "regression", "1234", "--home", tmp_path).returncode == 2


def test_a_run_of_arms_says_which_loss_of_speed_a_job_of_its_size_notices(database: Database, tmp_path: Path) -> None:
    done = vivace("plan", "regression", "r1", "--format", "json", "--home", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["figure"].split(" ")[0]: row for row in json.loads(done.stdout)}
    assert {row["prompts"] for row in rows.values()} == {len(PROMPTS)}
    with database.read() as session:
        (values,) = (
            spread for figure, spread in spread_of_speeds(session, "r1").items() if figure.metric == "throughput"
        )
    assert values[1] is not None and rows["speed"]["noise"] == pytest.approx(math.sqrt(values[1]))
    wider = noticeable(len(PROMPTS), 4 * values[1], 4, tolerance=-math.log(0.97), flip=0.0)
    assert 0.03 < rows["speed"]["noticeable"] < 1 - math.exp(-(wider or math.inf))
