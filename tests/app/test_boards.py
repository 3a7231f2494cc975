"""The board's tables and the URL's state, without Streamlit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vivace.analysis.published import PublishedFigure
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.queries.board import BoardRow, board
from vivace.store.queries.figures import EarFigures
from vivace_app.address import Address
from vivace_app.plots import board_plots, charts
from vivace_app.tables import boards


@pytest.fixture
def rows(judgings: dict[str, str], home: Path) -> list[BoardRow]:
    """Every row of the filled database, retracted ones included."""
    database = migrate.open_for_reading(Settings(home=home))
    assert database is not None
    return board(database, include_retracted=True)


def test_only_the_same_data_and_judge_share_a_table(rows: list[BoardRow]) -> None:
    groups = boards.groups(rows)
    assert [len(group.rows) for group in groups] == [6, 1, 1]
    assert groups[0].data.startswith("picnic@")
    assert groups[0].judge.startswith("checks · ")
    assert {group.judge.split(" ")[0] for group in groups} == {"checks", "strict-judge"}


def test_table(rows: list[BoardRow]) -> None:
    table = boards.table(boards.groups(rows)[0]).set_index("Model")
    assert table["Notes"].to_dict() == {
        "careful": ["official"],
        "steady": ["official"],
        "reader": ["unofficial", "transcript"],
        "sleepy": ["unofficial", "incomplete"],
        "Qwen3-Omni-30B-A3B-Instruct": ["unofficial", "imported"],
        "withdrawn": ["retracted"],
    }
    assert table.index[-1] == "withdrawn"
    assert table.loc["withdrawn", "Rank"] == "–"
    assert table.loc["careful", "APR"].strip() == "95.8 % [80–99]"
    assert table.loc["careful", "Voice Editing"].strip() == "83 % (6)"
    assert table.loc["sleepy", "Coverage"].strip() == "95.0 % (38–50)"


def test_a_method_stands_beside_its_model_and_tells_it_from_itself(rows: list[BoardRow]) -> None:
    plain = boards.groups(rows)[0].rows[0]
    sparse = replace(plain, method="teal(sparsity=0.4):12345678", judging="other")
    assert "Method" not in boards.table(boards.RankedTogether([plain]))
    assert boards.table(boards.RankedTogether([plain, sparse]))["Method"].tolist() == [
        "–",
        "teal(sparsity=0.4):12345678",
    ]
    names = [f"{plain.model} · no method", f"{plain.model} · teal(sparsity=0.4):12345678"]
    assert boards.labels([plain, sparse]) == names


def test_nothing_scored_has_no_rank_and_no_point(rows: list[BoardRow]) -> None:
    group = next(group for group in boards.groups(rows) if group.data.startswith("kitchen@"))
    table = boards.table(group)
    assert table.loc[0, "Rank"] == "–"
    assert table.loc[0, "APR"].strip() == "–"
    assert boards.intervals(group, ["x"]).empty


def test_labels_add_only_what_tells_rows_apart(rows: list[BoardRow]) -> None:
    careful = [row for row in rows if row.model == "careful"]
    first, second = boards.labels(careful)
    assert first.startswith("careful · checks · ")
    assert second.startswith("careful · strict-judge · ")
    assert "audio" not in first, "both heard the same form of audio"
    assert len(set(boards.labels(rows))) == len(rows)
    assert boards.labels([careful[0]]) == ["careful"]
    assert boards.labels([]) == []


def test_chart_draws_overall_and_axes(rows: list[BoardRow]) -> None:
    group = boards.groups(rows)[0]
    names = boards.labels(group.rows)
    data = boards.intervals(group, names)
    assert set(data["status"]) == {"official", "unofficial", "retracted"}
    assert (data["low"] <= data["apr"]).all()
    assert (data["apr"] <= data["high"]).all()
    drawn = charts.pass_rates(data, names, list(dict.fromkeys(data["slice"]))).to_dict()
    assert [panel["title"]["text"] for panel in drawn["hconcat"]] == [
        "All conversations",
        "Inference Memory",
        "Instruction Retention",
        "Self Coherence",
        "Voice Editing",
    ]


def test_address_takes_what_there_is() -> None:
    parameters = {"data": "b", "flag": "1"}
    address = Address(parameters)
    assert address.choice("data", ["a", "b"], "data") == "b"
    assert address.choice("judge", ["a"], "judge", "a") == "a"
    assert address.flag("flag")
    assert not address.flag("other")
    assert not address.problems


def test_address_refuses_the_rest_once_and_in_words() -> None:
    parameters = {"data": "<script>alert(1)</script>", "flag": "maybe"}
    address = Address(parameters)
    assert address.choice("data", ["a"], "data", "a") == "a"
    assert not address.flag("flag")
    assert len(address.problems) == 2
    assert "`<script>alert(1)</script>`" in address.problems[0]
    assert parameters == {}


def test_hundreds_of_unknown_values_are_one_sentence() -> None:
    parameters = {"judgings": ",".join(["a", *(f"j{place}" for place in range(300)), "j0"])}
    address = Address(parameters)
    assert address.choices("judgings", ["a", "b"], "system", ["b"]) == ["a"]
    (problem,) = address.problems
    assert "`j0`, `j1`" in problem and "`j7`" not in problem and "295 more" in problem
    assert parameters == {"judgings": "a"}


def test_address_keeps_only_what_is_chosen() -> None:
    parameters = {"axis": "A"}
    address = Address(parameters)
    address.write("judge", "x")
    address.write("axis", "")
    assert parameters == {"judge": "x"}


def test_what_is_not_ranked_stands_apart_with_its_bounds(rows: list[BoardRow]) -> None:
    first = boards.groups(rows)[0].rows[0]
    part = replace(first, standing="part", rank=None, conversations=48, whole_apr_min=0.479, whole_apr_max=0.979)
    table = boards.table(boards.RankedTogether([part]))
    assert (table.loc[0, "Rank"], table.loc[0, "Coverage"]) == ("–", "24 of 48 (48–98)")
    assert table.loc[0, "Notes"] == ["official", "part"]
    unknown = replace(part, conversations=None)
    assert boards.table(boards.RankedTogether([unknown])).loc[0, "Coverage"] == "24 of a larger set"


def test_rows_of_one_model_show_what_tells_them_apart_and_their_runs(rows: list[BoardRow]) -> None:
    first = boards.groups(rows)[0].rows[0]
    alike = [
        replace(first, apart={"temperature": "0.7"}),
        replace(first, apart={"temperature": "default"}, judging="other", short_run="abcdef01"),
    ]
    table = boards.table(boards.RankedTogether(alike))
    assert table["Settings"].tolist() == ["temperature=0.7", "temperature=default"]
    assert table["Run"].tolist() == [first.short_run, "abcdef01"]
    assert "Settings" not in boards.table(boards.RankedTogether([first]))
    assert boards.labels(alike) == [f"{first.model} · temperature=0.7", f"{first.model} · temperature=default"]
    again = [first, replace(first, judging="other", short_run="abcdef01")]
    assert boards.labels(again) == [f"{first.model} · run {first.short_run}", f"{first.model} · run abcdef01"]


def test_times_that_a_submitter_wrote_and_the_hearing_check_have_their_words(rows: list[BoardRow]) -> None:
    first = boards.groups(rows)[0].rows[0]
    assert "submitted times" in boards.notes(replace(first, times="submitted"))
    assert "submitted times" not in boards.notes(
        replace(first, times="submitted", ttft_median_s=None, total_median_s=None)
    )  # fmt: skip
    assert "failed the hearing check" in boards.notes(replace(first, hearing="failed"))
    assert "hears" in boards.notes(replace(first, hearing="passed"))
    assert set(boards.NOTES) >= {"part", "incomplete", "hearing undecided"}


def test_a_cascade_is_marked_with_how_well_its_ear_hears(rows: list[BoardRow]) -> None:
    plain = boards.groups(rows)[0].rows[0]
    ear = EarFigures(0.245, 0.2, 0.3, 1000, 2, 1.5)
    cascade = replace(plain, is_cascade=True, hearing="passed", ear=ear, judging="other")
    assert "WER" not in boards.table(boards.RankedTogether([plain]))
    table = boards.table(boards.RankedTogether([plain, cascade]))
    assert [text.strip() for text in table["WER"]] == ["–", "24.5 % [20–30]"]
    assert {"cascade", "ear checked"} <= set(table["Notes"][1]) <= set(boards.NOTES)
    assert "hears" in boards.notes(replace(plain, hearing="passed")), "who hears for itself is told so"


def test_the_score_stands_before_the_notes_and_empty_columns_are_out(rows: list[BoardRow]) -> None:
    plain = [replace(row, ttft_median_s=None, kept_share=None, apart={}) for row in boards.groups(rows)[0].rows]
    columns = list(boards.table(boards.RankedTogether(plain)))
    assert columns.index("APR") < columns.index("Coverage") < columns.index("Notes")
    assert not {"TTFT", "Kept", "Method", "Settings", "Organisation", "Size", "Licence", "WER", "Repeats"} & set(
        columns
    )
    told = [replace(plain[0], organisation="Lab", size="7B", licence="MIT", repeats=2), *plain[1:]]
    assert {"Organisation", "Size", "Licence", "Repeats"} <= set(boards.table(boards.RankedTogether(told)))


def test_rows_are_chosen_by_what_they_differ_in(rows: list[BoardRow]) -> None:
    found = {one.name: boards.choices(rows, one) for one in boards.FILTERS}
    assert found["input"] == {"audio-16k": "Hears audio (16 kHz)", "transcript": "Reads transcripts"}
    assert found["size"] == found["weights"] == {}, "no card says so"
    open_one = replace(rows[0], open_weights=True, size="7B", is_cascade=True)
    weights, system = (next(one for one in boards.FILTERS if one.name == name) for name in ("weights", "system"))
    assert boards.choices([open_one, rows[1]], weights) == {"open": "Open weights"}
    closed = [replace(rows[0], rank=1, open_weights=False, judging="a"), replace(open_one, rank=None, judging="b")]
    behind = [replace(open_one, rank=place, judging=name) for place, name in ((4, "c"), (3, "d"), (3, "e"))]
    best = boards.best_open(boards.RankedTogether([*closed, *behind]))
    assert [row.judging for row in best] == ["d", "e"] and boards.best_open(boards.RankedTogether(closed)) == []
    assert set(boards.choices([open_one, rows[1]], system)) == {"cascade", "end-to-end"}


def test_quality_is_drawn_against_what_is_known_with_its_intervals(rows: list[BoardRow]) -> None:
    group = boards.groups(rows)[0]
    timed = [
        replace(row, ttft_median_s=1.0 + place, ttft_interval=(0.5, 3.0)) for place, row in enumerate(group.rows)
    ]
    names = boards.labels(timed)
    frame = boards.trade_off(boards.RankedTogether(timed), names, "ttft")
    assert "withdrawn" not in list(frame["model"]) and set(frame["taken low"]) == {0.5}
    dear = [replace(timed[0], unpriced_calls=1), replace(timed[1], cost_usd=2.4, price_interval=(0.08, 0.12))]
    price = boards.trade_off(boards.RankedTogether(dear), names[:2], "price")
    assert list(price["taken"]) == [2.4 / 24], "of the other nobody knows all that it cost"
    assert price.loc[0, ["taken low", "taken high"]].tolist() == [0.08, 0.12]
    drawn = board_plots.trade_off(frame, "seconds").to_dict()
    assert drawn["layer"][2]["encoding"]["shape"]["scale"]["domain"] == ["official", "unofficial", "incomplete"]


def test_published_figures_share_a_picture_with_own_ones_and_no_order(rows: list[BoardRow]) -> None:
    whole = boards.groups(rows)[0].rows
    published = PublishedFigure("theirs", "text", 0.99, 0.01, None, "somewhere", "2026")
    frame = boards.own_and_published(whole, boards.labels(whole), [published])
    assert set(frame["from"]) == {"run here", "published, not run here"}
    assert not [name for name in frame["model"] if name.startswith(("sleepy", "withdrawn"))], "they stand apart"
    order = board_plots.own_and_published(frame).to_dict()["layer"][0]["encoding"]["y"]["sort"]
    assert order[-1] == "theirs (text)", "the higher figure does not stand above own ones"
