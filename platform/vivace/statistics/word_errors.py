"""Word error rate: how much of what was said a transcript gets wrong, spelling and ways of writing numbers aside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rapidfuzz.distance import Levenshtein
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer


@dataclass(frozen=True)
class WordErrors:
    """Words replaced, left out or put in, and how many were said; of several recordings, added up.

    Attributes:
        errors: the fewest words that have to be replaced, left out or put in.
        words: of what was said.
    """

    errors: int = 0
    words: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        """Of both together: long recordings count for more than short ones, as is usual."""
        return WordErrors(self.errors + other.errors, self.words + other.words)

    @property
    def rate(self) -> float | None:
        """Errors for each word said, from 0; more than 1 where much was put in. None where nothing was said."""
        return self.errors / self.words if self.words else None


def word_errors(said: str, heard: str, language: str = "en") -> WordErrors:
    """What is wrong with a transcript after both texts were normalised.

    Args:
        said: what it should read.
        heard: what it reads.
        language: of both, by Whisper's short name; English has a normaliser of its own.
    """
    reference, transcript = (normalised(text, language).split() for text in (said, heard))
    return WordErrors(Levenshtein.distance(reference, transcript), len(reference))


def misheard(said: str, heard: str, language: str = "en") -> list[tuple[str, str]]:
    """Which words came out as which others, after both texts were normalised; empty is what was left out or put in.

    Args:
        said: what the transcript should read.
        heard: what it reads.
        language: of both, by Whisper's short name.
    """
    reference, transcript = (normalised(text, language).split() for text in (said, heard))
    return [
        (" ".join(before), " ".join(after)) for alike, before, after in _aligned(reference, transcript) if not alike
    ]


@dataclass(frozen=True)
class Passage:
    """Some neighbouring words as they were said and as they were heard, both as they are written.

    Attributes:
        said: what the transcript should read; empty where words were put in.
        heard: what it reads; empty where words were left out.
        wrong: whether these differ in more than how they are written.
    """

    said: str
    heard: str
    wrong: bool


def passages(said: str, heard: str, language: str = "en") -> list[Passage]:
    """A transcript cut into what is right in it and what is wrong, in its order and as it is written.

    Words are aligned after each was normalised by itself; neighbours that come out unlike are wrong, unless
    the normalisation of all of them together makes them alike, as it does "twenty five" and "25".

    Args:
        said: what the transcript should read.
        heard: what it reads.
        language: of both, by Whisper's short name.
    """
    words = said.split(), heard.split()
    keys = tuple([normalised(word, language) for word in text] for text in words)
    found, places = [], [0, 0]
    for alike, before, after in _aligned(*keys):
        ends = places[0] + len(before), places[1] + len(after)
        was, became = (" ".join(text[place:end]) for text, place, end in zip(words, places, ends, strict=True))
        wrong = not alike and normalised(was, language) != normalised(became, language)
        found.append(Passage(was, became, wrong))
        places = list(ends)
    return found


def _aligned(reference: list[str], transcript: list[str]) -> list[tuple[bool, list[str], list[str]]]:
    """Runs of words that are alike in both, and between them what stands in one for what stands in the other."""
    runs: list[tuple[bool, list[str], list[str]]] = []
    for edit in Levenshtein.opcodes(reference, transcript):
        alike = edit.tag == "equal"
        before, after = reference[edit.src_start : edit.src_end], transcript[edit.dest_start : edit.dest_end]
        if runs and runs[-1][0] == alike:  # right after the last one: a phrase, not single words
            runs[-1][1].extend(before)
            runs[-1][2].extend(after)
        else:
            runs.append((alike, before, after))
    return runs


def normalised(text: str, language: str = "en") -> str:
    """A text as Whisper's own evaluation compares it: capitals, punctuation, fillers, contractions and numbers alike.

    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (2022), appendix C.

    Args:
        text: what was said or heard.
        language: by Whisper's short name.
    """
    return str(_normaliser(language == "en")(text)).strip()


@cache
def _normaliser(is_english: bool) -> EnglishTextNormalizer | BasicTextNormalizer:
    return EnglishTextNormalizer() if is_english else BasicTextNormalizer()
