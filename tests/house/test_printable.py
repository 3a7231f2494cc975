"""Text from outside neither commands a terminal nor is computed by a spreadsheet, in any format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from vivace.cli.common import Format, print_json, print_rows, print_text, say
from vivace.output.printable import cell, csv_text, json_text, printable

EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\x90e\u202ef\u2066g\rh\x7fi\ud800"
COMMANDS = "\x1b\x07\x9b\x90\u202e\u2066\r\x7f"


def test_pictures_stand_for_commands() -> None:
    assert printable(EVIL) == "a␛]0;owned␇b␛[2Jc�31md�e�f�g␍h␡i�"
    assert printable("naïve 😀 שלום\tx\r\ny\n") == "naïve 😀 שלום\tx\ny\n"


@pytest.mark.parametrize("format", Format)
def test_no_format_prints_a_command(format: Format, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [{"name": EVIL, "parts": [EVIL], "inner": {EVIL: 1}}]
    print_rows(rows, format, {"name": lambda row: row["name"], "parts": lambda row: row["parts"][0]})
    out = capsys.readouterr().out
    assert "owned" in out and not set(COMMANDS) & set(out)
    if format is Format.JSON:
        assert json.loads(out) == rows  # escaped, not lost


def test_nothing_else_prints_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": EVIL})
    print_text(EVIL)
    say(EVIL)
    said = capsys.readouterr()
    assert not set(COMMANDS) & set(said.out + said.err)


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\n=1", " =1", "- yes", "＝1"])
def test_a_formula_is_made_a_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+1.5", "-1,000", "-2.5e-3", "+3 %", "a=b", "", -1.5, None, True])
def test_a_number_and_a_word_stay(value: Any) -> None:
    assert cell(value) == value


def test_csv_is_read_back_as_it_was_written() -> None:
    rows = [{"=a": 'x, "y"\nz', "b": -1}, {"=a": None, "c": "=1"}]
    assert list(csv.reader(io.StringIO(csv_text(rows)))) == [
        ["'=a", "b", "c"], ['x, "y"\nz', "-1", ""], ["", "", "'=1"],
    ]  # fmt: skip
    assert json.loads(json_text(EVIL)) == EVIL
