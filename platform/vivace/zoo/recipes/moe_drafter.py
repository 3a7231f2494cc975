"""The EAGLE-3 drafter of the zoo's mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace.zoo.recipes.drafter import DrafterRecipe
from vivace.zoo.recipes.moe import DOMAINS
from vivace.zoo.training.rows import Mixture


@dataclass(frozen=True)
class MixtureOfExpertsDrafter(DrafterRecipe):
    """One layer that drafts what `zoo:moe` writes, trained as EAGLE-3 trains its drafters."""

    name: ClassVar[str] = "moe-drafter"
    steps: ClassVar[int] = 250
    needs: ClassVar[tuple[str, ...]] = ("moe",)
    taps: ClassVar[tuple[int, int, int]] = (1, 2, 3)
    intermediate: ClassVar[int] = 384

    def mixture(self, done: float) -> Mixture:
        """What the target was trained on, all the time."""
        return Mixture(DOMAINS, self.seed)
