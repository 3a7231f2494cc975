"""From recorded trials to the board: figures with known values, the frontier, and what makes a row unofficial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from support.measured import PROMPTS, run_of
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.efficiency import ArmRow, Measured, arm_board, frontier
from vivace.store.verdicts import judging_card
from vivace.tracks.efficiency.records import best_floor
from vivace.tracks.efficiency.scores import score_run
from vivace_methods.timing.trials import Trial


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Database:
    """An empty database, on both kinds."""
    return open_for_writing(Settings(home=tmp_path / "home", database=database_url))


def scored(database: Database, **changes: Any) -> list[ArmRow]:
    """The board of such a run."""
    run = run_of(database, **changes)
    with database.write() as session:
        score_run(session, run, margin=0.05)
    return arm_board(database, "sparsity")


def test_figures_are_what_the_trials_say(database: Database) -> None:
    dense, sparse = scored(database)
    assert (dense.arm, dense.baseline, sparse.arm, sparse.baseline) == ("dense", True, "sparse", False)
    assert dense.figures["quality"] == Measured(1.0, pytest.approx(0.8389, abs=1e-3), 1.0, 20)
    assert sparse.figures["quality"].value == 0.8
    assert sparse.figures["quality_difference"].value == pytest.approx(-0.2)
    assert sparse.figures["comparable"].value == 0
    for metric, ratio in {"total_ratio": 0.5, "ttft_ratio": 0.5, "speed_ratio": 2, "bytes_ratio": 0.5}.items():
        found = sparse.figures[metric]
        assert found.value == pytest.approx(ratio) == found.low == found.high, metric
    assert sparse.figures["bytes_per_token"].value == 50 and dense.figures["flops_per_token"].value == 200
    assert sparse.figures["floor_s"].value == pytest.approx(5e-4)
    assert sparse.figures["floor_tokens_per_s"].value == pytest.approx(10 / 5e-4)
    assert sparse.figures["agreement"].value == 1.0
    # All prompts diverge alike, which tells nothing of how far others would.
    assert sparse.figures["kl_per_token"] == Measured(pytest.approx(0.05), None, None, 20)
    assert "kl_per_token" not in dense.figures
    shares = {part: (its.value, its.n) for part, its in sparse.parts.items()}
    assert len(shares) == 6 and shares["2,048 tokens, 0% deep"] == (2 / 3, 3), (
        "of prompts 3, 9 and 15 the last is wrong"
    )
    assert sparse.as_json()["parts"]["1,024 tokens, 0% deep"]["n"] == 4 and not sparse.tasks
    perplexity = dense.figures["perplexity"]
    half = 2.093024 * 0.125 / math.sqrt(19)
    assert perplexity.value == pytest.approx(math.exp(0.375))
    assert (perplexity.low, perplexity.high) == pytest.approx((math.exp(0.375 - half), math.exp(0.375 + half)), 1e-6)
    assert sparse.figures["figure_kept"].value == 0.5
    assert {name for name in sparse.figures if name.startswith("figure_")} == {"figure_kept"}
    assert (dense.cost, sparse.cost) == (1.0, pytest.approx(0.5))
    assert dense.frontier and sparse.frontier, "one is better, the other cheaper"
    assert dense.unofficial_reasons == ["synthetic: a small model of the zoo", "fewer than 30 prompts"]
    assert dense.hardware == "Some CPU, 2 threads"


def test_times_count_where_the_model_is_real_and_what_the_audits_found_stands_beside_them(database: Database) -> None:
    finding = {"arm": "sparse", "fault": "caches prompts", "sentence": "It keeps something."}
    measured = {"sessions": [{"session": "s", "findings": [finding]}]}
    dense, sparse = scored(database, adapter="local", items=PROMPTS * 2, measured=measured)
    assert sparse.axis.metric == "speed_ratio" and sparse.cost == pytest.approx(2)
    assert dense.official and not sparse.official
    assert sparse.unofficial_reasons == ["caches prompts: It keeps something."]


def test_scoring_again_replaces_and_failed_trials_are_counted(database: Database) -> None:
    scored(database)
    with database.write() as session:
        row = session.query(tables.Trial).filter_by(prompt=PROMPTS[1], repetition=1).all()[1]
        failed = Trial(
            **{**vars(Trial.from_json(row.measurements["trial"])), "failure": "out of memory", "tokens": ()}
        )
        row.measurements, row.unscored_reason = {"trial": failed.as_json()}, "out of memory"
        score_run(session, "r1", margin=0.05)
    sparse = arm_board(database)[1]
    assert sparse.figures["trials"].n == 39
    assert (sparse.standing, sparse.trials_planned, sparse.frontier) == ("incomplete", 40, False), "the cheapest one"
    assert "1 trials have no result" in sparse.unofficial_reasons
    assert sparse.figures["bytes_ratio"].value == pytest.approx(0.5)


def row(cost: float | None, quality: float | None) -> ArmRow:
    """A row of the sparsity board, of bytes moved."""
    figures = {
        name: Measured(value, None, None, 1)
        for name, value in (("bytes_ratio", cost), ("quality", quality))
        if value is not None
    }
    from datetime import UTC, datetime

    from vivace_methods.families import FAMILIES

    return ArmRow(
        track="sparsity", model="m", adapter="zoo", arm=f"{cost} {quality}", method="x", settings={}, fitted=None,
        baseline=False, baseline_arm="dense", axis=FAMILIES["sparsity"].counted_cost, figures=figures, tasks={},
        parts={}, frontier=False, data="d", data_revision="r", hardware="h", hardware_fingerprint="h",
        hardware_details={},
        floor=None, official=False, unofficial_reasons=[], retracted=None, date=datetime.now(UTC), run="r",
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.3, 0.6, 1.0])), max_size=12))
def test_the_frontier_holds_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    rows = [row(*point) for point in points]
    chosen = [(found.cost, found.value("quality")) for found in frontier([*rows, row(None, 1.0), row(0.1, None)])]
    unbeaten = [
        (cost, quality)
        for cost, quality in points
        if not any((c <= cost and q > quality) or (c < cost and q >= quality) for c, q in points)
    ]
    assert sorted(chosen) == sorted(unbeaten)


def test_a_run_in_which_nothing_is_judged_is_told_apart_from_none(database: Database) -> None:
    run = run_of(database)
    with pytest.raises(UsageError, match="is a run of the track sparsity, where nothing is judged: `vivace leaderb"):
        judging_card(database, run)
    with pytest.raises(UsageError, match="There is no ended judging 'nobody'"):
        judging_card(database, "nobody")


def test_arms_that_read_alike_are_told_apart_by_their_runs_settings(database: Database) -> None:
    scored(database)
    with database.write() as session:
        first = session.get_one(tables.Run, "r1")
        first.manifest = {"seed": 1, "margin": 0.05}
        made_of = {column.name: getattr(first, column.name) for column in tables.Run.__table__.columns}
        again = {**made_of, "id": "r2", "identity": "r2", "repeats": 3, "manifest": {"seed": 2, "margin": 0.05}}
        session.add(tables.Run(**again))
        session.flush()
        ended = session.query(tables.Arm).first()
        session.add(tables.Arm(run_id="r2", name="dense", method="dense", settings={}, ended_at=ended.ended_at))
    rows = [row for row in arm_board(database) if row.arm == "dense"]
    assert {row.short_run: dict(row.apart) for row in rows} == {
        "r1": {"repeats": "2", "seed": "1"}, "r2": {"repeats": "3", "seed": "2"},
    }  # fmt: skip
    assert rows[0].as_json()["apart"] and next(row.apart for row in arm_board(database) if row.arm == "sparse") == {}


def test_a_floor_is_of_the_best_that_the_device_did_in_all_of_the_run(database: Database) -> None:
    """The probe goes on between the trials and after them: a later, better try holds for earlier trials, too."""
    run = run_of(database)
    with database.write() as session:
        for trial in session.scalars(select(tables.Trial)):
            trial.measurements = {**trial.measurements, "full_prefill_bytes": 100.0, "full_prefill_flops": 4e4}
    found = []
    for rate in (1e9, 4e9):
        with database.write() as session:
            row = session.get_one(tables.Run, run)
            assert row.measured is not None
            better = {**row.measured["floor"], "read_bytes_per_s": rate, "device": DEVICE}
            slower = {**better, "read_bytes_per_s": rate / 2, "launch_s": 9.0}
            for floor in (best_floor(better, slower), best_floor(slower, better), best_floor(None, better)):
                assert floor == better
            row.measured = {**row.measured, "floor": better}
            score_run(session, run, margin=0.05)
        found.append(arm_board(database, "sparsity")[1].figures)
    assert [each["floor_s"].value for each in found] == pytest.approx([5e-7, 1.25e-7])
    assert found[0]["full_prefill_floor_s"].value == pytest.approx(4e-6), "here products take longer than reading"


DEVICE = {"name": "Some CPU", "kind": "cpu", "threads": 2, "torch_version": "2"}
