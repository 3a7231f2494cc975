"""Prompts of a fixed length in random tokens: for models whose answers mean nothing, and whose times do."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask


@dataclass(frozen=True)
class Tokens(GeneratedTask):
    """Random token ids, written as numbers; the answer is never scored, and has always the same length.

    Models of random weights have no tokenizer, nor have some checkpoints, and read the numbers as they stand.

    Attributes:
        length: of a prompt, in tokens.
        vocabulary: ids are drawn from 0 up to, not including, this number.
    """

    name: ClassVar[str] = "tokens"
    metric: ClassVar[str] = ""
    most_tokens: ClassVar[int] = 64

    length: int = 512
    vocabulary: int = 30_000

    def __post_init__(self) -> None:
        for setting in ("length", "vocabulary"):
            if getattr(self, setting) < 1:
                raise UsageError(f"The setting {setting} of tokens must be at least 1, not {getattr(self, setting)}.")

    @property
    def revision(self) -> str:
        """The version of this generator."""
        return "1"

    def draw(self, chance: random.Random) -> Sample:
        """So many ids, separated by blanks."""
        ids = (str(chance.randrange(self.vocabulary)) for _ in range(self.length))
        return Sample(id="", prompt=" ".join(ids), references=())
