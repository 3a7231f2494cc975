"""The page that compares systems: differences with intervals, what they show, and the conversations that flipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from support.judged import add_dataset, add_judging
from vivace.analysis.comparison import compare
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database
from vivace_app.plots import forest


def _compare_page() -> None:
    from vivace_app.views import compare

    compare.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run, with these query parameters."""
    app = AppTest.from_function(_compare_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    """All plain text on the page."""
    return "\n".join(str(element.value) for element in [*app.text, *app.markdown, *app.caption, *app.info])


@pytest.fixture
def found(home: Path) -> dict[str, str]:
    """A good system, a bad one and one just like the good one; a short name → the judging."""
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        dataset = add_dataset(session, 16)
        met, not_met = [[True, True]], [[True, False]]
        result = {
            "good": add_judging(session, dataset, [met] * 16, name="good"),
            "bad": add_judging(session, dataset, [not_met] * 12 + [met] * 4, name="bad"),
            "same": add_judging(session, dataset, [met] * 16, name="same"),
        }
    database.close()
    return result


def read(home: Path) -> Database:
    """The database of the home folder."""
    database = migrate.open_for_reading(Settings(home=home))
    assert database is not None
    return database


def test_nothing_yet(home: Path) -> None:
    assert "no results yet" in page().info[0].value


def test_the_first_view_compares_the_best_with_the_next(found: dict[str, str]) -> None:
    app = page()
    told = words(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert "#### `bad` against `good`" in told or "#### `good` against" in told
    assert "**Shown to be worse**: −75.0 [" in told
    assert "**No difference shown**: +0.0 [" in told
    table = app.dataframe[0].value
    assert next(iter(table["Part"].unique())) == forest.ALL
    assert len(table) == 2 * 2 * 5, "two systems, two scores, all and four axes"
    assert len(app.dataframe[1].value) == 12, "the conversations that flipped"


def test_what_is_compared_stands_in_the_url(found: dict[str, str]) -> None:
    app = page(judgings=f"{found['bad']},{found['good']}", by="turns", metric="ars", correction="bh")
    assert "**Shown to be better**: +37.5 [" in words(app)
    app.multiselect(key="address-judgings").set_value([found["good"]]).run()
    assert "Choose a second system" in words(app)
    app.multiselect(key="address-judgings").set_value([found["good"], found["same"]]).run()
    assert app.query_params["judgings"] in (f"{found['good']},{found['same']}", [f"{found['good']},{found['same']}"])
    assert "No conversation that both have scored wholly came out differently" in words(app)


@pytest.mark.parametrize("name", ["group", "judgings", "by", "metric", "correction"])
def test_any_url_becomes_a_sentence(found: dict[str, str], name: str) -> None:
    app = page(**{name: "<b>x</b>"})
    assert "`<b>x</b>`" in app.warning[0].value
    assert len(app.get("vega_lite_chart")) == 2


def test_a_breakdown_that_the_data_do_not_have_becomes_a_sentence(found: dict[str, str]) -> None:
    assert "does not know who speaks" in words(page(by="speaker"))


def test_one_result_alone_is_nothing_to_compare(home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        add_judging(session, add_dataset(session, 2), [[[True, True]]] * 2)
    database.close()
    assert "takes two results" in words(page())


def test_a_plot_shows_every_part_with_its_interval_and_shape(found: dict[str, str], home: Path) -> None:
    database = read(home)
    rows = [row for row in compare(database, [found["good"], found["bad"]]).rows if row.metric == "apr"]
    database.close()
    data = forest.points(rows)
    assert next(iter(data["part"])) == forest.ALL and len(data) == 5
    assert data.loc[0, "shows"] == forest.WORSE and data.loc[0, "value"] == -75.0
    spec: dict[str, Any] = json.loads(forest.plot(data, "points", forest.reach(rows)).to_json())
    domain = spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    assert domain[0] == -domain[1] and domain[1] >= abs(data["low"].min())
    assert "shape" in spec["layer"][2]["encoding"], "not by colour alone"


def test_what_a_family_does_not_show_is_not_called_better(found: dict[str, str], home: Path) -> None:
    database = read(home)
    rows = compare(database, [found["good"], found["same"]]).rows
    database.close()
    assert {forest.outcome(row) for row in rows} == {forest.OPEN}
