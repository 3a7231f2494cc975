"""A window's attention in the present layer, and whether its ranking has stopped changing of late (ASL)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from vivace_methods.prefill.parts.selectors import budget
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Ranking, Shown
from vivace_methods.prefill.rankers.window import WindowRanker


@dataclass(frozen=True)
class SettlingRanker(Ranker):
    """The attention of a window, watched for whether its ranking changes from layer to layer.

    Attributes:
        window: tokens that look.
        kernel: neighbours that are averaged, an odd number.
        keep: how much of the prompt counts as highly ranked, as `selectors.budget` has it.
        layers: the latest so many are watched.
        threshold: the ranking has settled where ranks vary by less than this part of what they varied by at first.
    """

    window: int
    kernel: int
    keep: float
    layers: int
    threshold: float

    @property
    def history(self) -> int:
        """All before the first layer that may be taken are watched that can be."""
        return self.layers

    def begin(self, prompt: RankedPrompt) -> SettlingRanking:
        """Nothing is known before the first layer."""
        return SettlingRanking(self, prompt.length)

    def least(self) -> int:
        """The window."""
        return self.window


class SettlingRanking(Ranking):
    """The ranks of the latest layers.

    Args:
        ranker: its settings.
        tokens: of the prompt.
    """

    def __init__(self, ranker: SettlingRanker, tokens: int) -> None:
        self._ranker = ranker
        self._scoring = WindowRanker(window=ranker.window, kernel=ranker.kernel)
        self._high = max(budget(ranker.keep, tokens) - ranker.window, 1)
        self._scores: deque[torch.Tensor] = deque(maxlen=ranker.layers)
        self._first: float | None = None
        self._share = 1.0

    def observe(self, shown: Shown) -> None:
        """Score the layer's tokens, and see how ranks vary over the latest layers."""
        self._scores.append(self._scoring.of_layer(shown))
        if len(self._scores) < self._ranker.layers:
            return
        varied = self.variance()
        if self._first is None:
            self._first = varied
        self._share = varied / self._first if self._first else 0.0

    def variance(self) -> float:
        """Of ranks over the latest layers, the mean over the tokens that are highly ranked in any of these."""
        orders = [scores.argsort(stable=True, descending=True) for scores in self._scores]
        ranks = torch.stack([order.argsort() for order in orders]).double()
        high = (ranks < self._high).any(0)
        return float(ranks[:, high].var(0, unbiased=False).mean())

    @property
    def is_settled(self) -> bool:
        """Whether they vary little enough, beside the first time."""
        return self._share < self._ranker.threshold

    def scores(self) -> torch.Tensor:
        """Of the present layer."""
        return self._scores[-1]
