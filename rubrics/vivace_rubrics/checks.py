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

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from vivace_rubrics.phrases import (
    fold,
    is_word_character,
    occurs,
    phrase_pattern,
)
from vivace_rubrics.sentences import count_sentences, count_words
from vivace_rubrics.stated_numbers import numbers_in

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


def _quoted(phrases: tuple[str, ...]) -> str:
    return ", ".join(f'"{phrase}"' for phrase in phrases)


@dataclass(frozen=True)
class StatesOneOf(Check):
    """Met when at least one of the phrases occurs; never met by an empty reply."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = fold(reply)
        for phrase in self.phrases:
            if occurs(phrase, folded):
                return CheckOutcome(True, f'The reply states "{phrase}".')
        return CheckOutcome(False, f"The reply states none of {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class StatesAllOf(Check):
    """Met when every phrase occurs, in any order; never met by an empty reply."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = fold(reply)
        missing = tuple(phrase for phrase in self.phrases if not occurs(phrase, folded))
        if missing:
            return CheckOutcome(False, f"The reply does not state {_quoted(missing)}.")
        return CheckOutcome(True, f"The reply states {_quoted(self.phrases)}.")


@dataclass(frozen=True)
class MentionsNoneOf(Check):
    """Met when no phrase occurs; an empty reply mentions nothing, so it meets this."""

    phrases: tuple[str, ...]

    def evaluate(self, reply: str) -> CheckOutcome:
        folded = fold(reply)
        found = tuple(phrase for phrase in self.phrases if occurs(phrase, folded))
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
        folded = fold(reply)
        for phrase in self.phrases:
            skipped = r"[\W_]*" if is_word_character(fold(phrase)[0]) else r"[\s\"'(\[{*_#>]*?"
            if re.match(skipped + phrase_pattern(phrase), folded):
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
        folded = fold(reply)
        for phrase in self.phrases:
            skipped = r"[\W_]*" if is_word_character(fold(phrase)[-1]) else r"[\s\"')\]}*_]*"
            if re.search(phrase_pattern(phrase) + skipped + r"\Z", folded):
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


def _parse_phrases(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise CheckError(f'"{key}" needs a list of at least one phrase, not {value!r}.')
    for phrase in value:
        if not isinstance(phrase, str) or not fold(phrase):
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
