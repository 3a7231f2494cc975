"""CNN/DailyMail: news to be summarised (arXiv 1506.03340 and 1704.04368)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample, Span
from vivace.tasks.published.files import FileTask, Row, eagle_question, eagle_references, text_of


@dataclass(frozen=True)
class CnnDailyMail(FileTask):
    """A news article, and its highlights as the reference.

    Reads `abisee/cnn_dailymail` 3.0.0 (article, highlights) or EAGLE's form, whose prompts begin with `Summarize:`.
    """

    name: ClassVar[str] = "cnn_dailymail"
    metric: ClassVar[str] = "rouge_l"
    most_tokens: ClassVar[int] = 256
    version: ClassVar[str] = "1"

    def read(self, row: Row) -> Sample:
        """Article and highlights."""
        asked = eagle_question(row)
        if asked is not None:
            return Sample("", asked, eagle_references(row))
        head = "Summarize: "
        article = text_of(row, "article")
        evidence = (Span(len(head), len(head) + len(article)),)
        return Sample("", head + article, (text_of(row, "highlights"),), evidence)
