"""The numbers that a reply states, in digits or in words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal

from vivace_rubrics.phrases import (
    NUMBER_BEGINS,
    NUMBER_ENDS,
    fold,
)

_UNITS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_TEENS = {
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
}
_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_SMALL = {"zero": 0, "oh": 0, "a": 1, **_UNITS, **_TEENS, **_TENS}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"a half": Decimal("0.5"), "a quarter": Decimal("0.25"), "three quarters": Decimal("0.75")}


def _word(words: Mapping[str, object]) -> str:
    return rf"(?:{'|'.join(words)})\b"


def _number_words_pattern() -> str:
    below_100 = rf"(?:{_word(_TENS)}(?:[ -]{_word(_UNITS)})?|{_word(_TEENS)}|{_word(_UNITS)})"
    # "and" joins only what cannot be a number of its own: "between two hundred and three hundred" holds two.
    below_1000 = rf"(?:(?:a|{below_100})[ -]hundred\b(?:[ -](?:and[ -])?{below_100}(?![ -]hundred\b))?|{below_100})"
    rest = rf"(?:[ -](?:and[ -])?{below_1000}(?![ -]{_word(_SCALES)}))?"
    longer: list[str] = []
    smaller_scales = ""
    for scale in ("thousand", "million", "billion"):
        leading = rf"(?:a|{below_1000})[ -]{scale}\b"
        longer.insert(0, leading + smaller_scales + rest)
        smaller_scales = rf"(?:[ -](?:and[ -])?{leading})?" + smaller_scales
    decimals = rf"(?:[ -]point(?:[ -](?:zero|oh|{'|'.join(_UNITS)})\b)+)?"
    return rf"(?:{'|'.join(longer)}|{below_1000}|zero\b){decimals}"


_NUMBER = re.compile(
    r"(?P<minus>(?<![\w.,:/])-|\b(?:minus|negative) )?[$£€]?"
    r"(?:"
    rf"(?:(?<=-)|(?<=-[$£€])|{NUMBER_BEGINS})"
    rf"(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+){NUMBER_ENDS}"
    rf"(?:[ -](?P<scale>{_word(_SCALES)}))?"
    rf"|(?<!\w)(?P<words>{_number_words_pattern()})"
    r")"
    rf"(?:[ -]and[ -](?P<part>{_word({name.replace(' ', '[ -]'): 0 for name in _PARTS})}))?"
)


def _value_of_words(words: str) -> Decimal:
    whole, _, decimals = re.sub("[ -]", " ", words).partition(" point ")
    total, group = 0, 0
    for word in whole.split():
        if word == "hundred":
            group *= 100
        elif word in _SCALES:
            total, group = total + group * _SCALES[word], 0
        elif word != "and":
            group += _SMALL[word]
    digits = "".join(str(_SMALL[word]) for word in decimals.split())
    return Decimal(f"{total + group}.{digits}")


def numbers_in(reply: str) -> tuple[Decimal, ...]:
    """The numbers a reply states, in their order.

    Counted: digits, with commas between groups of three and with a decimal point ("1,250.50", ".5"), also
    with a currency sign in front or a unit or percent sign behind ("£40", "200g", "20%"); a minus sign or
    the word "minus" or "negative" before either form, unless it follows another number ("ten minus three"
    is 10 and 3); English cardinal words from zero to the billions, with spaces or hyphens and an optional
    "and" ("forty-two", "three hundred and five", "a thousand", "fifteen hundred") and decimals spoken digit
    by digit ("three point one four"); digits with a scale word ("2.5 million"); a last "and a half", "and a
    quarter" or "and three quarters", and the characters ¼ ½ ¾. The word "one" always counts, also in "no
    one".

    Not counted: ordinals ("5th", "fifth"), digits inside words or codes ("B12"), and digits joined in any
    other way by . , : or / (clock times, dates, fractions, versions: "7:30", "1/2", "1.2.3", "1,5"). Years
    in pairs are two numbers ("nineteen eighty-four" is 19 and 84), and so are digits read out one by one;
    "a dozen" is none.
    """
    with_decimals = re.sub(
        "(?<!\\d)(\\d*+)[ \u00a0\u202f]?([¼½¾])",
        lambda match: f"{match[1] or ' 0'}{str(unicodedata.numeric(match[2]))[1:]}",
        reply,
    )
    folded = fold(with_decimals)
    values: list[Decimal] = []
    previous_end: int | None = None
    for match in _NUMBER.finditer(folded):
        if match["digits"]:
            value = Decimal(match["digits"].replace(",", ""))
            if match["scale"]:
                value *= _SCALES[match["scale"]]
        else:
            value = _value_of_words(match["words"])
        if match["part"]:
            value += _PARTS[match["part"].replace("-", " ")]
        is_subtraction = match["minus"] in ("minus ", "negative ") and match.start() - 1 == previous_end
        if match["minus"] and not is_subtraction:
            value = value.copy_negate()
        values.append(value)
        previous_end = match.end()
    return tuple(values)
