"""How good an answer is: each metric takes an answer and its sample, and gives a share from 0 to 1.

Nothing that a model wrote is ever executed: programs are compared as text, or not scored at all.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from rapidfuzz.distance import Indel, LCSseq, Levenshtein

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.scores.equality import math_verify
from vivace.tasks.scores.stated_results import same_result

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
        common = LCSseq.similarity(found, wanted)
        best = max(best, 2 * common / (len(found) + len(wanted)) if common else 0.0)
    return best


def edit_similarity(answer: str, sample: Sample) -> float:
    """1 less the edit distance over the longer length, in characters; the best over the references.

    The distance is Levenshtein's (1966): insertions, deletions and substitutions, one each.
    """
    found = _plain(answer)[:LONGEST]
    wanted = (_plain(reference)[:LONGEST] for reference in sample.references)
    return max((Levenshtein.normalized_similarity(found, each) for each in wanted), default=0.0)


def number(answer: str, sample: Sample) -> float:
    r"""1 where the final result of the answer is that of a reference.

    The final result stands in the last `\boxed{}` (MATH, arXiv 2103.03874), else after the first `####` that is no
    heading (GSM8K, arXiv 2110.14168), else after words like "the answer is"; a text without any of them ends with it.
    What follows the beginning of a further question does not count. Where a reference is a number, numbers are
    compared, exactly: mixed numbers, fractions, decimals and powers of ten, whatever their separators, currency and
    units. Any other reference (a root, a pair, an interval) is compared as text without the spaces and wrappings of
    LaTeX.
    """
    return float(any(same_result(answer, reference) for reference in sample.references))


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
    return float(any(reference.lower() in lowered for reference in sample.references if reference))


def first_line_f1(answer: str, sample: Sample) -> float:
    """`token_f1` of the first line that is not empty, as in LongBench's examples with answers (arXiv 2308.14508)."""
    return token_f1(_first_line(answer), sample)


def first_line_rouge_l(answer: str, sample: Sample) -> float:
    """`rouge_l` of the first line that is not empty, as in LongBench's examples with summaries (arXiv 2308.14508).

    LongBench joins the common subsequences of sentences (the package `rouge`), so that longer texts differ a little.
    """
    return rouge_l(_first_line(answer), sample)


def classification(answer: str, sample: Sample) -> float:
    """1 over the number of classes that the answer's first line names, where the reference is among them.

    The classes are the sample's choices. As in LongBench (arXiv 2308.14508), case counts, and a class whose name is a
    part of the reference's does not.
    """
    line = _first_line(answer)
    named = [choice for choice in sample.choices if choice in line]

    def share(reference: str) -> float:
        others = [choice for choice in named if choice == reference or choice not in reference]
        return 1 / len(others) if reference in others else 0.0

    return max(map(share, sample.references), default=0.0)


def numbers_share(answer: str, sample: Sample) -> float:
    """The share of the answer's numbers that are the reference's first one, as LongBench counts (arXiv 2308.14508).

    An answer without numbers is wrong; a list of all that may be right is hardly better.
    """
    found = re.findall(r"\d+", answer[:LONGEST])
    wanted = [re.findall(r"\d+", reference)[:1] for reference in sample.references]
    return max((found.count(first) / len(found) for numbers in wanted for first in numbers if found), default=0.0)


def code_line(answer: str, sample: Sample) -> float:
    """How alike the first line of code in the answer and a reference are, as in LongBench (arXiv 2308.14508).

    Lines that hold a backtick, # or // are no code. The similarity is twice the longest common subsequence over both
    lengths, in characters. LongBench's fuzzy ratio is the same, but in whole percents, where Levenshtein's package is
    installed, and else that of `difflib`.
    """
    lines = answer[:LONGEST].lstrip("\n").split("\n")
    line = next((each for each in lines if not any(sign in each for sign in ("`", "#", "//"))), "")
    shares = (Indel.normalized_similarity(line, wanted) if line or wanted else 0.0 for wanted in sample.references)
    return max(shares, default=0.0)


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (
        exact_match, token_f1, rouge_l, edit_similarity, number, multiple_choice, contains_all, contains_any,
        first_line_f1, first_line_rouge_l, classification, numbers_share, code_line, math_verify,
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


def score(answer: str, task_metric: str, sample: Sample) -> float | None:
    """The metric of an answer; None where the task has none, or the sample nothing to compare with.

    Raises:
        UsageError: there is no such metric.
    """
    return find_metric(task_metric)(answer, sample) if task_metric and sample.references else None


def _first_line(text: str) -> str:
    return text.lstrip("\n").split("\n")[0]


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


_STATED = re.compile(r"(?i:\b(?:answer|choice|option)\b(?:\s+is)?\s*:?\s*)\(?([A-Z])\b(?!')")
_LEADING = re.compile(r"\s*\(?([A-Za-z])\)?\s*(?:[.:)]|$)")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")


def _choice(text: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text names: by its words, or a letter stated, leading or in brackets."""
    plain = _plain(text).casefold()
    for place, choice in enumerate(choices):
        if plain == _plain(choice).casefold():
            return place
    head = text[:LONGEST]
    leading = _LEADING.match(head)
    for letters in (_STATED.findall(head), [leading[1]] if leading else [], _BRACKETED.findall(head)):
        named = {ord(letter.upper()) - ord("A") for letter in letters}
        if len(named) == 1:
            (place,) = named
            return place if place < (len(choices) or len(string.ascii_uppercase)) else None
        if named:
            return None
    return None
