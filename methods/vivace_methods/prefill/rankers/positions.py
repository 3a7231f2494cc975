"""Tokens are worth what their place says, and nothing that they hold: the latest ones most, or any at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from vivace_methods.prefill.rankers.answer import Fixed
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker


@dataclass(frozen=True)
class PlaceRanker(Ranker):
    """Scores that look at no token.

    Attributes:
        order: `recent` values the latest most, `random` draws what each is worth.
        window: last tokens of the prompt that are kept whatever they are worth.
        seed: of the draw, which is another one for each length of a prompt.
    """

    order: Literal["random", "recent"]
    window: int = 8
    seed: int = 0

    def begin(self, prompt: RankedPrompt) -> Fixed:
        """Known at once."""
        tokens = prompt.length - self.window
        if self.order == "random":
            chance = torch.Generator().manual_seed(self.seed * 1_000_003 + prompt.length)
            scores = torch.rand(tokens, generator=chance, dtype=torch.float64)
        else:
            scores = torch.arange(tokens, dtype=torch.float64)
        return Fixed(scores.to(prompt.device))

    def least(self) -> int:
        """The window."""
        return self.window
