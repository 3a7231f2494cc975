"""Machine checks that can stand beside a rubric criterion, so that a reply can be scored without an LLM.

A check is written as a JSON object with exactly one key:

| key | value | met when |
|---|---|---|
| `states_one_of` | list of phrases | at least one phrase occurs in the reply |
| `states_all_of` | list of phrases | every phrase occurs in the reply |
| `mentions_none_of` | list of phrases | no phrase occurs in the reply |
| `number_equals` | number | some number in the reply has this value, see `numbers_in` |
| `at_most_sentences` | whole number from 1 | the reply is no longer, see `count_sentences` |
| `at_most_words` | whole number from 1 | the reply is no longer, see `count_words` |
| `starts_with` | phrase or list of phrases | the reply begins with one of them |
| `ends_with` | phrase or list of phrases | the reply ends with one of them |
| `all` | list of checks | every check is met |
| `any` | list of checks | at least one check is met |

**Phrases** are compared after Unicode NFKC and case folding, with curly quotes and dashes made plain, runs
of whitespace made one space, invisible characters and Markdown emphasis removed; a space and a hyphen
between words are the same. A phrase occurs only at word boundaries: "ten" is not in "often", "can" is not
in "can't" (but "Ann" is in "Ann's"). Digits are never a part of a longer number: "7:30" is not in "17:30",
"3" is not in "3.5", "1,300", "-3" or "3rd"; letters glued on behind are a unit and do not hide it, so
"7:30" is in "7:30pm". Scripts written without spaces have no such boundaries, so phrases in them are hardly
ever found.

**An empty reply** (or one of blanks only) states nothing: `states_one_of`, `states_all_of`, `number_equals`,
`starts_with` and `ends_with` are not met. It is not too long and mentions nothing either: `mentions_none_of`,
`at_most_sentences` and `at_most_words` are met.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

CHECKS_VERSION = "1"
"""Part of a judge's fingerprint: change it whenever the same check and reply could get another verdict."""


class CheckError(ValueError):
    """A check that cannot be read; the message is one sentence that names the problem."""


@dataclass(frozen=True)
class CheckOutcome:
    """What a check found: whether it is met, and one plain sentence saying why."""

    met: bool
    explanation: str


class Check(ABC):
    """One deterministic yes-or-no question about a reply."""

    @abstractmethod
    def evaluate(self, reply: str) -> CheckOutcome:
        """Decide the check for `reply`, a model's text as it came; any string will do, also an empty one."""


# Reading text

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
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


def _without_emphasis(text: str) -> str:
    while True:
        inner = _EMPHASIS.sub(lambda match: match[2] or match[4], text)
        if inner == text:
            return text
        text = inner


def _plain(text: str) -> str:
    """The text in plain characters and without Markdown emphasis, its letter case and lines as they were."""
    text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE).translate(_UNGLUED))
    return _without_emphasis(text).translate(_PLAIN_PUNCTUATION)


def _fold(text: str) -> str:
    """The text as phrases are compared: plain, case-folded, every run of whitespace one space."""
    return " ".join(unicodedata.normalize("NFKC", _plain(text).casefold()).split())


# A digit is inside a longer number when a letter, a digit, or a digit and one of . , : / touches it in front,
# or when a minus or a decimal point does that belongs to no word.
_NUMBER_BEGINS = r"(?<![\w^])(?<!\d[.,:/])(?<!(?<!\w)[-.])"
_NUMBER_ENDS = r"(?!\d|[.,:/]\d|(?:st|nd|rd|th)\b)"


# Case folding can leave a combining mark ("İ" becomes i and a dot), which belongs to its letter.
_WORD_CHARACTER = r"[\w\u0300-\u036f]"


def _is_word_character(character: str) -> bool:
    return re.match(_WORD_CHARACTER, character) is not None


@functools.lru_cache(maxsize=4096)
def _phrase_pattern(phrase: str) -> str:
    """A regular expression (for folded text) that finds `phrase` at word boundaries."""
    folded = _fold(phrase)
    body = "[ -]".join(re.escape(word) for word in re.split(r"(?<=\w)[ -](?=\w)", folded))
    begins, ends = "", ""
    if folded[0].isdigit():
        begins = _NUMBER_BEGINS
    elif _is_word_character(folded[0]):
        begins = f"(?<!{_WORD_CHARACTER})"
    if folded[-1].isdigit():
        ends = _NUMBER_ENDS
    elif _is_word_character(folded[-1]):
        ends = rf"(?!{_WORD_CHARACTER}|'t\b)"
    return begins + body + ends


def _occurs(phrase: str, folded_reply: str) -> bool:
    return re.search(_phrase_pattern(phrase), folded_reply) is not None


def _quoted(phrases: tuple[str, ...]) -> str:
    return ", ".join(f'"{phrase}"' for phrase in phrases)


# Numbers

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
    rf"(?:(?<=-)|(?<=-[$£€])|{_NUMBER_BEGINS})"
    rf"(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+){_NUMBER_ENDS}"
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
    folded = _fold(with_decimals)
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


# Length

_LIST_MARKER = re.compile(r"^[ \t]*(?:[-*+•>]|\d{1,3}[.)]|#{1,6})[ \t]+(?=\S)")
_TERMINATOR = re.compile(r"(?<![.!?])(?P<marks>[.!?]++)(?P<closers>[\"')\]]*+)(?=\s|$)")
_NEVER_LAST = frozenset(
    ("dr", "mr", "mrs", "ms", "prof", "rev", "st", "mt", "e.g", "i.e", "eg", "ie", "vs", "cf", "approx")
)
_SOMETIMES_LAST = frozenset(("etc", "a.m", "p.m", "jr", "sr", "inc", "ltd", "u.s", "u.k"))


def _blocks(text: str) -> list[str]:
    """The paragraphs and list items of a text, each on one line and without its list or heading marker."""
    blocks: list[str] = []
    starts_block = True
    for line in text.splitlines():
        unmarked = _LIST_MARKER.sub("", line)
        if starts_block or unmarked != line:
            blocks.append(unmarked)
        else:
            blocks[-1] += " " + line
        starts_block = not line.strip() or line.lstrip().startswith("#")
    return blocks


def _has_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def count_words(reply: str) -> int:
    """The number of words: pieces between blanks that hold a letter or a digit.

    A hyphenated word, a contraction, a number and a time of day are one word each; a dash between words parts
    them also without blanks ("yes—no" is two); bullets, list numbering, stand-alone punctuation and emoji are
    none.
    """
    parted = re.sub("--+", " ", _plain(reply))
    return sum(_has_word(word) for block in _blocks(parted) for word in block.split())


def _ends_sentence(before: str, marks: str, closers: str, after: str) -> bool:
    following = after.lstrip(" \"'([")
    if not following:
        return True
    capital = following[0].isupper()
    if marks.startswith(".."):
        return capital and re.match(r"I\b", following) is None
    if closers and following[0].islower():
        return False
    if marks != ".":
        return True
    words = before.split()
    last = words[-1].lstrip("\"'([") if words else ""
    name = last.casefold()
    if name in _NEVER_LAST or (name == "no" and following[0].isdigit()):
        return False
    if name in _SOMETIMES_LAST:
        return capital
    if re.fullmatch(r"[A-Z](?:\.[A-Z])+", last):
        return False
    is_initial = len(last) == 1 and last.isupper() and last != "I" and capital
    return not (is_initial and (len(words) == 1 or words[-2][0].isupper()))


def count_sentences(reply: str) -> int:
    """The number of sentences in an English reply.

    A sentence ends at a run of . ! ? ("?!" is one) with any closing quotes or brackets, before a blank or
    at the end. Decimals, times and addresses ("3.5", "example.com") have no blank there and so end nothing.
    Neither do these:

    - titles and "e.g.", "i.e.", "vs.", "approx."; "No." before a digit; initials in names ("J. Smith");
    - "etc.", "a.m.", "p.m.", "Jr.", "Inc.", "U.S." and the like, unless a capital letter follows;
    - an ellipsis, unless a capital letter other than the pronoun I follows;
    - a quotation or a bracket that the sentence goes on after in lower case ('"Really?" she asked.').

    Every paragraph and list item ends a sentence too, with or without a full stop; a single line break
    inside a paragraph does not. List numbering is no sentence, and a piece that is only a number counts
    with what follows it. A piece without a letter or digit (an emoji, a rule) counts as nothing.
    """
    return sum(_count_sentences_in_block(block) for block in _blocks(_plain(reply)))


def _count_sentences_in_block(block: str) -> int:
    count, start = 0, 0
    for match in _TERMINATOR.finditer(block):
        piece, after = block[start : match.start()], block[match.end() :]
        numbering = piece.strip().isdigit() and _has_word(after)
        if numbering or not _ends_sentence(piece, match["marks"], match["closers"], after):
            continue
        count += _has_word(piece)
        start = match.end()
    return count + _has_word(block[start:])


# The checks


@dataclass(frozen=True)
class StatesOneOf(Check):
    """Met when at least one of the phrases occurs; never met by an empty reply."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = _fold(reply)
        for phrase in self.phrases:
            if _occurs(phrase, folded):
                return CheckOutcome(True, f'The reply states "{phrase}".')
        return CheckOutcome(False, f"The reply states none of {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class StatesAllOf(Check):
    """Met when every phrase occurs, in any order; never met by an empty reply."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = _fold(reply)
        missing = tuple(phrase for phrase in self.phrases if not _occurs(phrase, folded))
        if missing:
            return CheckOutcome(False, f"The reply does not state {_quoted(missing)}.")
        return CheckOutcome(True, f"The reply states {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class MentionsNoneOf(Check):
    """Met when no phrase occurs; an empty reply mentions nothing, so it meets this."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = _fold(reply)
        found = tuple(phrase for phrase in self.phrases if _occurs(phrase, folded))
        if found:
            return CheckOutcome(False, f"The reply mentions {_quoted(found)}.")
        return CheckOutcome(True, f"The reply mentions none of {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class NumberEquals(Check):
    """Met when some number in the reply, as `numbers_in` reads it, is exactly `value`."""

    value: Decimal

    def evaluate(self, reply: str) -> CheckOutcome:
        numbers = numbers_in(reply)
        if self.value in numbers:
            return CheckOutcome(True, f"The reply states the number {self.value:f}.")
        if not numbers:
            return CheckOutcome(False, f"The reply states no number, so not {self.value:f}.")
        listed = ", ".join(f"{number:f}" for number in numbers)
        return CheckOutcome(False, f"The reply states {listed}, but not {self.value:f}.")


@dataclass(frozen=True)
class AtMostSentences(Check):
    """Met when `count_sentences` of the reply is at most `limit`; an empty reply has no sentence."""

    limit: int

    def evaluate(self, reply: str) -> CheckOutcome:
        count = count_sentences(reply)
        return CheckOutcome(
            count <= self.limit, f"The number of sentences is {count}, with at most {self.limit} allowed."
        )


@dataclass(frozen=True)
class AtMostWords(Check):
    """Met when `count_words` of the reply is at most `limit`; an empty reply has no word."""

    limit: int

    def evaluate(self, reply: str) -> CheckOutcome:
        count = count_words(reply)
        return CheckOutcome(
            count <= self.limit, f"The number of words is {count}, with at most {self.limit} allowed."
        )


@dataclass(frozen=True)
class StartsWith(Check):
    """Met when the reply begins with one of the phrases.

    Before a phrase that begins with a letter or digit, punctuation and emoji are passed over ("¡Hola!" starts
    with "hola"); before any other phrase only blanks, opening quotes and brackets, and Markdown marks are.
    """

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = _fold(reply)
        for phrase in self.phrases:
            skipped = r"[\W_]*" if _is_word_character(_fold(phrase)[0]) else r"[\s\"'(\[{*_#>]*?"
            if re.match(skipped + _phrase_pattern(phrase), folded):
                return CheckOutcome(True, f'The reply starts with "{phrase}".')
        return CheckOutcome(False, f"The reply starts with none of {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class EndsWith(Check):
    """Met when the reply ends with one of the phrases.

    After a phrase that ends with a letter or digit, punctuation and emoji are passed over ("Over and out!"
    ends with "over and out"); after any other phrase, such as "?", only blanks, closing quotes and
    brackets, and Markdown marks are.
    """

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = _fold(reply)
        for phrase in self.phrases:
            skipped = r"[\W_]*" if _is_word_character(_fold(phrase)[-1]) else r"[\s\"')\]}*_]*"
            if re.search(_phrase_pattern(phrase) + skipped + r"\Z", folded):
                return CheckOutcome(True, f'The reply ends with "{phrase}".')
        return CheckOutcome(False, f"The reply ends with none of {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class AllOf(Check):
    """Met when every part is; the explanation is that of the first part that is not, or of all."""

    parts: tuple[Check, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        outcomes = [part.evaluate(reply) for part in self.parts]
        for outcome in outcomes:
            if not outcome.met:
                return outcome
        return CheckOutcome(True, _joined(outcomes))


@dataclass(frozen=True)
class AnyOf(Check):
    """Met when at least one part is; the explanation is that of the first part that is, or of all."""

    parts: tuple[Check, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        outcomes = [part.evaluate(reply) for part in self.parts]
        for outcome in outcomes:
            if outcome.met:
                return outcome
        return CheckOutcome(False, _joined(outcomes))


def _joined(outcomes: list[CheckOutcome]) -> str:
    """Several explanations as one sentence."""
    sentences = [outcome.explanation.removesuffix(".") for outcome in outcomes]
    return "; ".join(sentences[:1] + [text[0].lower() + text[1:] for text in sentences[1:]]) + "."


# Parsing


def _parse_phrases(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise CheckError(f'"{key}" needs a list of at least one phrase, not {value!r}.')
    for phrase in value:
        if not isinstance(phrase, str) or not _fold(phrase):
            raise CheckError(f'"{key}" needs phrases with some visible character, not {phrase!r}.')
    return tuple(value)


def _parse_phrase_or_phrases(key: str, value: object) -> tuple[str, ...]:
    return _parse_phrases(key, [value] if isinstance(value, str) else value)


def _parse_limit(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckError(f'"{key}" needs a whole number of at least 1, not {value!r}.')
    return value


def _parse_number(key: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckError(f'"{key}" needs a number, not {value!r}.')
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckError(f'"{key}" needs a finite number, not {value!r}.')
    # A float goes through its shortest spelling, so that 0.1 means the 0.1 that a reply would state.
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def _parse_parts(key: str, value: object) -> tuple[Check, ...]:
    if not isinstance(value, list) or not value:
        raise CheckError(f'"{key}" needs a list of at least one check, not {value!r}.')
    parts = []
    for position, part in enumerate(value, start=1):
        try:
            parts.append(parse_check(part))
        except CheckError as error:
            raise CheckError(f'In "{key}", check {position}: {error}') from None
    return tuple(parts)


_PARSERS: dict[str, Callable[[str, object], Check]] = {
    "states_one_of": lambda key, value: StatesOneOf(_parse_phrases(key, value)),
    "states_all_of": lambda key, value: StatesAllOf(_parse_phrases(key, value)),
    "mentions_none_of": lambda key, value: MentionsNoneOf(_parse_phrases(key, value)),
    "number_equals": lambda key, value: NumberEquals(_parse_number(key, value)),
    "at_most_sentences": lambda key, value: AtMostSentences(_parse_limit(key, value)),
    "at_most_words": lambda key, value: AtMostWords(_parse_limit(key, value)),
    "starts_with": lambda key, value: StartsWith(_parse_phrase_or_phrases(key, value)),
    "ends_with": lambda key, value: EndsWith(_parse_phrase_or_phrases(key, value)),
    "all": lambda key, value: AllOf(_parse_parts(key, value)),
    "any": lambda key, value: AnyOf(_parse_parts(key, value)),
}


def parse_check(data: object) -> Check:
    """The check that a decoded JSON value describes.

    Raises `CheckError` for anything but an object with exactly one known key and a value of that key's type;
    empty lists, blank phrases, limits below 1 and numbers that are not finite are errors too.
    """
    if not isinstance(data, dict):
        raise CheckError(f"A check is an object with one key, not {data!r}.")
    if len(data) != 1:
        raise CheckError(f"A check has exactly one key, not {len(data)}: {', '.join(map(str, data)) or 'none'}.")
    [(key, value)] = data.items()
    if key not in _PARSERS:
        raise CheckError(f'"{key}" is not a check; the checks are {", ".join(_PARSERS)}.')
    return _PARSERS[key](key, value)
