"""The EAGLE-3 drafter of the zoo's retrieval model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.zoo.recipes.drafter import DrafterRecipe
from vivace.zoo.recipes.retrieval import Stage, stage_at
from vivace.zoo.training.rows import Mixture

STAGES = (Stage(64, 10, 0.5), Stage(128, 6, 0.25), Stage(256, 3, 0.25))
"""Shorter prompts than the target's: longer ones cost time, and what is looked up in them is the same."""


@dataclass(frozen=True)
class RetrievalDrafter(DrafterRecipe):
    """One layer that drafts what `zoo:retrieval` answers, trained as EAGLE-3 trains its drafters."""

    name: ClassVar[str] = "retrieval-drafter"
    steps: ClassVar[int] = 400
    needs: ClassVar[tuple[str, ...]] = ("retrieval",)
    taps: ClassVar[tuple[int, int, int]] = (1, 3, 5)
    intermediate: ClassVar[int] = 256

    def mixture(self, done: float) -> Mixture:
        """What the target was trained on, in prompts that grow longer."""
        return stage_at(STAGES, done).mixture(self.seed)
