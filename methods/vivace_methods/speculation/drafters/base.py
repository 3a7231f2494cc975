"""What proposes tokens for a model to verify: a drafter, and its state during one generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.trees import Tree
from vivace_methods.protocol import Read


class Drafter(ABC):
    """Proposes what a model may write next.

    Attributes:
        taps: layers of the model whose inputs it reads.
        weights: that one of its passes reads.
        title: of what was loaded, as it stands beside results; empty where nothing was.
    """

    taps: tuple[int, ...] = ()
    weights: int = 0
    title: str = ""

    def ready(self) -> AbstractContextManager[None]:
        """What it needs as long as it may draft: kernels of its own."""
        return nullcontext()

    @abstractmethod
    def start(self, run: Generation, read: Read) -> Drafting:
        """Begin a generation.

        Args:
            run: the generation.
            read: what is known of the prompt.
        """


class Drafting(ABC):
    """A drafter during one generation."""

    @abstractmethod
    def draft(self, root: torch.Tensor, most: int) -> Tree:
        """What may follow.

        Args:
            root: the latest token that is written, shape (1, 1).
            most: depth of the tree at most, at least 1.
        """

    def stands(self, ids: torch.Tensor, features: Mapping[int, torch.Tensor]) -> None:  # noqa: B027 (some keep nothing)
        """Take up what the model has verified since; it comes before the next root.

        Args:
            ids: of the positions that stand of the latest pass, its root first, shape (1, positions).
            features: layer → its input at these positions, shape (1, positions, hidden).
        """
