"""Breakdowns, gaps, published figures, repeats and votes as the pages show them."""

from __future__ import annotations

import importlib.resources
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

from support.judged import add_dataset, add_judging
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.tables import Attempt, Model, Reply
from vivace.tracks.dialogue.judging.results import score_judging
from vivace_app.plots import board_plots, charts

MAIN = str(importlib.resources.files("vivace_app") / "main.py")


def _analysis_page() -> None:
    from vivace_app.views import analysis

    analysis.show()


def _conversation_page() -> None:
    from vivace_app.views import conversation

    conversation.show()


def run(app: AppTest, **parameters: str) -> AppTest:
    """A page after its first run, with these query parameters."""
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def analysis(**parameters: str) -> AppTest:
    """The analysis page."""
    return run(AppTest.from_function(_analysis_page, default_timeout=300), **parameters)


def board(**parameters: str) -> AppTest:
    """The board."""
    return run(AppTest.from_file(MAIN, default_timeout=300), **parameters)


def words(app: AppTest) -> str:
    """All plain text on the page."""
    return "\n".join(str(element.value) for element in [*app.text, *app.markdown, *app.caption, *app.info])


def chart(app: AppTest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The specification and the rows of the page's chart."""
    import pyarrow

    proto = app.get("vega_lite_chart")[0].proto
    (data,) = proto.datasets
    rows: list[dict[str, Any]] = pyarrow.ipc.open_stream(data.data.data).read_all().to_pylist()
    return json.loads(proto.spec), rows


@pytest.fixture
def found(home: Path) -> dict[str, str]:
    """Two systems from audio, one of them also from transcripts; longer conversations fail. Name → judging."""
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        dataset = add_dataset(session, 64, seconds=[float(place) for place in range(1, 65)], turns=(2, 3))
        short = [[[place < 32, True]] for place in range(64)]
        result = {
            "falling": add_judging(session, dataset, short, name="falling", hearing={"outcome": "passed"}),
            "steady": add_judging(session, dataset, [[[True, True], [place % 2 == 0, True]] for place in range(64)],
                                  name="steady"),
            "reading": add_judging(session, dataset, [[[True, True]]] * 64, name="falling", input_form="transcript"),
        }  # fmt: skip
        votes = {(0, 0, 0): [True, True, False]}
        result["voted"] = add_judging(session, dataset, short, name="falling", judge="panel", votes=votes)
        for error, cost in ((None, 0.5), ("timeout", 0.25)):
            session.add(
                Attempt(
                    run_id=result["falling"].partition(".")[0], stage="generate", seconds=1.0, input_tokens=100,
                    output_tokens=10, audio_seconds=90.0, cost_usd=cost, error=error,
                )
            )  # fmt: skip
        score_judging(session, result["falling"])
    database.close()
    return result


def test_nothing_yet(home: Path) -> None:
    assert "no results yet" in analysis().info[0].value


def test_self_coherence_against_seconds_of_audio_is_what_the_page_begins_with(found: dict[str, str]) -> None:
    app = analysis(judgings=found["falling"])
    spec, rows = chart(app)
    assert "place" in json.dumps(spec), "the curve lies along seconds, not along names"
    assert [row["conversations"] for row in rows] == [8, 8], "16 conversations of the axis"
    assert [row["value"] for row in rows] == [1.0, 0.0]
    assert all(row["low"] < row["high"] for row in rows)
    assert rows[0]["place"] < rows[1]["place"]


def test_an_axis_of_one_part_is_not_what_the_page_begins_with(home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        dataset = add_dataset(session, 16, seconds=[float(place) for place in range(1, 17)])
        add_judging(session, dataset, [[[True, place < 8]] for place in range(16)])
    database.close()
    app = analysis()
    assert app.selectbox(key="address-axis").value == "all"
    assert len(chart(app)[1]) > 1
    spec, rows = chart(analysis(axis="SELF_COHERENCE"))
    assert len(rows) == 1 and "place" not in json.dumps(spec), "one part lies along nothing"


def test_lines_are_told_apart_by_shape_and_named_below_each_other(found: dict[str, str]) -> None:
    spec, _ = chart(analysis(judgings=f"{found['falling']},{found['steady']}"))
    points = next(layer["encoding"] for layer in spec["layer"] if "shape" in layer["encoding"])
    assert len(set(points["shape"]["scale"]["range"])) == len(points["color"]["scale"]["range"]) == 2
    assert points["shape"]["legend"]["columns"] == 1, "side by side, names run out of a telephone"


def test_no_plot_draws_in_the_colour_of_a_dark_page() -> None:
    colours = re.findall("#[0-9A-Fa-f]{6}", inspect.getsource(charts) + inspect.getsource(board_plots))
    assert len(colours) > 10 and not {"#000000", "#FFFFFF"} & {colour.upper() for colour in colours}


def test_what_is_broken_down_stands_in_the_address(found: dict[str, str]) -> None:
    app = analysis(judgings=f"{found['falling']},{found['steady']}", by="turns", axis="all", metric="ars")
    _, rows = chart(app)
    assert {row["part"] for row in rows} == {"2 turns", "3 turns"}
    assert len({row["model"] for row in rows}) == 2
    app.selectbox(key="address-by").select("axis").run()
    _, rows = chart(app)
    assert "Self Coherence" in {row["part"] for row in rows}
    assert app.query_params["by"] in ("axis", ["axis"])


def test_an_unknown_breakdown_and_system_become_sentences(found: dict[str, str]) -> None:
    app = analysis(judgings=f"{found['falling']},nothing", by="speaker")
    assert "does not know who speaks" in words(app)
    assert any("nothing" in warning.value for warning in app.warning)


def test_gaps_are_side_by_side(found: dict[str, str]) -> None:
    table = analysis().dataframe[-1].value
    assert list(zip(table["Gap"], table["Score"], strict=True)) == [("hearing", "APR"), ("hearing", "ARS")]
    first = table.iloc[0]
    assert (first["Text"].strip(), first["Audio"].strip()) == ("100.0 %", "50.0 %")
    assert first["Audio − text"].startswith("−50.0 [−")


def test_what_an_ear_lost_stands_below_its_gap(home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        dataset = add_dataset(session, 8)
        for form, met in (("transcript", True), ("audio-16k", False)):
            outcomes = [[[True, met or place > 0]] for place in range(8)]
            add_judging(session, dataset, outcomes, parameters={"ear": "small"}, input_form=form)
        session.scalars(select(Model)).one().target = "cascade:litellm:system"
        for reply in session.scalars(select(Reply)):
            reply.heard = [
                {"number": 1, "text": "Yellow.", "unscored": None, "detail": None, "seconds": 1.0, "cost_usd": 0.0,
                 "errors": 1, "words": 1},
            ]  # fmt: skip
        score_judging(session, "run1.judge")
    database.close()
    app = analysis()
    tables = [one.value for one in app.dataframe]
    fell = next(table for table in tables if "Misheard" in table)
    assert list(fell["Misheard"]) == ["hello → yellow"] and list(fell["Criterion"]) == ["Criterion 1"]
    assert set(next(table for table in tables if "Gap" in table)["Gap"]) == {"ear"}


def test_published_figures_are_beside_the_board_and_have_no_rank(found: dict[str, str]) -> None:
    app = board()
    tables = len(app.dataframe)
    app.toggle(key="address-published").set_value(True).run()
    assert len(app.dataframe) == tables + 1
    table = next(one.value for one in app.dataframe if "Source" in one.value)
    assert "Rank" not in table and set(map(tuple, table["Notes"])) == {("published, not run here",)}
    assert table["Source"].notna().all() and table["Date"].notna().all()
    assert "not run here" in words(app)
    assert app.query_params["published"] in ("1", ["1"])


def test_a_track_that_is_not_here_is_named_and_takes_nothing_away(found: dict[str, str]) -> None:
    app = board(track="nothing", published="1")
    assert any("`nothing`" in warning.value for warning in app.warning)
    assert any(element.key == "address-published" for element in app.toggle)


def test_repeats_votes_hearing_and_what_it_took_are_on_the_board(found: dict[str, str]) -> None:
    app = board()
    ranked = [one.value for one in app.dataframe if "Rank" in one.value]
    assert len(ranked) == 2, "three votes are another judge than one"
    table = ranked[0].set_index("Model")
    assert table.loc["steady", "Repeats"] == 2
    assert [list(notes) for notes in table["Notes"] if "hears" in list(notes)] == [["unofficial", "hears"]]
    page = analysis(judgings=found["falling"])
    took = next(one.value for one in page.dataframe if "Stage" in one.value).iloc[0]
    assert (took["Calls"], took["Failed"], took["Input tokens"], took["Audio sent"]) == (2, 1, 200, 3.0)
    assert took["Cost"] == 0.75
    assert "3 votes" in words(app)


def test_each_reply_of_a_conversation_can_be_read(found: dict[str, str]) -> None:
    page = AppTest.from_function(_conversation_page, default_timeout=300)
    app = run(page, judging=found["steady"], conversation="set001")
    assert "Reply 0." in words(app)
    assert "1 of 2 pass" in list(app.dataframe[0].value["Result"])
    app.selectbox(key="address-repeat").select("1").run()
    assert "Reply 1." in words(app) and "1 of 2 criteria met" in words(app)
    voted = run(AppTest.from_function(_conversation_page, default_timeout=300), judging=found["voted"])
    assert "2 of 3 votes for met" in words(voted)
