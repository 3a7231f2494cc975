"""How good an answer is: each metric takes an answer and its sample, and gives a share from 0 to 1.

Nothing that a model wrote is ever executed: programs are compared as text, or not scored at all.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from vivace.errors import UsageError
from vivace.tasks.base import Sample

Metric = Callable[[str, Sample], float]

LONGEST = 20_000
"""Characters of an answer that are looked at: comparing takes time that grows with the square of the length."""


def exact_match(answer: str, sample: Sample) -> float:
    """1 where the answer is a reference, but for kinds of white space and of Unicode composition.

    Case, punctuation and order count: what is asked for is the text itself.
    """
    found = _plain(answer)
    return float(any(found == _plain(reference) for reference in sample.references))


def token_f1(answer: str, sample: Sample) -> float:
    """The best harmonic mean of precision and recall over words, as in SQuAD (arXiv 1606.05250, section 6.1).

    Words are compared without case, punctuation and the articles a, an, the.
    """
    found = _words(answer)
    return max((_f1(found, _words(reference)) for reference in sample.references), default=0.0)


def rouge_l(answer: str, sample: Sample) -> float:
    """The best F measure of the longest common subsequence of words (Lin 2004, section 3).

    Words are runs of a to z and 0 to 9 in lower case, without stemming; precision and recall weigh alike. Other
    scripts have no words in this metric.
    """
    found = _alphanumeric(answer)
    best = 0.0
    for reference in sample.references:
        wanted = _alphanumeric(reference)
        common = _longest_common(found, wanted)
        best = max(best, 2 * common / (len(found) + len(wanted)) if common else 0.0)
    return best


def edit_similarity(answer: str, sample: Sample) -> float:
    """1 less the edit distance over the longer length, in characters; the best over the references.

    The distance is Levenshtein's (1966): insertions, deletions and substitutions, one each.
    """
    found = _plain(answer)[:LONGEST]
    return max((_similarity(found, _plain(reference)[:LONGEST]) for reference in sample.references), default=0.0)


def number(answer: str, sample: Sample) -> float:
    r"""1 where the final number of the answer is that of a reference.

    The final number is the one after the last `####` (GSM8K, arXiv 2110.14168), else the one in the last `\boxed{}`
    (MATH, arXiv 2103.03874), else the last one in the text. Separators of thousands, currency and percent signs do
    not count; fractions and decimals are compared exactly. A reference without a number is compared as text.
    """
    return float(any(_same_number(answer, reference) for reference in sample.references))


def multiple_choice(answer: str, sample: Sample) -> float:
    """1 where the choice that the answer names is a reference.

    An answer names a choice by its letter, alone, in brackets or after words like "the answer is", or by being its
    text. An answer that names none, or that names two letters, is wrong. References are texts of the choices, or
    letters.
    """
    chosen = _choice(answer, sample.choices)
    if chosen is None:
        return 0.0
    return float(any(_choice(reference, sample.choices) == chosen for reference in sample.references))


def contains_all(answer: str, sample: Sample) -> float:
    """The share of the references that occur in the answer, without case (RULER's `string_match_all`, 2404.06654)."""
    if not sample.references:
        return 0.0
    lowered = answer.lower()
    return sum(reference.lower() in lowered for reference in sample.references) / len(sample.references)


def contains_any(answer: str, sample: Sample) -> float:
    """1 where a reference occurs in the answer, without case (RULER's `string_match_part`, 2404.06654)."""
    lowered = answer.lower()
    return float(any(reference.lower() in lowered for reference in sample.references))


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (
        exact_match, token_f1, rouge_l, edit_similarity, number, multiple_choice, contains_all, contains_any,
    )
}  # fmt: skip


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METRICS:
        raise UsageError(f"There is no metric '{name}'; there are {', '.join(METRICS)}.")
    return METRICS[name]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    bare = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(not found and not wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))


def _alphanumeric(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text[:LONGEST].lower())


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit for each place of the second (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(second)) - 1
    unmatched = whole
    for word in first:
        matched = unmatched & places.get(word, 0)
        unmatched = ((unmatched + matched) | (unmatched - matched)) & whole
    return len(second) - unmatched.bit_count()


def _similarity(first: str, second: str) -> float:
    longer = max(len(first), len(second))
    return 1 - _distance(first, second) / longer if longer else 1.0


def _distance(first: str, second: str) -> int:
    """Levenshtein's distance, a column at a time in the bits of one number (Myers 1999, in Hyyrö's form of 2003)."""
    if not first:
        return len(second)
    places: dict[str, int] = {}
    for place, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << place
    whole, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    above, below, distance = whole, 0, len(first)
    for character in second:
        match = places.get(character, 0)
        vertical = match | below
        horizontal = (((match & above) + above) ^ above) | match
        rising = below | ~(horizontal | above) & whole
        falling = above & horizontal
        if rising & last:
            distance += 1
        if falling & last:
            distance -= 1
        rising = (rising << 1 | 1) & whole
        falling = falling << 1 & whole
        above = (falling | ~(vertical | rising)) & whole
        below = rising & vertical
    return distance


_NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s*/\s*\d+(?:\.\d+)?)?")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([-−+]?\d+)\s*\}\s*\{\s*(\d+)\s*\}")


def _same_number(answer: str, reference: str) -> bool:
    wanted = _final_number(reference)
    if wanted is None:
        return _plain(_final_part(answer)) == _plain(_final_part(reference))
    return _final_number(answer) == wanted


def _final_number(text: str) -> Fraction | None:
    part = _FRACTION.sub(r"\1/\2", _final_part(text)[-LONGEST:]).replace("{,}", ",").replace("\\!", "")
    for found in reversed(_NUMBER.findall(part)):
        above, _, below = found.replace("−", "-").replace(",", "").partition("/")
        try:
            return Fraction(above.strip()) / Fraction(below.strip() or 1)
        except (ValueError, ZeroDivisionError):
            continue
    return None


def _final_part(text: str) -> str:
    if "####" in text:
        return text.rpartition("####")[2]
    _, boxed, rest = text.rpartition("\\boxed{")
    if not boxed:
        return text
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:place]
    return rest


_LETTER = re.compile(
    r"^\s*\(?([A-Za-z])\)?\s*(?:[.:)]|$)|\(([A-Za-z])\)|\b(?:answer|choice|option)\b(?:\s+is)?\s*:?\s*\(?([A-Z])\b"
)


def _choice(text: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text names."""
    plain = _plain(text).casefold()
    for place, choice in enumerate(choices):
        if plain == _plain(choice).casefold():
            return place
    letters = {"".join(groups).upper() for groups in _LETTER.findall(text[:LONGEST])}
    named = {ord(letter) - ord("A") for letter in letters}
    if len(named) != 1:
        return None
    (place,) = named
    return place if place < (len(choices) or len(string.ascii_uppercase)) else None
