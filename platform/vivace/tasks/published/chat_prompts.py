"""Questions of a chat without right answers, as in MT-Bench (arXiv 2306.05685), for speed and agreement only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vivace.tasks.base import Sample
from vivace.tasks.published.files import FileTask, Row, eagle_references, text_of, texts_of


@dataclass(frozen=True)
class ChatPrompts(FileTask):
    """A turn of each row of files in EAGLE's form: MT-Bench, Alpaca, Natural Questions.

    Rows without `turns` are read from `prompt`, as in `HuggingFaceH4/mt_bench_prompts`, or from `instruction` and
    `input`, as in Alpaca. Answers are not scored.

    Attributes:
        path: as of any task that reads files.
        split: as of any task that reads files.
        turn: `first`, or `second` for the first question, the file's reference answer to it where there is one, and
            the second question, in one prompt; rows without a second question are left out. What the model itself
            would have answered does not stand between, so that all arms of a comparison are asked the same.
    """

    name: ClassVar[str] = "chat_prompts"
    metric: ClassVar[str] = ""
    most_tokens: ClassVar[int] = 512
    version: ClassVar[str] = "1"

    turn: Literal["first", "second"] = "first"

    def read(self, row: Row) -> Sample | None:
        """The question of the turn, with what goes before it."""
        turns = _turns(row)
        if self.turn == "first":
            parts = turns[:1]
        elif len(turns) > 1:
            parts = (turns[0], *eagle_references(row)[:1], turns[1])
        else:
            return None
        return Sample("", "\n\n".join(parts), (), slice=str(row.get("category") or ""))


def _turns(row: Row) -> tuple[str, ...]:
    if "turns" not in row and "instruction" in row:
        return ("\n\n".join(text_of(row, column) for column in ("instruction", "input") if row.get(column)),)
    return texts_of(row, "turns" if "turns" in row else "prompt")
