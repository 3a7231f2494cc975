"""What a zoo model is: a recipe that trains it from a seed in a fixed number of steps, and where it lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

OnStep = Callable[[int, float], None]
"""Called after each training step with its number, from 1, and its loss."""


@dataclass(frozen=True)
class TrainingRecipe(ABC):
    """How one model of the zoo is made. One recipe, one file.

    A subclass's docstring says what the model is for, and what was tried that did not work.

    Attributes:
        seed: of the weights and of the training data.
    """

    name: ClassVar[str]
    """As `zoo:NAME` and `vivace models build NAME` write it."""
    steps: ClassVar[int]
    """Of a whole training. Steps are fixed, never seconds: so the same machine gives the same bytes."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Zoo models that must be built before it: the target of a drafter."""

    seed: int = 0

    @abstractmethod
    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train the model and write its checkpoint: `config.json`, bf16 safetensors and, for language models, the
        tokenizer's files.

        Torch is at one thread and in deterministic mode while it runs; the caller sees to that.

        Args:
            folder: an empty folder.
            needed: the folders of the models in `needs`.
            steps: of training; fewer than `self.steps` only to try the recipe out. The schedule of the learning rate
                is laid over these steps.
            on_step: told of each step.
        """
