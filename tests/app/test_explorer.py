"""The conversation page beyond one system: searching, stepping, grids, votes, calls, hostile words in its HTML."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select, update
from streamlit.testing.v1 import AppTest

from support.judged import add_dataset, add_judging
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.tables import Attempt, Criterion, HumanLabel, Judging, Reply, Verdict
from vivace_app.explorer.turns import drawing, marked

HOSTILE = "<b onclick=alert(1)>ann</b> [link](http://evil.invalid) :smile: $x$"


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


def listed(app: AppTest) -> list[str]:
    """The conversations in the list."""
    return list(app.dataframe[0].value["Conversation"])


def opened(app: AppTest) -> str:
    """The conversation on show."""
    return app.subheader[0].value.split("`")[1]


def words(app: AppTest) -> str:
    """All plain text on the page."""
    return "\n".join(str(element.value) for element in [*app.text, *app.markdown, *app.caption, *app.info])


def test_search_and_results_narrow_the_list_and_stand_in_the_url(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"], other=judgings["imported"], a="pass", b="fail", min_turns="2")
    assert len(listed(app)) == 21
    assert "21 of 24 conversations" in words(app)
    app.text_input(key="address-q").set_value("PICNIC-01").run()
    assert listed(app) == [f"picnic-{place:03d}" for place in range(10, 20)]
    assert app.query_params["q"] in ("PICNIC-01", ["PICNIC-01"])
    app.number_input(key="address-max_turns").set_value(1).run()
    assert "No conversation matches" in app.info[0].value
    app.number_input(key="address-max_turns").set_value(2).run()
    assert len(listed(app)) == 10
    app.selectbox(key="address-b").select("unscored").run()
    assert "No conversation matches" in app.info[0].value


@pytest.mark.parametrize(
    ("name", "value"), [("min_turns", "-1"), ("max_seconds", "1e9"), ("b", "x"), ("a", "absent")]
)
def test_what_no_filter_takes_becomes_a_sentence(judgings: dict[str, str], name: str, value: str) -> None:
    app = conversation(judging=judgings["careful"], other=judgings["steady"], **{name: value})
    assert len(app.warning) == 1
    assert f"`{value}`" in app.warning[0].value
    assert len(listed(app)) == 24


def test_people_stand_beside_the_verdicts_with_how_far_they_agree(judgings: dict[str, str], home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home, database=None))
    with database.write() as session:
        reply = session.scalars(
            select(Reply).join(Judging, Judging.run_id == Reply.run_id)
            .where(Judging.id == judgings["careful"]).order_by(Reply.conversation_id)
        ).first()  # fmt: skip
        criteria = session.scalars(select(Criterion).where(Criterion.conversation_id == reply.conversation_id)).all()
        for name, answers in (("ann", [True, False]), (HOSTILE, [True, None])):
            session.add_all(
                HumanLabel(reply_id=reply.id, criterion_id=criterion.id, labeler=name, met=met)
                for criterion, met in zip(criteria, answers, strict=True)
            )
    database.close()
    page = conversation(judging=judgings["careful"], other=judgings["strict"])
    said = words(page)
    assert f"People: {HOSTILE} ✓ met, ann ✓ met. The judge agrees." in said
    assert f"People: {HOSTILE} ? no answer, ann ✗ not met. The judge says otherwise." in said
    assert "A: the judge says what most people say on 1 of 2 criteria in 1 labelled conversation: 0.50" in said
    assert "B: the judge says" not in said, "nobody has labelled the other's replies"
    assert "People" not in words(conversation(judging=judgings["steady"]))


def test_previous_and_next_go_through_what_matches(judgings: dict[str, str]) -> None:
    app = conversation(judging=judgings["careful"], axis="VOICE_EDITING")
    assert (opened(app), app.button(key="go-Previous").disabled) == ("picnic-003", True)
    app.button(key="go-Next").click().run()
    assert opened(app) == "picnic-007"
    assert app.query_params["conversation"] in ("picnic-007", ["picnic-007"])
    app.button(key="go-Next").click().run()
    app.button(key="go-Previous").click().run()
    assert opened(app) == "picnic-007"
    app = conversation(judging=judgings["careful"], axis="VOICE_EDITING", conversation="picnic-023")
    assert app.button(key="go-Next").disabled
    assert [button.proto.shortcut for button in app.button if button.key in ("go-Previous", "go-Next")] == ["p", "n"]


def test_several_systems_stand_in_one_grid(judgings: dict[str, str]) -> None:
    others = ",".join(judgings[name] for name in ("steady", "sleepy", "reader"))
    app = conversation(judging=judgings["careful"], other=others, conversation="picnic-023")
    (grid,) = [element.value for element in app.html if "<table" in element.value]
    assert grid.count('scope="col"') == 5 and grid.count('scope="row"') == 3
    assert grid.count("✓ met") == 8 and grid.count("✗ not met") == 3 and grid.count("? unscored") == 1
    assert "&lt;b onclick" in grid and "<b onclick" not in grid
    app.toggle(key="address-only").set_value(True).run()
    (grid,) = [element.value for element in app.html if "<table" in element.value]
    assert grid.count('scope="row"') == 1, "only the third criterion came out in two ways"
    assert app.query_params["only"] in ("1", ["1"])
    app = conversation(judging=judgings["careful"], other=judgings["steady"], conversation="picnic-000", only="1")
    assert "On no criterion" in words(app)


def test_more_systems_than_fit_are_cut(judgings: dict[str, str]) -> None:
    names = ("steady", "sleepy", "reader", "imported", "retracted", "strict")
    app = conversation(judging=judgings["careful"], other=",".join(judgings[name] for name in names))
    assert list(app.dataframe[0].value.columns)[1:7] == list("ABCDEF")


def test_votes_reasons_and_calls_of_a_conversation(home: Path) -> None:
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        dataset = add_dataset(session, 2)
        judging = add_judging(
            session, dataset, [[[True, False]]] * 2, votes={(0, 0, 0): [True, None, True]}, name="voted"
        )
        session.execute(update(Verdict).where(Verdict.vote == 1).values(explanation="It <i>does</i>."))
        run = judging.partition(".")[0]
        common = {"run_id": run, "conversation_id": 1, "seconds": 1.5}
        session.add_all(
            [
                Attempt(**common, stage="generate", error="rate_limit", detail="429 <b>slow down</b>"),
                Attempt(**common, stage="generate", input_tokens=100, output_tokens=7, cost_usd=0.0125),
                Attempt(**common, stage="judge", judging_id=judging, criterion_id=2, cost_usd=0.001),
                Attempt(**{**common, "conversation_id": 2}, stage="generate"),
            ]
        )
    database.close()
    app = conversation()
    told = words(app)
    assert "2 of 3 votes for met" in told
    assert "1. ✓ met: It <i>does</i>." in [element.value for element in app.text]
    assert "2. ? unscored: timeout" in told
    calls = app.dataframe[1].value
    assert list(calls["Stage"]) == ["generate", "generate", "judge"]
    assert calls["Error"].iloc[0] == "rate limit"
    assert calls["Criterion"].dropna().tolist() == [2]
    assert calls["Cost"].sum() == pytest.approx(0.0135)
    assert "Cached" not in calls.columns, "empty columns are hidden"


def test_a_very_long_text_is_folded_and_controls_are_pictures(judgings: dict[str, str], home: Path) -> None:
    hostile = "<script>alert(1)</script> \u202eevil\u202c \x1b[2J ![i](http://evil.invalid/i.png) " + "x" * 100_000
    with sqlite3.connect(home / "vivace.db") as database:
        database.execute("update reply set text = ?", (hostile,))
    app = conversation(judging=judgings["careful"])
    texts = [element.value for element in app.text if "<script>" in element.value]
    assert [len(text) > 90_000 for text in texts] == [False, True]
    assert not any(mark in text for text in texts for mark in "\u202e\u202c\x1b")
    assert any("All 100,0" in expander.label for expander in app.expander)


def test_misheard_words_are_marked_by_more_than_colour() -> None:
    shown = marked("Twenty five walnuts, please.", "25 wall nuts <script> please")
    assert "<del>" in shown and "<ins>" in shown and "<script>" not in shown and "&lt;script&gt;" in shown
    assert marked("Twenty five, please.", "25 please") == '<p style="overflow-wrap:anywhere">25 please</p>'


def test_a_waveform_is_as_wide_as_its_parts_and_says_how_long_it_is(judgings: dict[str, str]) -> None:
    shown = drawing([0.0, 0.5, 0.25])
    assert 'viewBox="0 0 12 36"' in shown and shown.count("M") == 3
    assert "M6 1.0V35.0" in shown, "the loudest reaches from edge to edge"
    first, *_ = conversation(judging=judgings["careful"]).get("image")
    assert "Recording of turn 1, 2.0 seconds, as a waveform" in str(first.proto)


def test_a_rubric_that_is_longer_for_one_judging_does_not_break_the_page(
    judgings: dict[str, str], home: Path
) -> None:
    database = migrate.open_for_writing(Settings(home=home))
    with database.write() as session:
        session.add(Criterion(conversation_id=1, number=2, text="A criterion nobody judged."))
    database.close()
    told = words(conversation(judging=judgings["careful"], other=judgings["steady"]))
    assert "Reason: not recorded." in told
