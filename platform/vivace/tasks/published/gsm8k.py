"""GSM8K: word problems of grade-school arithmetic (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.published.files import FileTask, Row, eagle_question, text_of, texts_of


@dataclass(frozen=True)
class Gsm8k(FileTask):
    """A word problem, whose final number decides.

    Reads `openai/gsm8k` (question, answer) or EAGLE's form. The question is put as it stands, without examples.
    """

    name: ClassVar[str] = "gsm8k"
    metric: ClassVar[str] = "number"
    most_tokens: ClassVar[int] = 512
    version: ClassVar[str] = "2"

    def read(self, row: Row) -> Sample:
        """Question and worked answer."""
        asked = eagle_question(row)
        if asked is not None:
            return Sample("", asked, texts_of(row, "reference"))
        return Sample("", text_of(row, "question"), (text_of(row, "answer"),))
