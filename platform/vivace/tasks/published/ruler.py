"""RULER: retrieval and tracking in long contexts (Hsieh et al. 2024, arXiv 2404.06654), from its generated files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.published.files import FileTask, Row, text_of, texts_of


@dataclass(frozen=True)
class Ruler(FileTask):
    """A long prompt, and the strings that its answer must hold.

    Reads the lines that RULER's own scripts write for one task and length (input, outputs, and answer_prefix where
    there is one). The share of the outputs that occur counts, as for its needle, tracking and word tasks; for its
    two question-answering tasks, where any output will do, this metric is stricter than RULER's.
    """

    name: ClassVar[str] = "ruler"
    metric: ClassVar[str] = "contains_all"
    most_tokens: ClassVar[int] = 128
    version: ClassVar[str] = "1"

    def read(self, row: Row) -> Sample:
        """Prompt and strings."""
        prefix = text_of(row, "answer_prefix") if row.get("answer_prefix") else ""
        return Sample("", text_of(row, "input") + prefix, texts_of(row, "outputs"))
