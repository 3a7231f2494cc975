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
    edits = Levenshtein.opcodes(reference, transcript)
    together: list[tuple[list[str], list[str]]] = []
    end = -1
    for edit in edits:
        if edit.tag == "equal":
            continue
        words = reference[edit.src_start : edit.src_end], transcript[edit.dest_start : edit.dest_end]
        if edit.src_start == end:  # right after the last one: a phrase, not single words
            together[-1][0].extend(words[0])
            together[-1][1].extend(words[1])
        else:
            together.append((list(words[0]), list(words[1])))
        end = edit.src_end
    return [(" ".join(before), " ".join(after)) for before, after in together]


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
