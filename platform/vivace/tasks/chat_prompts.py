"""Questions of a chat without right answers, as in MT-Bench (arXiv 2306.05685), for speed and agreement only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.files import FileTask, Row, eagle_question, text_of, texts_of


@dataclass(frozen=True)
class ChatPrompts(FileTask):
    """The first turn of each row of files in EAGLE's form: MT-Bench, Alpaca, Natural Questions.

    Rows without `turns` are read from `prompt`, as in `HuggingFaceH4/mt_bench_prompts`, or from `instruction` and
    `input`, as in Alpaca. Answers are not scored.
    """

    name: ClassVar[str] = "chat_prompts"
    metric: ClassVar[str] = ""
    most_tokens: ClassVar[int] = 512
    version: ClassVar[str] = "1"

    def read(self, row: Row) -> Sample:
        """The first question."""
        asked = eagle_question(row)
        category = str(row.get("category") or "")
        if asked is not None:
            return Sample("", asked, (), slice=category)
        if "instruction" in row:
            parts = [text_of(row, column) for column in ("instruction", "input") if row.get(column)]
            return Sample("", "\n\n".join(parts), (), slice=category)
        return Sample("", texts_of(row, "prompt")[0], (), slice=category)
