"""The page of the efficiency tracks, on a real database with a run whose figures are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from streamlit.testing.v1 import AppTest

from support.measured import run_of
from vivace.cli.tables.arm_table import ARM_COLUMNS
from vivace.settings import Settings
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.queries.efficiency import Measured, arm_board, diagnoses, layer_rows
from vivace.store.tables import Arm, Model, Run, Trial
from vivace.tracks.efficiency.records import record_diagnoses
from vivace.tracks.efficiency.scores import score_run
from vivace_app.plots import charts
from vivace_app.tables import arm_tables
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe, Recipe


def _page() -> None:
    from vivace_app.views import efficiency

    efficiency.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run, with these query parameters."""
    app = AppTest.from_function(_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def measured(home: Path, **changes: Any) -> Database:
    """A database with one scored run."""
    database = open_for_writing(Settings(home=home, database=None))
    run = run_of(database, **changes)
    with database.write() as session:
        score_run(session, run, margin=0.05)
    return database


def test_nothing_measured_says_how_to_begin(home: Path) -> None:
    open_for_writing(Settings(home=home, database=None)).close()
    assert page().code[0].value == "vivace demo"


def test_small_models_are_shown_without_their_times_and_called_synthetic(home: Path) -> None:
    measured(home)
    app = page()
    table = app.dataframe[0].value
    assert list(table["Arm"]) == ["dense", "sparse"] and list(table["Frontier"]) == ["★", "★ worse"]
    assert list(table["Bytes ×"]) == ["1", "0.500 [0.500–0.500]"]
    assert list(table["Comparable"]) == ["baseline", "worse"]
    assert not set(arm_tables.TIMES) & set(table.columns)
    assert "Synthetic" in app.info[0].value
    told = "\n".join(str(element.value) for element in [*app.text, *app.caption, *app.markdown])
    assert "Unofficial: synthetic: a small model of the zoo" in told
    assert "zoo:moe" in told


def test_real_models_have_times_and_the_floor_is_marked(home: Path) -> None:
    database = measured(home, adapter="local")
    app = page()
    table = app.dataframe[0].value
    assert table["Tokens/s"].notna().all() and list(table["Tokens/s ×"]) == ["1", "2.000 [2.000–2.000]"]
    assert any("Floor probe: reads 1.0 GB/s" in caption.value for caption in app.caption)
    rows = arm_board(database)
    limit = arm_tables.floor(rows)
    assert limit is not None and limit > 100, "a floor of 1 ms beside trials of a second"
    drawn = charts.frontier(arm_tables.points(rows), "x", more_is_better=True, floor=limit).to_dict()
    marks = [layer["mark"] for layer in drawn["layer"]]
    assert marks[0]["interpolate"] == "step-before" and marks[-1]["strokeDash"]
    assert len(charts.frontier(arm_tables.points(rows), "x", more_is_better=True, floor=None).to_dict()["layer"]) == 4


def test_retracted_runs_are_hidden_until_asked_for_and_bad_links_are_named(home: Path) -> None:
    database = measured(home)
    with database.write() as session:
        run = session.get_one(Run, "r1")
        run.retracted_at, run.retraction_reason = now(), "another weight file"
    assert "No results match" in page().info[0].value
    app = page(retracted="1", track="nonsense")
    assert any("Retracted: another weight file." in text.value for text in app.text)
    assert "nonsense" in app.warning[0].value
    assert not any(app.dataframe[0].value["Frontier"])


@pytest.mark.parametrize("more_is_better", [True, False])
def test_the_frontier_is_drawn_through_the_arms_on_it(home: Path, more_is_better: bool) -> None:
    rows = arm_board(measured(home))
    drawn = charts.frontier(arm_tables.points(rows), "x", more_is_better=more_is_better, floor=None).to_dict()
    name = drawn["layer"][0]["data"]["name"]
    assert {(point["cost"], point["quality"]) for point in drawn["datasets"][name]} == {(1.0, 1.0), (0.5, 0.8)}


def test_needles_are_drawn_by_depth_and_length_in_the_order_of_numbers(home: Path) -> None:
    cells = arm_tables.haystack(arm_board(measured(home)))
    assert len(cells) == 2 * 6 and set(cells["length"]) == {"1,024 tokens", "2,048 tokens"}
    drawn = charts.depth_and_length(cells).to_dict()["spec"]["encoding"]
    assert drawn["y"]["sort"] == ["0%", "50%", "100%"] and drawn["x"]["sort"] == ["1,024 tokens", "2,048 tokens"]


def test_an_arm_that_read_every_prompt_whole_says_so(home: Path) -> None:
    dense, sparse = arm_board(measured(home))
    figures = {name: Measured(1.0, None, None, 20) for name in ("figure_kept_share", "figure_kv_share")}
    whole = replace(sparse, figures={**sparse.figures, **figures})
    less = replace(whole, figures={**whole.figures, "figure_kv_share": Measured(0.9, None, None, 20)})
    said = [ARM_COLUMNS["notes"](row.as_json()) for row in (whole, less, dense)]
    assert [text.partition(", ")[0] for text in said] == ["nothing pruned", "synthetic", "synthetic"]
    assert arm_tables.table([whole])["Notes"][0] == ["unofficial", "nothing pruned", "synthetic"]


def test_rankings_are_drawn_by_layer_and_those_of_no_layer_in_all(home: Path) -> None:
    database = measured(home)
    told = [("rank_correlation", "10", "claa", 0.4), ("rank_correlation", "9", "claa", 0.3),
            ("kept_tokens", "9", "", 1.0),
            ("rank_correlation", "any", "random", 0.0), ("threshold", "9", "magnitude", 0.1)]  # fmt: skip
    with database.write() as session:
        arm = session.scalars(select(Arm).where(Arm.name == "sparse")).one()
        record_diagnoses(session, arm.id, [Diagnosis(*row, n=2) for row in told])
    found = arm_tables.rankings(diagnoses(database, "r1", "sparse"))
    cells = list(zip(found["ranking"], found["layer"], found["value"], strict=True))
    assert cells == [("claa", 10, 0.4), ("claa", 9, 0.3), ("random", 9, 0.0), ("random", 10, 0.0)]
    assert set(found["measure"]) == {"rank correlation"}
    assert charts.rankings_by_layer(found).to_dict()["spec"]["encoding"]["y"]["sort"] == ["claa", "random"]
    app = page()
    assert app.subheader[0].value == "Layer by layer" and app.selectbox(key="address-arm").options == ["sparse"]


def test_layers_of_a_fitted_arm_are_shown(home: Path) -> None:
    module = ModuleRecipe(0.5, 0.9, 3, "magnitude", 0.1, 0.04)
    modules = {"up": module, "down": replace(module, rank=0)}
    recipe = Recipe("teal", "m", None, "w", "text", 9, modules, {})
    database = measured(home)
    with database.write() as session:
        arm = session.scalars(select(Arm).where(Arm.name == "sparse")).one()
        record_diagnoses(session, arm.id, recipe.diagnoses())
        first, second = session.scalars(select(Trial).join(Arm).where(Arm.name == "sparse").limit(2)).all()
        for trial, kept, tokens in ((first, {"up": 0.2, "down": 0.5}, 3), (second, {"up": 0.6, "down": 0.5}, 1)):
            rows = [["kept_channels", layer, "", share, tokens] for layer, share in kept.items()]
            trial.measurements = {**trial.measurements, "diagnoses": rows}
        score_run(session, "r1", margin=0.05)
    up, down = layer_rows(database, "r1", "sparse")
    assert up["layer"] == "up" and up["kept_channels"] == pytest.approx((3 * 0.2 + 0.6) / 4), "by token, not by trial"
    assert (down["kept_channels"], down["rank"], down["output_error"]) == (0.5, 0, 0.04)
    assert (down["criterion"], down["threshold"], down["ratio"]) == ("magnitude", 0.1, 0.9)
    assert layer_rows(database, "r1", "dense") == layer_rows(database, "nothing", "sparse") == []
    app = page()
    shown = app.dataframe[1].value
    assert list(shown["Layer"]) == ["up", "down"] and list(shown["Rank"]) == [3, 0]
    assert app.selectbox(key="address-arm").options == ["sparse"]


def test_quality_is_held_against_what_is_chosen_and_the_frontier_with_it(home: Path) -> None:
    database = measured(home, adapter="local")
    rows = arm_board(database)
    offered = arm_tables.costs(rows)
    assert list(offered) == ["speed_ratio", "ttft_ratio", "bytes_ratio", "flops_ratio"], "two arms have each of them"
    assert list(arm_tables.costs([replace(row, adapter="zoo") for row in rows])) == ["bytes_ratio", "flops_ratio"]
    dear = replace(rows[1], figures={**rows[1].figures, "bytes_ratio": Measured(2.0, None, None, 9)})
    points = arm_tables.points([rows[0], dear], offered["bytes_ratio"])
    assert list(points["frontier"]) == [True, False] and list(points["beside the baseline"]) == ["baseline", "worse"]
    assert list(arm_tables.points([rows[0], dear], offered["speed_ratio"])["frontier"]) == [True, True]
    assert arm_tables.floor(rows, offered["bytes_ratio"]) is None and arm_tables.floor(rows, offered["speed_ratio"])
    assert page(cost="bytes_ratio").selectbox(key="address-cost").value == "bytes_ratio"
    assert arm_tables.fastest_within(rows, offered["speed_ratio"]) is None, "a fifth of its answers is lost"
    near = replace(rows[1], figures={**rows[1].figures, "quality_difference": Measured(-0.01, -0.1, 0.1, 9)})
    assert arm_tables.fastest_within([rows[0], near], offered["speed_ratio"]) is near
    told = arm_tables.measured(near, offered["speed_ratio"])
    assert told == "× 2.00 [2.00, 2.00]; quality −1.0 [−10.0, +10.0] points"
    slow = replace(near, figures={**near.figures, "speed_ratio": Measured(0.8, None, None, 9)})
    assert arm_tables.fastest_within([rows[0], slow], offered["speed_ratio"]) is slow
    assert not arm_tables.gains(slow, [rows[0], slow], offered["speed_ratio"]), "the best of the others loses time"


def test_heat_maps_of_experts_by_budget_and_of_modules() -> None:
    experts = {f"moe-spec(budget={budget})": [Diagnosis("unique_experts", str(layer), "", budget - layer, 4)
               for layer in range(3)] for budget in (8, 16)}  # fmt: skip
    cells = arm_tables.by_layer({**experts, "teal": [Diagnosis("kept_channels", "layers.0.mlp.up", "", 0.4, 9)]})
    assert len(cells) == 6 and set(cells["measure"]) == {"experts read in a pass"}
    drawn = charts.heat_map(cells, "arm", share=False).to_dict()["encoding"]
    assert drawn["y"]["sort"] == ["moe-spec(budget=8)", "moe-spec(budget=16)"]
    modules = arm_tables.by_module(
        [Diagnosis("kept_channels", "model.layers.7.mlp.up_proj", "", 0.4, 9), Diagnosis("ratio", "head", "", 0.4, 0)]
    )
    assert modules.to_dict("records") == [
        {"measure": "sparsity realised", "module": "mlp.up_proj", "layer": 7, "value": 0.6, "n": 9}
    ]


def test_one_model_is_shown_at_a_time_and_the_page_asks_a_few_questions(home: Path) -> None:
    """A question for each arm is what made this page slow."""
    database = measured(home)
    with database.write() as session:
        other = Model(fingerprint="n", target="zoo:other", adapter="zoo", name="other", parameters={})
        session.add(other)
        session.flush()
        old = session.get_one(Run, "r1")
        copied = {name: getattr(old, name) for name in Run.__table__.columns.keys()}  # noqa: SIM118
        session.add(Run(**{**copied, "id": "r2", "identity": "r2", "model_id": other.id}))
        session.flush()
        for place in range(30):
            arm = Arm(
                run_id="r2", name=f"teal(sparsity={place / 100})", method="teal", settings={}, ended_at=old.created_at
            )
            session.add(arm)
            session.flush()
            record_diagnoses(session, arm.id, [Diagnosis("kept_tokens", "1", "", 0.5, 2)])
    app = page()
    assert "zoo:moe on sums" in app.selectbox(key="address-group").options
    chosen = page(group="n-d")
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        chosen.run()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(chosen.dataframe[0].value) == 30 and len(asked) <= 40
