"""MATH500: five hundred problems of MATH (arXiv 2103.03874), chosen by Lightman et al. (arXiv 2305.20050)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vivace.machine.optional_packages import require_math_verify
from vivace.tasks.base import Sample
from vivace.tasks.published.files import FileTask, Row, eagle_question, text_of, texts_of


@dataclass(frozen=True)
class Math500(FileTask):
    r"""A competition problem, whose boxed result decides: as a number where it is one, else as text.

    Reads `HuggingFaceH4/MATH-500` (problem, answer, subject) or EAGLE's form.

    Attributes:
        equality: the metric: `number`, or `math_verify`, which sees that two expressions are equal.
    """

    name: ClassVar[str] = "math500"
    metric: ClassVar[str] = "number"
    most_tokens: ClassVar[int] = 1024
    version: ClassVar[str] = "2"

    equality: Literal["number", "math_verify"] = "number"

    def __post_init__(self) -> None:
        """Take the metric that is chosen, and see that it can be had."""
        if self.equality == "math_verify":
            require_math_verify()
        # The metric is the class's elsewhere; here it follows from a setting, and the dataclass is frozen.
        object.__setattr__(self, "metric", self.equality)

    def read(self, row: Row) -> Sample:
        """Problem and result."""
        asked = eagle_question(row)
        problem = text_of(row, "problem") if asked is None else asked
        references = texts_of(row, "answer" if asked is None else "reference")
        prompt = f"{problem}\n\nPut the final answer within \\boxed{{}}."
        return Sample("", prompt, references, slice=str(row.get("subject", "")))
