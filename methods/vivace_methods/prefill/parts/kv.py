"""Which keys and values of a prompt stay in each layer's cache, beside what the layer has read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from vivace_kernels.prefill.selection import top_places
from vivace_methods.prefill.parts.selectors import budget
from vivace_methods.prefill.rankers.attention_sums import attention_sums
from vivace_methods.prefill.rankers.base import Shown


@dataclass(frozen=True)
class KvPolicy:
    """What stays in the caches.

    Attributes:
        keep: how much of the prompt stays in a layer, as `selectors.budget` has it.
        from_layer: layers before this one keep everything that they have read.
    """

    keep: float = 1.0
    from_layer: int = 0

    def looks_at(self, layer: int) -> bool:
        """Whether it needs a layer's attention to choose."""
        return False

    def kept(self, shown: Shown, prompt: int) -> torch.Tensor | None:
        """What stays of a layer that it looks at, as ascending indices, shape (key-value heads, positions).

        Args:
            shown: the layer's attention.
            prompt: length of the prompt, of which tokens may have gone before this layer.

        Returns:
            None where everything stays.
        """
        return None


@dataclass(frozen=True)
class Everything(KvPolicy):
    """Each layer keeps all that it has read."""


@dataclass(frozen=True)
class Shared(KvPolicy):
    """From a layer on, all layers keep those tokens alone that the prompt was pruned to: one set for all."""


@dataclass(frozen=True)
class _OwnHeads(KvPolicy, ABC):
    """From a layer on, each key-value head keeps the tokens with its own highest scores."""

    def looks_at(self, layer: int) -> bool:
        """All from that layer on."""
        return layer >= self.from_layer

    def kept(self, shown: Shown, prompt: int) -> torch.Tensor | None:
        """Each head's own choice."""
        most, tokens = budget(self.keep, prompt), shown.tokens
        if most >= tokens:
            return None
        scores = self.scores(shown, most)
        ranked = scores.shape[-1]
        if ranked <= 0:
            return None
        return top_places(scores, min(max(most - (tokens - ranked), 0), ranked), tokens - ranked)

    @abstractmethod
    def scores(self, shown: Shown, most: int) -> torch.Tensor:
        """Of tokens up to those that stay anyway, shape (key-value heads, tokens).

        Args:
            shown: the layer's attention.
            most: how many tokens may stay.
        """


@dataclass(frozen=True)
class OwnWindow(_OwnHeads):
    """Each key-value head keeps what its own window at the prompt's end attends to (SnapKV, FastKV, CLAA).

    Attributes:
        window: tokens that look, and stay.
        offset: tokens after the window, which stay too.
        kernel: neighbours that are averaged, an odd number.
    """

    window: int = 8
    offset: int = 0
    kernel: int = 7

    def scores(self, shown: Shown, most: int) -> torch.Tensor:
        """The window's attention."""
        if shown.tokens <= self.window + self.offset:
            return shown.keys.new_empty(shown.keys.shape[1], 0)
        return shown.window_scores(self.window, self.kernel, self.offset)


@dataclass(frozen=True)
class HeavyHitters(_OwnHeads):
    """Each key-value head keeps what all tokens together attend to most, and as many of the latest tokens (H2O)."""

    def scores(self, shown: Shown, most: int) -> torch.Tensor:
        """The attention of all tokens, on all but the latest half of those that stay."""
        sums = attention_sums(shown.queries, shown.keys, shown.scaling)
        return sums[:, : shown.tokens - most // 2]
