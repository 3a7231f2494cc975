"""Speculation without any drafter: what followed the latest words the last time is drafted again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from vivace_methods.protocol import Attached, MethodError
from vivace_methods.speculation.drafted import Verified


@dataclass(frozen=True)
class PromptLookup(Verified):
    """Drafts what followed the same few tokens earlier in the prompt or the answer, and verifies it in one pass.

    Source: Saxena, "Prompt Lookup Decoding", github.com/apoorvumang/prompt-lookup-decoding (2023); it costs nothing
    and helps where answers repeat their prompts: summaries, corrections, code.

    Attributes:
        depth: tokens drafted before each pass of the model, at least 1.
        longest: tokens that are looked for, the latest ones; where they stand nowhere, fewer are looked for.
    """

    name: ClassVar[str] = "prompt-lookup"
    paper: ClassVar[str] = "Prompt Lookup Decoding, github.com/apoorvumang/prompt-lookup-decoding"

    depth: int = 10
    longest: int = 3

    def __post_init__(self) -> None:
        for setting in ("depth", "longest"):
            if getattr(self, setting) < 1:
                raise MethodError(
                    f"The setting {setting} of {self.name} must be at least 1, not {getattr(self, setting)}."
                )

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Speculate while the context lasts."""
        from vivace_methods.speculation.drafters.lookup import Lookup
        from vivace_methods.speculation.speculative_decoder import SpeculativeDecoder, require_verifying, speculating

        require_verifying(model, self.name, trees=self.trees)
        return speculating(model, SpeculativeDecoder(model, Lookup(self.longest), self.depth, trees=self.trees))
