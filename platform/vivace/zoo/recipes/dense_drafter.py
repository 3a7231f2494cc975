"""The EAGLE-3 drafter of the zoo's dense language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.zoo.recipes.dense import mixture
from vivace.zoo.recipes.drafter import DrafterRecipe
from vivace.zoo.training.rows import Mixture


@dataclass(frozen=True)
class DenseDrafter(DrafterRecipe):
    """One layer that drafts what `zoo:dense` writes, trained as EAGLE-3 trains its drafters."""

    name: ClassVar[str] = "dense-drafter"
    steps: ClassVar[int] = 300
    needs: ClassVar[tuple[str, ...]] = ("dense",)
    taps: ClassVar[tuple[int, int, int]] = (1, 2, 3)
    intermediate: ClassVar[int] = 512

    def mixture(self, done: float) -> Mixture:
        """What the target was trained on, all the time."""
        return mixture(self.seed)
