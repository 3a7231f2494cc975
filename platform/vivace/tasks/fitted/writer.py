"""A text that is put together piece by piece, and knows where each piece came to stand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from vivace.tasks.base import Span


class Writer:
    """Pieces with blanks between them, and the stretches of those that are asked for later."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, piece: str, before: str = " ") -> Span:
        """Write a piece.

        Args:
            piece: what is written.
            before: what stands between it and the piece before; nothing stands before the first.
        """
        start = self._length + (len(before) if self._pieces else 0)
        self._pieces.append(f"{before}{piece}" if self._pieces else piece)
        self._length = start + len(piece)
        return Span(start, self._length)

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self._pieces)


def scatter(
    writer: Writer, statements: Sequence[str], filler: Iterator[str], filled: int, places: Sequence[float]
) -> list[Span]:
    """Write filler of so many pieces with statements among them, the first piece as a new paragraph.

    Args:
        writer: that writes them.
        statements: in any order.
        filler: pieces without end.
        filled: pieces of it.
        places: of each statement, the share of the filler that goes before it.

    Returns:
        Where each statement stands.
    """
    order = sorted(range(len(statements)), key=lambda each: places[each])
    spans: dict[int, Span] = {}
    written = 0
    before = "\n\n"
    for each in order:
        for piece in islice(filler, round(places[each] * filled) - written):
            writer.add(piece, before)
            before = " "
        written = max(written, round(places[each] * filled))
        spans[each] = writer.add(statements[each], before)
        before = " "
    for piece in islice(filler, filled - written):
        writer.add(piece, before)
        before = " "
    return [spans[each] for each in range(len(statements))]


def anywhere(chance: random.Random, count: int) -> list[float]:
    """Places for statements, each as likely as any other."""
    return [chance.random() for _ in range(count)]
