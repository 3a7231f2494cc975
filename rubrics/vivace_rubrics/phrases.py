"""Phrases found in a reply whatever its typography: quotes, dashes, emphasis, cases and joined signs aside."""

from __future__ import annotations

import functools
import re
import unicodedata

INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_PLAIN_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        # With blanks, so that "it is—5" does not become a minus sign, nor "yes—no" one word.
        **dict.fromkeys("\u2014\u2015", " - "),
        "\u2044": "/",
    }
)
# NFKC would glue these to the digits before them: "5½" would read 51/2, and "10²" would read 102.
_FRACTIONS = {c: unicodedata.normalize("NFKC", c).replace("\u2044", "/") for c in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_UNGLUED = str.maketrans(
    {c: f" {text}" for c, text in _FRACTIONS.items()} | {c: f"^{unicodedata.digit(c)}" for c in "⁰¹²³⁴⁵⁶⁷⁸⁹"}
)
# Digits outside the marks mean a multiplication ("2*3 and 4*5"), not emphasis. The bounded length, like the
# possessive quantifiers further down, keeps a degenerate reply of many thousand marks from taking minutes.
_EMPHASIS = re.compile(
    r"(?<!\d)(\*{1,3}|~~|`{1,3})(?=\S)(.{1,500}?)(?<=\S)\1(?!\d)"
    r"|(?<!\w)(_{1,3})(?=\S)(.{1,500}?)(?<=\S)\3(?!\w)"
)


def without_emphasis(text: str) -> str:
    """The text without Markdown's marks of emphasis, however deep they stand in one another."""
    while True:
        inner = _EMPHASIS.sub(lambda match: match[2] or match[4], text)
        if inner == text:
            return text
        text = inner


def plain(text: str) -> str:
    """The text in plain characters and without Markdown emphasis, its letter case and lines as they were."""
    text = unicodedata.normalize("NFKC", text.translate(INVISIBLE).translate(_UNGLUED))
    return without_emphasis(text).translate(_PLAIN_PUNCTUATION)


def fold(text: str) -> str:
    """The text as phrases are compared: plain, case-folded, every run of whitespace one space."""
    return " ".join(unicodedata.normalize("NFKC", plain(text).casefold()).split())


# A digit is inside a longer number when a letter, a digit, or a digit and one of . , : / touches it in front,
# or when a minus or a decimal point does that belongs to no word.
NUMBER_BEGINS = r"(?<![\w^])(?<!\d[.,:/])(?<!(?<!\w)[-.])"
NUMBER_ENDS = r"(?!\d|[.,:/]\d|(?:st|nd|rd|th)\b)"
# Case folding can leave a combining mark ("İ" becomes i and a dot), which belongs to its letter.
WORD_CHARACTER = r"[\w\u0300-\u036f]"


def is_word_character(character: str) -> bool:
    """Whether a character is a part of a word."""
    return re.match(WORD_CHARACTER, character) is not None


@functools.lru_cache(maxsize=4096)
def phrase_pattern(phrase: str) -> str:
    """A regular expression (for folded text) that finds `phrase` at word boundaries."""
    folded = fold(phrase)
    body = "[ -]".join(re.escape(word) for word in re.split(r"(?<=\w)[ -](?=\w)", folded))
    begins, ends = "", ""
    if folded[0].isdigit():
        begins = NUMBER_BEGINS
    elif is_word_character(folded[0]):
        begins = f"(?<!{WORD_CHARACTER})"
    if folded[-1].isdigit():
        ends = NUMBER_ENDS
    elif is_word_character(folded[-1]):
        ends = rf"(?!{WORD_CHARACTER}|'t\b)"
    return begins + body + ends


def occurs(phrase: str, folded_reply: str) -> bool:
    """Whether a phrase stands in a folded reply as whole words."""
    return re.search(phrase_pattern(phrase), folded_reply) is not None
