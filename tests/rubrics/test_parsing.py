"""A judge's answer is one JSON object with a reason and a boolean, or it is no verdict at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace_rubrics.criteria import Unscored, Verdict
from vivace_rubrics.parsing import ANSWER_LIMIT, PARSER_VERSION, VERDICT_SCHEMA, parse_verdict
from vivace_rubrics.texts import storable

MET = '{"explanation": "It says yes.", "criteria_met": true}'


def test_the_version_names_these_semantics() -> None:
    assert PARSER_VERSION == "2"
    assert VERDICT_SCHEMA["required"] == list(VERDICT_SCHEMA["properties"]) == ["explanation", "criteria_met"]


@pytest.mark.parametrize(
    "answer",
    [
        MET,
        f"\n  {MET}\n",
        f"\ufeff{MET}",
        f"```json\n{MET}\n```",
        f"```\n{MET}\n```",
        f"```JSON\r\n{MET}\r\n```\r\n",
        f"~~~json\n{MET}\n~~~",
        f"````json\n{MET}\n````",
        json.dumps(json.loads(MET), indent=2),
        '{"criteria_met": true, "explanation": "It says yes."}',
        '{"explanation": "It says yes.", "criteria_met": true, "confidence": 1}',
        f"<think>\n\n</think>\n\n{MET}",
        f'<THINK>Met, or {{"criteria_met": false}}?</Think>{MET}',
        f"Let me see.\n</think>\n```json\n{MET}\n```",
    ],
)
def test_one_object_counts_bare_or_in_one_fence(answer: str) -> None:
    assert parse_verdict(answer) == Verdict(True, "It says yes.")


@pytest.mark.parametrize(
    "answer",
    [
        f"Here you are: {MET}",
        f"{MET} Hope that helps.",
        f"Sure:\n```json\n{MET}\n```",
        f"```json\n{MET}\n```\nDone.",
        f"```json\n{MET}\n```\n```json\n{MET}\n```",
        f"```json\n{MET}",
        f"~~~json\n{MET}\n```",
        f"`{MET}`",
        f"{MET}\n{MET}",
        f"[{MET}]",
        f'"{MET}"',
        json.dumps(MET),
        MET[:-1],
        MET.replace("true", '"true"'),
        MET.replace("true", "1"),
        MET.replace("true", "null"),
        MET.replace("true", "True"),
        MET.replace('"It says yes."', "null"),
        MET.replace('"It says yes."', "[]"),
        '{"criteria_met": true}',
        '{"explanation": "It says yes."}',
        '{"Explanation": "x", "Criteria_Met": true}',
        '{"verdict": {"explanation": "x", "criteria_met": true}}',
        '{"explanation": "x", "criteria_met": false, "criteria_met": true}',
        "null",
        "true",
        "yes",
        "{}",
        "[" * 10_000,
    ],
)
def test_anything_else_is_unreadable_and_never_a_guess(answer: str) -> None:
    verdict = parse_verdict(answer)
    assert (verdict.met, verdict.unscored) == (None, Unscored.UNREADABLE)


def test_an_explanation_may_quote_the_end_of_a_thought() -> None:
    assert parse_verdict('{"explanation": "It ends in </think>.", "criteria_met": false}').met is False


@pytest.mark.parametrize("answer", ["", " \n\t", "\ufeff", "\u200b\x00", "<think>Hm.", "<think>Hm.</think>\n"])
def test_nothing_is_an_empty_answer(answer: str) -> None:
    assert parse_verdict(answer).unscored is Unscored.EMPTY


def test_an_endless_answer_is_not_read() -> None:
    endless = '{"explanation": "' + "x" * ANSWER_LIMIT + '", "criteria_met": true}'
    assert parse_verdict(endless).unscored is Unscored.TOO_LONG


@given(st.text(), st.booleans(), st.booleans())
def test_every_explanation_is_read_back_as_it_was_written(explanation: str, met: bool, fenced: bool) -> None:
    answer = json.dumps({"explanation": explanation, "criteria_met": met})
    verdict = parse_verdict(f"```json\n{answer}\n```" if fenced else answer)
    assert verdict == Verdict(met, storable(explanation))


@given(st.text(st.characters()))
def test_what_is_stored_is_the_text_without_what_no_database_takes(text: str) -> None:
    stored = storable(text)
    assert "\x00" not in stored
    stored.encode()
    assert storable(stored) == stored
    if "\x00" not in text:
        assert stored == text or any("\ud800" <= character <= "\udfff" for character in text)


def test_the_two_halves_of_a_character_are_joined() -> None:
    assert storable("\ud83d\ude00 \ud83d \x00") == "\U0001f600 \ufffd \ufffd"


def test_a_long_unreadable_answer_is_quoted_in_part() -> None:
    assert len(parse_verdict("x" * 5000).explanation) < 500
