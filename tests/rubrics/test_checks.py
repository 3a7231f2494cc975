"""The machine checks decide the same way every time, and the way a careful reader would."""

from __future__ import annotations

import json
import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace_rubrics.checks import CHECKS_VERSION, Check, CheckError, parse_check
from vivace_rubrics.sentences import count_sentences, count_words
from vivace_rubrics.stated_numbers import numbers_in


def met(check: object, reply: str) -> bool:
    return parse_check(check).evaluate(reply).met


def test_the_version_names_these_semantics() -> None:
    assert CHECKS_VERSION == "1"


@pytest.mark.parametrize(
    ("phrase", "reply", "expected"),
    [
        ("ten", "That happens often.", False),
        ("ten", "Ten, at most.", True),
        ("7:30", "The train leaves at 17:30.", False),
        ("7:30", "Book it for 7:30pm.", True),
        ("7.30", "At 7.30.", True),
        ("30", "At 7:30.", False),
        ("3", "It is 3.5 metres.", False),
        ("1", "About 1,300 people.", False),
        ("5", "It was -5 outside.", False),
        ("5", "The answer is—5.", True),
        ("3", "On the 3rd.", False),
        ("12", "Room B12.", False),
        ("can", "You can't do that.", False),
        ("can", "You can.", True),
        ("can't", "You can\u2019t do that.", True),
        ("Ann", "It's Ann's turn.", True),
        ("gluten-free", "Buy gluten free pasta.", True),
        ("half past seven", "At half-past seven.", True),
        ("peanut butter", "No peanut \u2014 butter is fine.", False),
        ("over and out", "**Over** and _out_", True),
        ("straße", "STRASSE", True),
        ("café", "cafe\u0301", True),
        ("\u0130", "\u0130x", False),
        ("i", "\u0130", False),
        ("five", "fi\u200bve", True),
        ("2", "2*3 and 4*5", True),
        ("23", "2*3 and 4*5", False),
        ("snake_case", "Use snake_case here.", True),
        ("5 1/2", "5½ cups", True),
        ("£40", "It costs £400.", False),
        ("!", "Well done!", True),
        ("a\nb", "a   b", True),
    ],
)
def test_phrases_are_found_at_word_boundaries(phrase: str, reply: str, expected: bool) -> None:
    assert met({"states_one_of": [phrase]}, reply) is expected
    assert met({"states_all_of": [phrase]}, reply) is expected
    assert met({"mentions_none_of": [phrase]}, reply) is not expected


def test_one_of_needs_one_phrase_and_all_of_needs_every_phrase() -> None:
    assert met({"states_one_of": ["red", "blue"]}, "Blue.")
    assert not met({"states_all_of": ["red", "blue"]}, "Blue.")
    assert met({"states_all_of": ["red", "blue"]}, "Blue, then red.")
    assert not met({"mentions_none_of": ["red", "blue"]}, "Blue.")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("forty-two or forty two", "42 42"),
        ("three hundred and five", "305"),
        ("between two hundred and three hundred", "200 300"),
        ("between one thousand and two thousand", "1000 2000"),
        ("between twenty and thirty", "20 30"),
        ("two hundred and three thousand", "203000"),
        ("two million three hundred and four thousand five hundred and six", "2304506"),
        ("a hundred; fifteen hundred; a thousand and one", "100 1500 1001"),
        ("three point one four", "3.14"),
        ("the point five people made", "5"),
        ("two and a half, 3 and three quarters", "2.5 3.75"),
        ("5½ cups, then ½", "5.5 0.5"),
        ("1,250.50 and .5", "1250.50 0.5"),
        ("2.5 million", "2500000"),
        ("200g for £40, -$5, 20%", "200 40 -5 20"),
        ("-5, minus six, negative 7", "-5 -6 -7"),
        ("ten minus three", "10 3"),
        ("10–15, 555-1234", "10 15 555 1234"),
        ("It is **42**.", "42"),
        ("nineteen eighty-four", "19 84"),
        ("forty-three billion one thousand", "43000001000"),
        ("zero", "0"),
        ("10²", "10"),
        ("It's 5.", "5"),
        ("5th, fifth, 21st, 1/2, 7:30, 12/05, 1.2.3, 1,5, B12, x2", ""),
        ("often someone tensed weighty", ""),
        ("", ""),
    ],
)
def test_numbers_in_a_reply(reply: str, expected: str) -> None:
    assert numbers_in(reply) == tuple(map(Decimal, expected.split()))


def test_number_equals_compares_values_not_spellings() -> None:
    assert met({"number_equals": 40}, "It is £40.00.")
    assert met({"number_equals": 0.1}, "0.1")
    assert met({"number_equals": -3}, "minus three")
    assert not met({"number_equals": 3}, "minus three")
    assert not met({"number_equals": 1}, "often 17:1 or 1,000")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Dr. Smith came at 5 p.m. on Friday. He left.", 2),
        ("We close at 5 p.m. Bring a coat.", 2),
        ("Fruit, e.g. pears, i.e. not apples, vs. nuts. Done.", 2),
        ("It costs 3.50 at example.com. Really?! Yes.", 3),
        ("Well... I think so. Hmm… maybe.", 2),
        ("I waited... Then it rang.", 2),
        ('"Really?" she asked. "Yes."', 2),
        ("No. Never. It is No. 5.", 3),
        ("J. R. Smith wrote it. So did I. Good.", 3),
        ("1. Mix.\n2. Bake it\n3. Eat!", 3),
        ("Steps: 1. Mix. 2. Bake.", 3),
        ("one line\nbroken in two", 1),
        ("one paragraph\n\nanother", 2),
        ("# Heading\nText.", 2),
        ("Nice! \U0001f600", 1),
        ("ok. sure. fine.", 3),
        ("**Bold.** Plain.", 2),
        ("...", 0),
        ("", 0),
    ],
)
def test_sentences_are_counted_as_a_reader_would(reply: str, expected: int) -> None:
    assert count_sentences(reply) == expected
    if expected:
        assert met({"at_most_sentences": expected}, reply)
    if expected > 1:
        assert not met({"at_most_sentences": expected - 1}, reply)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("A well-known fact, isn't it?", 5),
        ("yes—no", 2),
        ("yes -- no", 2),
        ("1. Eggs\n2. Milk - cold \U0001f600", 3),
        ("It costs 1,250.50.", 3),
        ("  ", 0),
    ],
)
def test_words_are_counted_as_a_reader_would(reply: str, expected: int) -> None:
    assert count_words(reply) == expected


@pytest.mark.parametrize(
    ("check", "reply", "expected"),
    [
        ({"starts_with": "hola"}, "¡Hola! Qué tal", True),
        ({"starts_with": ["good morning", "hello"]}, "**Hello** there", True),
        ({"starts_with": "right"}, "Rightly so", False),
        ({"starts_with": "right"}, "All right", False),
        ({"starts_with": "3"}, "3.5 in all", False),
        ({"starts_with": "-"}, "well - no", False),
        ({"ends_with": "over and out"}, "Six. Over and out!", True),
        ({"ends_with": "over and out"}, "Over and out, then.", False),
        ({"ends_with": "out"}, "without", False),
        ({"ends_with": "?"}, 'Did she say "now?"', True),
        ({"ends_with": "?"}, "Shall we? Yes!", False),
        ({"ends_with": ["score: 3", "score three"]}, "Right. Score: 3", True),
        ({"ends_with": "a a"}, "a a a", True),
    ],
)
def test_beginnings_and_ends(check: object, reply: str, expected: bool) -> None:
    assert met(check, reply) is expected


def test_all_and_any_combine_checks() -> None:
    twelve = {"any": [{"number_equals": 12}, {"states_one_of": ["a dozen"]}]}
    assert met(twelve, "a dozen pairs")
    assert met(twelve, "twelve pairs")
    assert not met(twelve, "fifteen pairs")
    both = {"all": [twelve, {"mentions_none_of": ["fifteen"]}]}
    assert met(both, "twelve")
    assert not met(both, "twelve, not fifteen")
    assert parse_check(both).evaluate("twelve, not fifteen").explanation == 'The reply mentions "fifteen".'


@pytest.mark.parametrize("reply", ["", "  \n\t"])
def test_an_empty_reply_states_nothing_and_mentions_nothing(reply: str) -> None:
    for failing in (
        {"states_one_of": ["a"]},
        {"states_all_of": ["a"]},
        {"number_equals": 0},
        {"starts_with": "a"},
        {"ends_with": "?"},
    ):
        assert not met(failing, reply)
    for passing in ({"mentions_none_of": ["a"]}, {"at_most_sentences": 1}, {"at_most_words": 1}):
        assert met(passing, reply)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("states_one_of", "object with one key"),
        ([], "object with one key"),
        (None, "object with one key"),
        ({}, "exactly one key"),
        ({"at_most_words": 3, "at_most_sentences": 1}, "at_most_words, at_most_sentences"),
        ({"contains": ["a"]}, '"contains" is not a check'),
        ({1: ["a"]}, '"1" is not a check'),
        ({"states_one_of": []}, "at least one phrase"),
        ({"states_one_of": "a"}, "list of at least one phrase"),
        ({"states_all_of": ["a", 3]}, "not 3"),
        ({"mentions_none_of": ["\u200b "]}, "visible character"),
        ({"starts_with": []}, "at least one phrase"),
        ({"ends_with": 3}, "list of at least one phrase"),
        ({"number_equals": "3"}, "needs a number"),
        ({"number_equals": True}, "needs a number"),
        ({"number_equals": float("nan")}, "finite"),
        ({"at_most_words": True}, "whole number"),
        ({"at_most_words": 3.0}, "whole number"),
        ({"at_most_sentences": 0}, "at least 1"),
        ({"all": []}, "at least one check"),
        ({"any": {"at_most_words": 3}}, "list of at least one check"),
        ({"all": [{"at_most_words": 3}, {"any": [{"x": 1}]}]}, 'In "all", check 2: In "any", check 1: "x"'),
    ],
)
def test_a_check_that_cannot_be_read_names_its_problem(data: object, problem: str) -> None:
    with pytest.raises(CheckError) as caught:
        parse_check(data)
    message = str(caught.value)
    assert problem in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["!", ".", "9", "1,", "_a ", "*a", "**a ", "a-", "(", '"', "one hundred and ", "½", " "]
)
def test_a_degenerate_reply_is_decided_in_good_time(piece: str) -> None:
    reply = piece * (60_000 // len(piece)) + "x"
    for check in (
        {"states_one_of": ["out"]},
        {"number_equals": 7},
        {"at_most_sentences": 3},
        {"at_most_words": 3},
        {"starts_with": ["(", "out"]},
        {"ends_with": ["?", "out"]},
    ):
        parse_check(check).evaluate(reply)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
words = st.text(st.characters(categories=["L"], max_codepoint=0x24F), min_size=1, max_size=8).filter(
    lambda word: unicodedata.normalize("NFKC", word).isalpha()
)
phrases = st.lists(words, min_size=1, max_size=3)
checks = st.recursive(
    st.builds(
        lambda key, value: {key: value},
        st.sampled_from(["states_one_of", "states_all_of", "mentions_none_of", "starts_with", "ends_with"]),
        phrases,
    )
    | st.builds(
        lambda key, value: {key: value},
        st.sampled_from(["at_most_words", "at_most_sentences"]),
        st.integers(1, 50),
    )
    | st.builds(lambda value: {"number_equals": value}, st.integers() | st.floats(allow_nan=False, width=32)),
    lambda inner: st.builds(
        lambda key, parts: {key: parts},
        st.sampled_from(["all", "any"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(json_values)
def test_any_json_value_is_a_check_or_a_check_error(data: object) -> None:
    try:
        assert isinstance(parse_check(data), Check)
    except CheckError as error:
        assert str(error)


@given(
    st.sampled_from(["number_equals", "at_most_words", "all", "any", "states_one_of", "ends_with"]),
    json_values,
)
def test_any_value_under_a_known_key_is_a_check_or_a_check_error(key: str, value: object) -> None:
    try:
        assert isinstance(parse_check({key: value}), Check)
    except CheckError as error:
        assert str(error)


@given(checks.filter(lambda check: "Infinity" not in json.dumps(check)), st.text())
def test_every_reply_gets_one_sentence_and_the_same_answer_again(check: object, reply: str) -> None:
    outcome = parse_check(check).evaluate(reply)
    assert outcome == parse_check(json.loads(json.dumps(check))).evaluate(reply)
    assert outcome.explanation.endswith(".")


@given(phrases, st.text())
def test_mentions_none_of_is_the_opposite_of_states_one_of(listed: list[str], reply: str) -> None:
    assert met({"mentions_none_of": listed}, reply) is not met({"states_one_of": listed}, reply)


@given(words, st.text(), st.text())
def test_a_phrase_between_blanks_is_always_found(phrase: str, before: str, after: str) -> None:
    plain = str.maketrans(dict.fromkeys("*_~`", ""))
    reply = f"{before.translate(plain)} {phrase} {after.translate(plain)}"
    assert met({"states_one_of": [phrase]}, reply)
    assert met({"starts_with": phrase}, f"{phrase} {after.translate(plain)}")
    assert met({"ends_with": phrase}, f"{before.translate(plain)} {phrase}")


@given(words, words)
def test_a_phrase_inside_a_word_is_never_found(phrase: str, rest: str) -> None:
    assert not met({"states_one_of": [phrase]}, phrase + "x" + rest + "x")


@given(st.lists(words, min_size=1), st.integers(1, 30))
def test_the_word_limit_is_the_number_of_words(spoken: list[str], limit: int) -> None:
    assert met({"at_most_words": limit}, " ".join(spoken)) is (len(spoken) <= limit)


@given(st.text(), st.text())
def test_paragraphs_add_up(first: str, second: str) -> None:
    both = f"{first}\n\n{second}"
    assert count_sentences(both) == count_sentences(first) + count_sentences(second)
    assert count_words(both) == count_words(first) + count_words(second)
    assert count_sentences(first) <= count_words(first) or not first.split()


@given(st.integers(-(10**12), 10**12))
def test_a_whole_number_is_read_back_with_and_without_thousands_separators(value: int) -> None:
    for written in (f"It is {value}.", f"It is {value:,}, roughly.", f"({value} kg)"):
        assert numbers_in(written) == (Decimal(value),)


def spell(value: int) -> str:
    units = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    units += ["twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if value < 20:
        return units[value]
    if value < 100:
        return tens[value // 10 - 2] + (f"-{units[value % 10]}" if value % 10 else "")
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= scale:
            rest = value % scale
            joint = " and " if rest < 100 else " "
            return f"{spell(value // scale)} {name}" + (joint + spell(rest) if rest else "")
    raise AssertionError(value)


@given(st.integers(0, 10**12 - 1))
def test_a_whole_number_is_read_back_from_words(value: int) -> None:
    assert numbers_in(f"There were {spell(value)}.") == (Decimal(value),)
