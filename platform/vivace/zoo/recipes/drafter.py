"""What the zoo's EAGLE-3 drafters share: each learns what its target says on the target's own training texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.training.rows import Mixture, Optimisers, Rows

UNROLLED = 4
"""Steps that a drafter goes on from its own output in training."""


@dataclass(frozen=True)
class DrafterRecipe(TrainingRecipe):
    """How a drafter is made: one layer that drafts what its target writes, trained as EAGLE-3 trains its drafters.

    The target reads texts that it was trained on, whose answers are those it gives, and the drafter learns the
    target's distribution at every token of the answers.

    A subclass names its target alone in `needs`.
    """

    taps: ClassVar[tuple[int, int, int]]
    """Layers of the target that it reads. EAGLE-3's own choice would name one of so few layers twice."""
    intermediate: ClassVar[int]
    """Width of its feed-forward part."""

    @abstractmethod
    def mixture(self, done: float) -> Mixture:
        """The texts to learn from when a share of the training is done."""

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train it and write its checkpoint."""
        import torch
        from transformers import AutoTokenizer

        from vivace_methods.models.layer_inputs import layers_of, tapping
        from vivace_methods.models.loading import load_model
        from vivace_methods.speculation.drafters.eagle3_checkpoint import save_drafter
        from vivace_methods.speculation.drafters.eagle3_training import unrolled_losses

        (of_target,) = (needed[each] for each in self.needs)
        target = load_model(of_target)
        tokenizer = AutoTokenizer.from_pretrained(of_target)
        drafter = self._untrained(target)
        matrices = [weights for name, weights in drafter.named_parameters() if _learns_with_muon(name, weights)]
        optimisers = Optimisers(drafter, matrices, steps=steps, muon_rate=0.02, adam_rate=2e-3)
        with tapping(layers_of(target, self.taps)) as tapped:
            for step in range(steps):
                rows = self.mixture(step / steps).batch(step, tokenizer)
                with torch.no_grad():
                    logits = target(rows.ids, use_cache=False).logits
                inputs = [tapped[tap] for tap in drafter.taps]
                losses = unrolled_losses(drafter, rows.ids, inputs, logits, _counted(rows), UNROLLED)
                on_step(step + 1, optimisers.step(step, torch.stack(losses).mean()))
        save_drafter(drafter, folder)

    def _untrained(self, target: Any) -> Any:
        """A new drafter, which begins with the target's own head."""
        from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration

        configuration = new_configuration(target.config, intermediate=self.intermediate, taps=self.taps)
        drafter = Eagle3Drafter(configuration, target.get_input_embeddings())
        drafter.lm_head.load_state_dict(target.lm_head.state_dict())
        return drafter.train()


def _learns_with_muon(name: str, weights: Any) -> bool:
    return weights.ndim == 2 and not name.startswith("lm_head")


def _counted(rows: Rows) -> Any:
    """Whether the token after each one belongs to an answer."""
    return rows.answers.roll(-1, dims=1)
