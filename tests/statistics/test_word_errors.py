"""Word error rates: what counts as an error, and what is only another way to write the same."""

from __future__ import annotations

import pytest

from vivace.statistics.word_errors import Passage, WordErrors, passages, word_errors


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("Good morning, Doctor Lee!", "good morning dr lee"),
        ("I won't; they're not going to.", "I will not they are not going to"),
        ("It's gonna rain.", "it is going to rain"),
        ("Twenty-five people paid three hundred dollars.", "25 people paid $300."),
        ("Four oh seven", "407"),
        ("the nineteen sixties", "the 1960s"),
        ("My favourite colour", "my favorite color"),
        ("Well, um, uh, yes.", "Well yes"),
        ("naïve café", "naive cafe"),
    ],
)
def test_the_same_words_written_otherwise_are_no_errors(said: str, heard: str) -> None:
    assert word_errors(said, heard).errors == 0


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        ("the cat sat down", "the hat sat down", 1, 4),
        ("the cat sat down", "the cat down", 1, 4),
        ("the cat sat down", "the cat sat right down", 1, 4),
        ("the cat sat down", "", 4, 4),
        ("the cat", "a dog ran far away", 5, 2),
        ("room 14", "room forty", 1, 2),
        ("I can't come", "I can come", 1, 4),
        ("", "you", 1, 0),
        ("", "", 0, 0),
    ],
)
def test_words_replaced_left_out_and_put_in_are_counted(said: str, heard: str, errors: int, words: int) -> None:
    assert word_errors(said, heard) == WordErrors(errors, words)


def test_rates_of_several_recordings_go_by_their_words() -> None:
    together = word_errors("yes", "no") + word_errors("one two three red blue green", "red blue green")
    assert together.rate == pytest.approx(together.errors / together.words)
    assert WordErrors(3, 2).rate == 1.5
    assert WordErrors(1, 0).rate is None


def test_other_languages_are_compared_as_they_are_spelled() -> None:
    assert word_errors("Größe, bitte!", "größe bitte", "de").errors == 0
    assert word_errors("I won't", "I will not", "de").errors > 0


def test_passages_are_the_transcript_with_what_is_wrong_in_it_apart() -> None:
    found = passages("Uh, my sister Ana is allergic to twenty five nuts.", "My sister Anna is allergic to 25")
    assert " ".join(one.heard for one in found if one.heard) == "My sister Anna is allergic to 25", "nothing is lost"
    assert [(one.said, one.heard) for one in found if one.wrong] == [("Ana", "Anna"), ("twenty five nuts.", "25")]
    assert not any(one.wrong for one in passages("Twenty-five, please!", "25 please"))
    assert passages("", "Hello there.") == [Passage("", "Hello there.", wrong=True)]
    assert passages("", "") == []
