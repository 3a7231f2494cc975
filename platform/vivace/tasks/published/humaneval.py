"""HumanEval: functions to be completed (Chen et al. 2021, arXiv 2107.03374), for speed and agreement only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.tasks.base import Sample
from vivace.tasks.published.files import FileTask, Row, eagle_question, text_of


@dataclass(frozen=True)
class HumanEval(FileTask):
    """The head of a Python function. Answers are not scored: nothing that a model wrote is executed.

    Reads `openai/openai_humaneval` (prompt) or EAGLE's form.
    """

    name: ClassVar[str] = "humaneval"
    metric: ClassVar[str] = ""
    most_tokens: ClassVar[int] = 512
    version: ClassVar[str] = "1"

    def read(self, row: Row) -> Sample:
        """The function's head with its docstring."""
        asked = eagle_question(row)
        return Sample("", text_of(row, "prompt") if asked is None else asked, ())
