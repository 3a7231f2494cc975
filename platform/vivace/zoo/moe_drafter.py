"""The EAGLE-3 drafter of the zoo's mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vivace.zoo.base import OnStep, Recipe
from vivace.zoo.moe import DOMAINS
from vivace.zoo.training import Mixture, Optimisers, Rows

UNROLLED = 4
"""Steps that the drafter goes on from its own output in training."""
TAPS = (1, 2, 3)
"""Layers of the target that it reads: EAGLE-3's own choice would name two layers of four, one of them twice."""


@dataclass(frozen=True)
class MixtureOfExpertsDrafter(Recipe):
    """One layer that drafts what `zoo:moe` writes, trained as EAGLE-3 trains its drafters.

    The target reads the texts that it was trained on, whose answers are those it gives, and the drafter learns the
    target's distribution at every token of them.
    """

    name: ClassVar[str] = "moe-drafter"
    steps: ClassVar[int] = 500
    needs: ClassVar[tuple[str, ...]] = ("moe",)

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train it and write its checkpoint."""
        import torch
        from transformers import AutoTokenizer

        from vivace_methods.models.loading import load_model
        from vivace_methods.speculation.eagle3 import tapping
        from vivace_methods.speculation.eagle3_drafter import save_drafter
        from vivace_methods.speculation.eagle3_training import unrolled_losses

        target = load_model(needed["moe"])
        tokenizer = AutoTokenizer.from_pretrained(needed["moe"])
        mixture = Mixture(DOMAINS, self.seed)
        drafter = _drafter(target)
        matrices = [weights for name, weights in drafter.named_parameters() if _learns_with_muon(name, weights)]
        optimisers = Optimisers(drafter, matrices, steps=steps, muon_rate=0.02, adam_rate=2e-3)
        with tapping(target, TAPS) as tapped:
            for step in range(steps):
                rows = mixture.batch(step, tokenizer)
                with torch.no_grad():
                    logits = target(rows.ids, use_cache=False).logits
                inputs = [tapped[tap] for tap in drafter.taps]
                losses = unrolled_losses(drafter, rows.ids, inputs, logits, _counted(rows), UNROLLED)
                on_step(step + 1, optimisers.step(step, torch.stack(losses).mean()))
        save_drafter(drafter, folder)


def _drafter(target: Any) -> Any:
    """A new drafter, which begins with the target's own head."""
    from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter, new_configuration

    drafter = Eagle3Drafter(
        new_configuration(target.config, intermediate=384, taps=TAPS), target.get_input_embeddings()
    )
    drafter.lm_head.load_state_dict(target.lm_head.state_dict())
    return drafter.train()


def _learns_with_muon(name: str, weights: Any) -> bool:
    return weights.ndim == 2 and not name.startswith("lm_head")


def _counted(rows: Rows) -> Any:
    """Whether the token after each one belongs to an answer."""
    return rows.answers.roll(-1, dims=1)
