"""Tables for people: what is left out, cut or wrapped where the width does not do, and which columns are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.judged import add_dataset, add_judging
from vivace.cli import common
from vivace.cli.common import Format, print_rows
from vivace.cli.tables.printing import GAP, ShownColumns, chosen_headings, fitted, print_table
from vivace.errors import UsageError
from vivace.settings import load_settings
from vivace.store.migrate import open_for_writing

Call = Callable[..., Any]

COLUMNS = {
    heading: lambda row, heading=heading: row.get(heading, "")  # type: ignore[misc]
    for heading in ("name", "score %", "extra", "far", "story")
}
TABLE = ShownColumns(COLUMNS, first=("name", "score %", "far"), then=("story",), cut=("name",), prose=("story",))
ROWS = [
    {
        "name": "a name that is rather long",
        "score %": "50.0 [40.0–60.0]",
        "extra": "–",
        "far": "x",
        "story": "one " * 20,
    },
    {"name": "b", "score %": "7.0", "far": "yy"},
]


def lines(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[list[str], list[str]]:
    """What is printed, and which columns were left out."""
    left_out = print_table(*arguments)
    return capsys.readouterr().out.splitlines(), left_out


def test_without_a_width_a_row_is_a_line_and_empty_columns_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    printed, left_out = lines(capsys, ROWS, TABLE)
    assert len(printed) == 3 and left_out == []
    assert printed[0].split() == ["name", "score", "%", "far", "story"]
    assert "a name that is rather long" in printed[1]


def test_figures_stay_whole_and_names_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    printed, left_out = lines(capsys, ROWS, TABLE, None, 36)
    assert printed[1].rstrip() == "a name that …  50.0 [40.0–60.0]  x"
    assert left_out == ["story"] and max(map(len, printed)) <= 36


def test_sentences_go_on_in_their_cell(capsys: pytest.CaptureFixture[str]) -> None:
    printed, left_out = lines(capsys, ROWS, TABLE, None, 80)
    assert left_out == [] and max(map(len, printed)) <= 80
    assert sum(line.count("one") for line in printed) == 20


def test_too_narrow_for_what_matters_most_gives_lines_of_cells(capsys: pytest.CaptureFixture[str]) -> None:
    printed, left_out = lines(capsys, ROWS, TABLE, None, 25)
    assert "score %  50.0 [40.0–60.0]" in printed and left_out == []
    assert not any(line.startswith("extra") for line in printed)


@given(st.integers(1, 200), st.lists(st.text(alphabet="ab 漢\n", max_size=30), min_size=5, max_size=5))
def test_a_table_is_never_wider_than_the_line(width: int, texts: list[str]) -> None:
    widths = fitted({heading: [text] for heading, text in zip(COLUMNS, texts, strict=True)}, TABLE, width)
    assert widths is None or sum(widths.values()) + GAP * (len(widths) - 1) <= width
    assert widths is None or {"name", "score %", "far"} <= set(widths)


def test_columns_are_named_with_or_without_their_signs() -> None:
    assert chosen_headings("Score, far", TABLE) == ["score %", "far"]
    assert chosen_headings("", TABLE) == []
    with pytest.raises(UsageError, match="no column 'nope'; the columns are name, score %, extra, far, story"):
        chosen_headings("name,nope", TABLE)


def test_chosen_columns_are_shown_even_if_empty_and_in_the_order_given(capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = lines(capsys, ROWS, TABLE, "far,extra", 80)
    assert printed[0].split() == ["far", "extra"]
    print_rows(ROWS, Format.MD, TABLE, "far,name")
    assert capsys.readouterr().out.splitlines()[0] == "| far | name |"
    with pytest.raises(UsageError, match="csv always has everything"):
        print_rows(ROWS, Format.CSV, TABLE, "far")


@pytest.fixture
def two_judges(call: Call) -> None:
    """A board of two judges in this folder, with a long name and settings that differ."""
    database = open_for_writing(load_settings())
    with database.write() as session:
        dataset = add_dataset(session, 2)
        for temperature, judge in ((0.0, "judge"), (0.7, "judge"), (0.7, "strict")):
            add_judging(
                session, dataset, [[[True, True]]] * 2, name="a-model-with-a-name-of-some-length",
                parameters={"temperature": temperature}, judge=judge,
            )  # fmt: skip
    database.close()


@pytest.mark.usefixtures("two_judges")
def test_boards_fit_80_columns_and_say_what_tells_rows_apart(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = call("leaderboard")
    printed = done.out.splitlines()
    assert max(map(len, printed)) <= 80
    assert sum(" judged by " in line for line in printed) == 2, "a table for each judge, under its name"
    assert any("temperature…" in line or "temperature=0.7" in line for line in printed)
    assert all(f"run{number}" in done.out for number in range(3))
    assert "No room for" in done.err and "--columns chooses" in done.err
    assert call("leaderboard", "--columns", "run,settings").out.splitlines()[2].split() == ["run0", "temperature=0.0"]


@pytest.mark.usefixtures("two_judges")
def test_in_a_pipe_the_board_is_one_table_with_a_row_a_line(call: Call) -> None:
    heading, *rows = call("leaderboard").out.splitlines()
    assert len(rows) == 3 and "judge" in heading and "a-model-with-a-name-of-some-length" in rows[0]
    assert "temperature=0.0" in rows[0] and "run0" in rows[0]
    md = call("leaderboard", "--format", "md").out
    assert "temperature=0.0" in md and "| run0 |" in md


@pytest.mark.usefixtures("two_judges")
def test_an_unknown_column_is_one_sentence_that_lists_them(call: Call) -> None:
    done = call("leaderboard", "--columns", "apr,zzzzzz")
    assert done.code == 2 and done.out == ""
    assert "There is no column 'zzzzzz'; the columns are #, model, settings, APR %" in done.err
    assert call("leaderboard", "--columns", "apr", "--format", "json").code == 2
    assert json.loads(call("leaderboard", "--format", "json").out)[0]["apart"] == {"temperature": "0.0"}
    assert common.line_width() is None


def test_names_that_differ_at_their_ends_are_not_cut_to_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    table = ShownColumns(COLUMNS, first=("name", "score %", "far", "extra"), cut=("name",))
    figures = {"score %": "50.0 [40.0–60.0]", "far": "x", "extra": "123456789"}
    rows = [{"name": f"teal(sparsity=0.{tenth})", **figures} for tenth in (3, 5)]
    printed, left_out = lines(capsys, rows, table, None, 46)
    assert [line.split()[0] for line in printed[1:]] == ["teal(sparsity=0.3)", "teal(sparsity=0.5)"]
    assert left_out == ["extra"], "what matters less gives way"
    printed, left_out = lines(capsys, rows, table, None, 36)
    assert printed[1].split()[0] == printed[2].split()[0] == "teal(sparsit…", "alike, but a table"
