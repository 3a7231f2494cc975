"""JSON from outside is a value or one sentence, however it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vivace_rubrics.json_text import DEEPEST, parse_json, parse_report


@pytest.mark.parametrize("value", [None, 1, "a", [], {}, {"a": [1, {"b": "[[[{{{" * 100}]}])
def test_a_value_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested deeper"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ('[{"a":' * (DEEPEST // 2) + "[]" + "}]" * (DEEPEST // 2), "nested deeper"),
        ("[" + "7" * 100_000 + "]", "too many digits"),
        ("[1,", "Expecting value"),
        (b'"\xff"', "utf-8"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_the_deepest_that_is_read_can_be_written_again() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(text)) == text
    assert len(parse_json("[" + "[]," * 1000 + "[]]")) == 1001


def test_a_report_says_one_thing_and_is_read_whatever_numbers_are_in_it() -> None:
    assert parse_report(b'{"a": 1' + b"0" * 5000 + b', "b": [1, -2, 3.5], "c": 1e999}') == {
        "a": float("inf"), "b": [1, -2, 3.5], "c": float("inf"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="a field stands twice"):
        parse_report('{"a": [{"b": 1, "b": 2}]}')
