"""Each page by itself, in Streamlit's own test harness on a real database."""

from __future__ import annotations

import importlib.resources
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, update
from streamlit.testing.v1 import AppTest

from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.tables import Model
from vivace.upkeep.labels import change

MAIN = str(importlib.resources.files("vivace_app") / "main.py")


def board(**parameters: str) -> AppTest:
    """The board after its first run, with these query parameters."""
    app = AppTest.from_file(MAIN, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def _conversation_page() -> None:
    from vivace_app.views import conversation

    conversation.show()


def conversation(**parameters: str) -> AppTest:
    """The conversation page after its first run, with these query parameters."""
    app = AppTest.from_function(_conversation_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def models(app: AppTest, table: int = 0) -> list[str]:
    """The models of one of the board's tables, in order."""
    return list(app.dataframe[table].value["Model"])


def words(app: AppTest) -> str:
    """All plain text on the page."""
    return "\n".join(str(element.value) for element in [*app.text, *app.markdown, *app.caption])


def listed(app: AppTest) -> list[str]:
    """The conversations in the list."""
    return list(app.dataframe[0].value["Conversation"])


@pytest.mark.parametrize("page", [board, conversation])
def test_missing_database_says_how_to_begin(page: Callable[[], AppTest], home: Path) -> None:
    app = page()
    assert "no results yet" in app.info[0].value
    assert app.code[0].value == "vivace demo"
    assert not home.exists(), "reading creates nothing"


@pytest.mark.parametrize("page", [board, conversation])
@pytest.mark.usefixtures("empty")
def test_empty_database_says_how_to_begin(page: Callable[[], AppTest]) -> None:
    assert "no results yet" in page().info[0].value


def test_results_appear_without_a_restart(home: Path, request: pytest.FixtureRequest) -> None:
    app = board()
    assert app.info
    request.getfixturevalue("judgings")
    app.run()
    assert not app.info
    assert models(app)[0] == "careful"


@pytest.mark.usefixtures("judgings")
def test_another_database_in_the_same_place_is_noticed(home: Path) -> None:
    app = board()
    assert models(app)
    shutil.rmtree(home)
    migrate.open_for_writing(Settings(home=home)).close()
    app.run()
    assert "no results yet" in app.info[0].value


def test_foreign_database_is_refused_in_words(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "vivace.db") as other:
        other.execute("CREATE TABLE cats (name TEXT)")
    other.close()
    app = board()
    assert "cannot be shown" in app.error[0].value
    assert "tables that Vivace did not make" in app.text[0].value
    assert home.name not in app.text[0].value, "the operator alone is told where"


@pytest.mark.usefixtures("judgings")
def test_board_ranks_inside_data_and_judge() -> None:
    app = board()
    assert len(app.dataframe) == 3
    assert words(app).count("No ranked model's card says that its weights are open") == 3
    table = app.dataframe[0].value
    assert list(zip(table["Rank"], table["Model"], strict=True)) == [
        ("1=", "careful"),
        ("1=", "steady"),
        ("1=", "reader"),
        ("4", "Qwen3-Omni-30B-A3B-Instruct"),
        ("–", "sleepy"),
    ]
    assert "do not compare" in words(app)


@pytest.mark.usefixtures("judgings")
def test_board_tells_why_a_result_is_unofficial_and_what_a_system_is() -> None:
    told = words(board(retracted="1"))
    assert "Unofficial: coverage 95 % is below the track's 98 %" in told
    assert "Hand-written demo system: remembers every fact it was told." in told
    assert "Retracted: the audio of another dataset was played" in told


@pytest.mark.usefixtures("judgings")
def test_retracted_results_take_nobodys_rank() -> None:
    plain, shown = board().dataframe[0].value, board(retracted="1").dataframe[0].value
    assert list(shown["Model"]) == [*plain["Model"], "withdrawn"]
    assert list(shown["Rank"]) == [*plain["Rank"], "–"]


@pytest.mark.usefixtures("judgings")
def test_filters_stand_in_the_url() -> None:
    app = board()
    app.toggle(key="address-official").set_value(True).run()
    assert app.query_params["official"] in ("1", ["1"])
    assert models(app) == ["careful", "steady"]
    judge = next(option for option in app.selectbox(key="address-judge").options if "strict" in option)
    app.selectbox(key="address-judge").select(judge.split(" · ")[1]).run()
    assert [models(app, table) for table in range(len(app.dataframe))] == [["careful"]]
    again = board(
        **{name: value[0] if isinstance(value, list) else value for name, value in app.query_params.items()}
    )
    assert models(again) == ["careful"]
    app.toggle(key="address-official").set_value(False).run()
    assert "official" not in app.query_params


@pytest.mark.parametrize("name", ["data", "judge", "official", "retracted"])
@pytest.mark.usefixtures("judgings")
def test_board_survives_any_url(name: str, hostile: str) -> None:
    app = board(**{name: hostile})
    assert "<b onclick" in app.warning[0].value
    assert app.warning[0].value.count("`") == 2, "shown as code"
    assert len(app.dataframe) == 3
    app.run()
    assert not app.warning, "said once"


def test_rows_are_filtered_by_how_they_heard_and_answered(judgings: dict[str, str], home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home, database=None))
    change(database, judgings["reader"], ["+nightly"])
    with database.write() as session:
        session.execute(update(Model).where(Model.name == "reader").values(open_weights=True))
    database.close()
    assert "Best with open weights: **`reader`**, rank 1=." in words(board())
    labelled = board(label="nightly", weights="open")
    assert models(labelled) == ["reader"] and list(labelled.dataframe[0].value["Labels"]) == ["nightly"]
    assert list(labelled.dataframe[0].value["Weights"]) == ["open"]
    app = board(input="transcript")
    assert app.selectbox(key="address-weights").options == ["All", "Open weights"], "of the others nobody knows"
    assert models(app) == ["reader"] and app.query_params["input"] == "transcript"
    app.selectbox(key="address-input").set_value("all").run()
    assert "careful" in models(app) and "input" not in app.query_params
    assert not board(since="7").dataframe and board(since="soon").warning
    assert board(weights="closed").warning, "no card says that weights are closed"


@pytest.mark.usefixtures("judgings")
def test_filters_that_leave_nothing() -> None:
    app = board()
    kitchen = next(option for option in app.selectbox(key="address-data").options if "kitchen" in option)
    strict = next(option for option in app.selectbox(key="address-judge").options if "strict" in option)
    app = board(data=kitchen, judge=strict.split(" · ")[1])
    assert "No results match" in app.info[0].value


def test_tracks_are_chosen_when_there_are_several(second_track: str) -> None:
    app = board()
    assert app.selectbox(key="address-track").options == ["Dialogue", "Speculation"]
    app = board(track=second_track)
    assert models(app) == ["counter"]
    assert board(track="nonsense").warning


def test_board_of_200_rows_asks_the_database_a_few_times(
    many: int, record_property: Callable[[str, Any], None]
) -> None:
    """A question for each row is what made a board slow."""
    app = board()
    asked: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        started = time.perf_counter()
        app.run()
        record_property("measured", f"a board of {many} rows: {time.perf_counter() - started:.2f} s")
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert len(app.dataframe[0].value) == many
    assert 0 < len(asked) <= 20


def test_conversation_opens_the_first_of_the_best(judgings: dict[str, str]) -> None:
    app = conversation()
    assert listed(app)[0] == "picnic-000"
    assert len(listed(app)) == 24
    assert "`picnic-000`" in app.subheader[0].value
    assert conversation(judging=judgings["sleepy"]).selectbox(key="address-judging").value == judgings["sleepy"]


def test_conversation_shows_what_was_said_replied_and_judged(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"], conversation="picnic-023")
    told = words(app)
    assert "My sister Ana is allergic to walnuts" in told
    assert "A lemon sorbet with fresh mint" in told
    assert "1. The reply suggests a dessert without walnuts." in told
    assert "The reply names a lemon sorbet, which has no nuts." in told
    assert "TTFT 0.63 s · total 2.65 s" in told
    assert "<think>Ana eats none.</think>A lemon sorbet" in told
    assert "2 of 3 criteria met" in told
    badges = [element.value for element in app.markdown if "badge[" in element.value]
    assert [("not met" in badge, "fail" in badge) for badge in badges] == [
        (False, True),
        (False, False),
        (False, False),
        (True, False),
    ]
    assert len(app.get("audio")) == 2


def test_conversation_shows_what_the_ear_of_a_cascade_heard(judgings: dict[str, str], home: Path) -> None:
    heard = [
        {"number": 1, "text": "My sister <b>Anna</b> is allergic", "unscored": None, "detail": None, "seconds": 1.25,
         "cost_usd": 0.002, "errors": 3, "words": 7},
    ]  # fmt: skip
    with sqlite3.connect(home / "vivace.db") as database:
        database.execute("update reply set heard = ?", (json.dumps(heard),))
    app = conversation(judging=judgings["careful"], conversation="picnic-023")
    told = words(app)
    assert "heard in 1.25 s, $0.0020; 3 of 7 words wrong, as follows" in told
    (heard_words,) = [element.value for element in app.html if "sister" in element.value]
    assert "My sister <del>Ana</del> <ins><strong>&lt;b&gt;Anna&lt;/b&gt;</strong></ins> is allergic" in heard_words
    assert "<del>to walnuts." in heard_words


def test_conversation_says_why_there_is_no_reply(judgings: dict[str, str]) -> None:
    told = words(conversation(judging=judgings["sleepy"], conversation="picnic-023"))
    assert "There is no reply: timeout." in told
    assert "Reason: rate limit." in told


def test_conversation_shows_model_output_as_plain_text(judgings: dict[str, str], hostile: str) -> None:
    app = conversation(judging=judgings["sleepy"], conversation="picnic-000")
    assert hostile in [element.value for element in app.text]
    rendered = [element.value for kind in ("markdown", "caption", "html") for element in getattr(app, kind)]
    assert not any("evil" in value for value in rendered)


def test_hostile_names_stay_plain(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["hostile"])
    shown = [element.value for element in app.markdown if "onclick" in element.value]
    assert shown
    assert all(value.startswith("`") and value.endswith("`") for value in shown)
    assert not any(element.allow_html for element in app.markdown)


def test_no_name_turns_the_words_round_it_round(judgings: dict[str, str], home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home, database=None))
    with database.write() as session:
        turned = {"name": "\u202egnp.exe", "organisation": "\u2067Lab"}
        session.execute(update(Model).where(Model.name == "careful").values(**turned))
    database.close()
    app = board()
    assert "\ufffdLab" in app.selectbox(key="address-organisation").options
    drawn = [str(chart.proto) for chart in app.get("vega_lite_chart")]
    assert any("gnp.exe" in spec for spec in drawn) and not any("202e" in spec or "\u202e" in spec for spec in drawn)
    assert all("\u202e" not in name for name in conversation().selectbox(key="address-judging").options)


def test_conversation_says_that_a_recording_is_missing(judgings: dict[str, str], home: Path) -> None:
    shutil.rmtree(home / "artifacts")
    app = conversation(judging=judgings["careful"])
    assert not app.get("audio")
    assert "The recording cannot be played." in words(app)
    assert "is missing under" in words(app) and str(home) not in words(app), "the operator alone is told where"


def test_two_systems_side_by_side(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"], other=judgings["imported"], conversation="picnic-005")
    table = app.dataframe[0].value
    assert list(table.columns) == ["Conversation", "A", "B", "Axis", "Turns", "Seconds"]
    assert table.loc[5, ["A", "B"]].to_list() == ["✓ pass", "✗ fail"]
    assert "**A** · `careful`" in words(app)
    assert "**B** · `Qwen3-Omni-30B-A3B-Instruct`" in words(app)
    app.toggle(key="address-differs").set_value(True).run()
    assert len(listed(app)) == 21
    assert "`picnic-002`" in app.subheader[0].value, "the first that differs"


def test_only_the_same_data_can_be_compared(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"])
    options = app.multiselect(key="address-other").options
    assert not any("kitchen" in option for option in options)
    assert any("strict-judge" in option for option in options), "two judges over the same data"
    app = conversation(judging=judgings["careful"], other=judgings["hostile"])
    assert "second judging on the same data" in app.warning[0].value


def test_axis_filters_the_list(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"], axis="VOICE_EDITING")
    assert listed(app) == [f"picnic-{position:03d}" for position in range(3, 24, 4)]
    assert "`picnic-003`" in app.subheader[0].value
    app.selectbox(key="address-axis").select("SELF_COHERENCE").run()
    assert app.query_params["axis"] in ("SELF_COHERENCE", ["SELF_COHERENCE"])
    assert "`picnic-002`" in app.subheader[0].value


@pytest.mark.parametrize("name", ["judging", "other", "conversation", "axis"])
@pytest.mark.parametrize("value", ["unknown", "../../etc/passwd", "<img src=x onerror=alert(1)>", "x" * 5000])
@pytest.mark.usefixtures("judgings")
def test_conversation_survives_any_url(name: str, value: str) -> None:
    app = conversation(**{name: value})
    assert len(app.warning) == 1
    assert "the link may be old or mistyped" in app.warning[0].value
    assert len(app.warning[0].value) < 250
    assert "`picnic-000`" in app.subheader[0].value


@pytest.mark.usefixtures("judgings")
def test_choosing_in_the_list_changes_the_url() -> None:
    app = conversation()
    key = app.dataframe[0].key
    assert key is not None
    assert app.session_state[key]["selection"]["rows"] == [0]
