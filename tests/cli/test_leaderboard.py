"""`vivace leaderboard`, `export` and `retract`: what is printed is what is recorded, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from support.datasets import conversation_rows, write_jsonl
from vivace.cli import common
from vivace.cli.tables.board_table import BOARD_COLUMNS
from vivace.settings import load_settings
from vivace.store.migrate import open_for_writing
from vivace.store.tables import Judging

Call = Callable[..., Any]


@pytest.fixture
def board(call: Call, tmp_path: Path) -> list[dict[str, Any]]:
    """Two imported runs on four conversations, one of them wholly scored; the rows of the board."""
    take_in(call, tmp_path, "whole | piped", [True, True, True])
    take_in(call, tmp_path, "partly", [None, True, False])
    rows: list[dict[str, Any]] = json.loads(call("leaderboard", "--format", "json").out)
    return rows


def take_in(call: Call, folder: Path, name: str, third: list[bool | None]) -> None:
    """Import a run on the four conversations, with these verdicts on the third."""
    data = write_jsonl(folder / "texts.jsonl", conversation_rows(4, criteria=3, audio=False))
    given = [[True, True, True], [True, False, True], third, [False, False, True]]
    verdicts = write_jsonl(
        folder / "verdicts.jsonl",
        [
            {"id": f"conversation{n:04d}", "response": f"reply, {n}\n=second line", "criteria_met": met}
            for n, met in enumerate(given)
        ],
    )
    done = call(
        "import", "audio-multichallenge", "--data", data, "--verdicts", verdicts, "--model", name,
        "--judge-name", "people",
    )  # fmt: skip
    assert done.code == 0, done.err


def test_csv_holds_the_same_rows_unrounded(call: Call, board: list[dict[str, Any]]) -> None:
    read = list(csv.DictReader(io.StringIO(call("leaderboard", "--format", "csv").out)))
    assert len(read) == len(board) == 2
    for text, row in zip(read, board, strict=True):
        assert text["model"] == row["model"]
        for name in ("apr", "apr_low", "apr_high", "apr_min", "apr_max", "ars", "ars_low", "ars_high", "coverage"):
            assert float(text[name]) == row[name]
        assert float(text["axes.VOICE_EDITING.ars"]) == row["axes"]["VOICE_EDITING"]["ars"]
        assert json.loads(text["unofficial_reasons"]) == row["unofficial_reasons"]
    assert board[0]["apr"] == 0.5 and board[1]["apr"] == 1 / 3


def test_markdown_is_one_table_with_one_line_per_row(call: Call, board: list[dict[str, Any]]) -> None:
    lines = call("leaderboard", "--format", "md").out.splitlines()
    assert len(lines) == 2 + len(board)
    cells = [line.replace("\\|", "¦").strip("|").split("|") for line in lines]
    assert {len(row) for row in cells} == {len(BOARD_COLUMNS)}
    assert cells[2][1].strip() == "whole ¦ piped"


def test_a_table_in_a_pipe_has_one_line_per_row(call: Call, board: list[dict[str, Any]]) -> None:
    heading, first, second = call("leaderboard").out.splitlines()
    assert all(name in heading for name in ("model", "APR %", "ARS %", "IM", "judge"))
    assert "whole | piped" in first and "50.0 [" in first and "imported" in first
    assert "33.3 [" in second and "91.7 (APR 25.0–25.0)" in second
    assert second.startswith("–") and "incomplete" in second


def test_what_stands_apart_is_said_with_its_bounds(call: Call, board: list[dict[str, Any]]) -> None:
    run = board[1]["short_run"]
    assert call("leaderboard").err == (
        f"Not ranked: partly ({run}) is incomplete; over the whole set its APR lies between 25.0 and 25.0 %.\n"
    )
    assert call("leaderboard", "--format", "csv").err == ""


@pytest.mark.parametrize(("width", "is_table"), [(250, True), (80, True), (60, True), (20, False)])
def test_a_terminal_too_narrow_for_the_columns_gets_lines_of_cells(
    call: Call, board: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, width: int, is_table: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(common, "is_terminal", lambda: True)
    out = call("leaderboard").out
    assert (len(out.splitlines()) == 1 + len(board)) == is_table
    assert "whole | pip" in out and "50.0 [15.0–85.0]" in out  # figures are unbroken, in whatever form
    assert not is_table or max(map(len, out.splitlines())) <= width


def test_an_empty_board_is_empty_in_every_format(call: Call, tmp_path: Path) -> None:
    assert json.loads(call("leaderboard", "--format", "json").out) == []
    assert call("leaderboard", "--format", "csv").out == ""
    assert len(call("leaderboard", "--format", "md").out.splitlines()) == 2
    done = call("leaderboard")
    assert (done.code, done.out) == (0, "") and "`vivace demo`" in done.err
    assert list(tmp_path.iterdir()) == []


def test_only_official_rows_on_request(call: Call, board: list[dict[str, Any]]) -> None:
    assert json.loads(call("leaderboard", "--official", "--format", "json").out) == []
    done = call("leaderboard", "--official")
    assert (done.code, done.out) == (0, "") and "No row is official; 2 others are shown" in done.err
    database = open_for_writing(load_settings())
    with database.write() as session:
        session.execute(update(Judging).where(Judging.id == board[1]["judging"]).values(official=True))
    database.close()
    (row,) = json.loads(call("leaderboard", "--official", "--format", "json").out)
    assert row["model"] == "partly" and row["official"] is True


def test_a_retracted_run_leaves_the_board_and_is_shown_on_request_with_its_reason(
    call: Call, board: list[dict[str, Any]]
) -> None:
    assert call("retract", board[0]["run"], "--reason", "wrong prompt").code == 0
    assert [row["model"] for row in json.loads(call("leaderboard", "--format", "json").out)] == ["partly"]
    rows = json.loads(call("leaderboard", "--retracted", "--format", "json").out)
    assert {row["model"]: row["retracted"] for row in rows} == {"whole | piped": "wrong prompt", "partly": None}
    again = call("retract", board[0]["run"], "--reason", "again")
    assert again.code == 2 and "wrong prompt" in again.err
    assert call("retract", board[1]["judging"], "--reason", " ").code == 2


def test_a_retracted_run_takes_no_place_in_the_ranking_of_the_others(
    call: Call, board: list[dict[str, Any]], tmp_path: Path
) -> None:
    take_in(call, tmp_path, "other", [False, True, True])
    call("retract", board[0]["run"], "--reason", "wrong prompt")
    rows = json.loads(call("leaderboard", "--retracted", "--format", "json").out)
    alone, _ = json.loads(call("leaderboard", "--format", "json").out)
    kept = next(row for row in rows if row["model"] == "other")
    assert (kept["rank"], kept["tied"]) == (alone["rank"], alone["tied"]) == (1, False)


def read_export(text: str, format: str) -> list[dict[str, Any]]:
    """The exported rows, verdicts as true, false or None."""
    if format == "json":
        return list(json.loads(text))
    if format == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    values = {"True": True, "False": False, "": None}
    return [{**row, "met": values[row["met"]]} for row in csv.DictReader(io.StringIO(text))]


@pytest.mark.parametrize("format", ["jsonl", "json", "csv"])
def test_figures_computed_from_an_export_are_the_boards(
    call: Call, board: list[dict[str, Any]], tmp_path: Path, format: str
) -> None:
    for row in board:
        done = call("export", row["judging"], "--format", format)
        assert done.code == 0
        items = read_export(done.out, format)
        by_conversation = defaultdict(list)
        for item in items:
            by_conversation[item["conversation"]].append(item["met"])
            assert item["model"] == row["model"] and item["judge"] == "people"
            assert item["reply"].startswith("reply, ") and item["reply"].endswith("\n=second line")
        scored = [met for item in items if (met := item["met"]) is not None]
        whole = [verdicts for verdicts in by_conversation.values() if None not in verdicts]
        assert sum(scored) / len(scored) == row["ars"]
        assert sum(map(all, whole)) / len(whole) == row["apr"]
        assert len(scored) / len(items) == row["coverage"]
        assert len(by_conversation) == row["n"]
    file = tmp_path / "export.txt"
    assert call("export", board[0]["run"], "--format", format, "-o", file).out == ""
    assert read_export(file.read_text(), format)[0]["model"] == "whole | piped"
    assert call("export", board[0]["run"], "-o", tmp_path / "no" / "folder").code == 2


def test_the_board_is_the_same_on_both_databases(call: Call, tmp_path: Path, postgres_url: str) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(4, criteria=3, audio=False))
    verdicts = write_jsonl(
        tmp_path / "v.jsonl",
        [{"id": f"conversation{n:04d}", "response": "", "criteria_met": [True, n % 2 == 0, None]} for n in range(4)],
    )
    boards = []
    for database in (tmp_path / "a.db", postgres_url):
        done = call(
            "import", "audio-multichallenge", "--data", data, "--verdicts", verdicts, "--model", "m",
            "--judge-name", "j", "--database", database, "--format", "json",
        )  # fmt: skip
        assert done.code == 0, done.err
        (row,) = json.loads(done.out)
        boards.append({key: value for key, value in row.items() if key != "date"})
    assert boards[0] == boards[1]
