"""Filler text in a small closed vocabulary, and statements scattered in it: what the retrieval tasks share.

Every word and sign has a blank before it, except a prompt's first, and answers begin with a blank too: each is then
one token of the zoo's tokenizer, the same wherever it stands.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vivace.tasks.base import Span


def split(words: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(words.split())


_FILLER = split(
    """
    about above across after again along although always among around away because before behind below beside
    between beyond but by down during early even far for from here how in into later less like long more near
    never next nor now of often on once only or out over quite rather since slowly soon still than then there
    through together under until very while
    """
)
NAMES = split(
    """
    anchor apple arrow basket bell blanket boat book bottle brush bucket button candle carpet chain chair clock
    cloud coat coin cup curtain desk door drum engine fence flute fork garden gate glove hammer hat helmet jar
    kite ladder lamp lantern letter map mirror needle paper pencil piano pillow pipe plate rope saddle shoe
    spoon stone table tent tower train violin wagon wallet wheel window
    """
)
"""Of things: what statements are about."""
_SUCCESSORS = 4
OPENING = "text :"


def scatter(statements: Sequence[str], filled: int, chance: random.Random) -> tuple[str, dict[str, Span]]:
    """Filler of so many words with the statements at random places of it, and where each of them came to stand."""
    cuts = sorted(chance.randint(0, filled) for _ in statements)
    filler = _filler(filled, chance)
    text, spans, written = OPENING, {}, 0
    for statement, cut in zip(statements, cuts, strict=True):
        text = " ".join([text, *filler[written:cut], statement])
        spans[statement] = Span(len(text) - len(statement), len(text))
        written = cut
    return " ".join([text, *filler[written:]]), spans


def _filler(count: int, chance: random.Random) -> list[str]:
    """Words of a chain in which each has four successors, and all occur equally often in the long run."""
    words, place = [], chance.randrange(len(_FILLER))
    for _ in range(count):
        words.append(_FILLER[place])
        place = (_SUCCESSORS * place + chance.randrange(_SUCCESSORS)) % len(_FILLER)
    return words
