"""The page of other tools: groups without ranks, what is unscored beside each figure, and texts as texts."""

from __future__ import annotations

import json
from pathlib import Path

from streamlit.testing.v1 import AppTest

from vivace.interchange.foreign_results import import_results, read_results
from vivace.interchange.forms import Form
from vivace.settings import Settings
from vivace.store.migrate import open_for_writing

LOGS = Path(__file__).parents[1] / "comparison" / "inspect_logs"


def _page() -> None:
    from vivace_app.views import foreign

    foreign.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run."""
    app = AppTest.from_function(_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def test_results_stand_in_groups_with_what_is_unscored(home: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "results_2026-01-02T03-04-05.678.json"
    name = "<b onclick=alert(1)>m</b> [x](http://evil.invalid)"
    hostile.write_text(json.dumps({
        "results": {"`t` $x$": {"acc,none": 0.5}}, "lm_eval_version": "0", "model_name": name,
    }))  # fmt: skip
    database = open_for_writing(Settings(home=home))
    import_results(database, read_results(Form.INSPECT, [LOGS]))
    import_results(database, read_results(Form.LM_EVAL, [hostile]))
    database.close()
    app = page()
    tables = [frame.value for frame in app.dataframe]
    assert [len(table) for table in tables] == [2, 1]
    assert "7 of 12 (1 off the menu" in str(tables[0]["Scored"].to_list()) and "Rank" not in tables[0]
    assert list(tables[1]["Model"]) == [name] and "Scored" not in tables[1]
    assert [len(frame.value) for frame in page(task="`t` $x$").dataframe] == [1]
    assert "There is no task" in page(task="gone").warning[0].value


def test_an_empty_page_says_how_results_come_in(home: Path) -> None:
    assert "Nothing was brought in yet" in page().info[0].value
    open_for_writing(Settings(home=home)).close()
    assert "vivace import --from" in page().code[0].value
