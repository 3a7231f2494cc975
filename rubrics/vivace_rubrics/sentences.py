"""How many words and sentences a reply has, list items and abbreviations minded."""

from __future__ import annotations

import re

from vivace_rubrics.phrases import plain

_LIST_MARKER = re.compile(r"^[ \t]*(?:[-*+•>]|\d{1,3}[.)]|#{1,6})[ \t]+(?=\S)")
_TERMINATOR = re.compile(r"(?<![.!?])(?P<marks>[.!?]++)(?P<closers>[\"')\]]*+)(?=\s|$)")
_NEVER_LAST = frozenset(
    ("dr", "mr", "mrs", "ms", "prof", "rev", "st", "mt", "e.g", "i.e", "eg", "ie", "vs", "cf", "approx")
)
_SOMETIMES_LAST = frozenset(("etc", "a.m", "p.m", "jr", "sr", "inc", "ltd", "u.s", "u.k"))


def blocks(text: str) -> list[str]:
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


def has_word(text: str) -> bool:
    """Whether a letter or a digit is in a text."""
    return any(character.isalnum() for character in text)


def count_words(reply: str) -> int:
    """The number of words: pieces between blanks that hold a letter or a digit.

    A hyphenated word, a contraction, a number and a time of day are one word each; a dash between words parts
    them also without blanks ("yes—no" is two); bullets, list numbering, stand-alone punctuation and emoji are
    none.
    """
    parted = re.sub("--+", " ", plain(reply))
    return sum(has_word(word) for block in blocks(parted) for word in block.split())


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
    return sum(_count_sentences_in_block(block) for block in blocks(plain(reply)))


def _count_sentences_in_block(block: str) -> int:
    count, start = 0, 0
    for match in _TERMINATOR.finditer(block):
        piece, after = block[start : match.start()], block[match.end() :]
        numbering = piece.strip().isdigit() and has_word(after)
        if numbering or not _ends_sentence(piece, match["marks"], match["closers"], after):
            continue
        count += has_word(piece)
        start = match.end()
    return count + has_word(block[start:])
