"""What a model thought is no part of what it said, and what nobody can see is no text."""

from __future__ import annotations

import pytest

from vivace_rubrics.texts import is_blank, storable, without_thoughts


@pytest.mark.parametrize(
    "text",
    [
        "<think>two bottles, no: one</think>One bottle.",
        "\n<think>\ntwo?\n</think>\n\nOne bottle.\n",
        "<THINK>two?</Think> One bottle.",
        "<thinking>two?</thinking>One bottle.",
        "[THINK]two?[/THINK]One bottle.",
        "<think></think>One bottle.",
        "<think>two?</think>\n<think>one!</think>\nOne bottle.",
        "two? one!\n</think>\n\nOne bottle.",
        "<think>two?</think> one! </think>One bottle.",
        "<think>two? <think>one!</think></think>One bottle.",
        "\ufeff\u200b<think>two?</think>\u2009One bottle.",
    ],
)
def test_thoughts_before_a_reply_are_left_out(text: str) -> None:
    assert without_thoughts(text) == "One bottle."
    assert without_thoughts(without_thoughts(text)) == "One bottle."


@pytest.mark.parametrize(
    "text",
    [
        "  One bottle.\n",
        "One bottle. <think>Or two?</think> One.",
        "Write <think>, then </think>.",
        "a < b and think > c",
        "<thinker>One</thinker>",
    ],
)
def test_what_is_said_stays_as_it_is(text: str) -> None:
    assert without_thoughts(text) == text


@pytest.mark.parametrize("text", ["<think>two? one!", "<think>a</think>", "a</think>", "<think>a</think> <think>b"])
def test_a_reply_of_thoughts_alone_says_nothing(text: str) -> None:
    assert without_thoughts(text) == ""


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<think></think>", "</think><think>", "[THINK]"])
def test_any_number_of_tags_is_read_at_once(tag: str) -> None:
    assert without_thoughts(tag * 50_000) == ""


@pytest.mark.parametrize(
    "text",
    ["", " \t\r\n", "\xa0\u2003\u3000", "\u200b\u200c\u200d\u2060\ufeff", "\x00\x07\x1b\x7f\x9b",
     "\u202e\u2066\u00ad", "\u2028\u2029", "\u3164\u115f\u2800", "\ufe0f\u034f\U000e0041\U000e0100",
     "\ufffd", storable("\ud83d\x00")],
)  # fmt: skip
def test_what_nobody_sees_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "\u200b.", "\u3042", "\U0001f600", "\u0301a", "0", "\u2026"])
def test_what_anybody_sees_is_not(text: str) -> None:
    assert not is_blank(text)
