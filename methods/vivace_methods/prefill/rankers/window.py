"""Tokens are worth what the prompt's last ones attend to, in one layer or in several (FastKV, CLAA, SnapKV)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import torch

from vivace_kernels.prefill.window_scores_cpu import pooled
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Ranking, Shown

Aggregate = Literal["max", "mean", "ranksum"]
Norm = Literal["none", "zscore"]
Heads = Literal["sum", "max"]
PoolOrder = Literal["first", "last"]


@dataclass(frozen=True)
class WindowRanker(Ranker):
    """The attention of a window at the prompt's end, joined over heads and over the latest layers.

    Attributes:
        window: tokens that look.
        offset: tokens between the window and the prompt's end.
        kernel: neighbours that are averaged, an odd number.
        pool: whether each head's scores are averaged with their neighbours `first`, or what is joined in the end.
        norm: whether each head's scores are measured in their own standard deviations before they are joined.
        heads: how key-value heads are joined.
        layers: the latest so many are joined; 1 is the present one alone.
        aggregate: how layers are joined: the highest score, the mean, or the mean of the tokens' ranks.
    """

    window: int = 8
    offset: int = 0
    kernel: int = 7
    pool: PoolOrder = "first"
    norm: Norm = "none"
    heads: Heads = "sum"
    layers: int = 1
    aggregate: Aggregate = "max"

    @property
    def history(self) -> int:
        """The layers that are joined."""
        return self.layers

    def begin(self, prompt: RankedPrompt) -> WindowRanking:
        """Nothing is known before the first layer."""
        return WindowRanking(self)

    def least(self) -> int:
        """The window and what follows it."""
        return self.window + self.offset

    def of_layer(self, shown: Shown) -> torch.Tensor:
        """One layer's scores, shape (tokens that are ranked,)."""
        scores = shown.window_scores(self.window, self.kernel if self.pool == "first" else 1, self.offset)
        if self.norm == "zscore" and scores.shape[-1] > 1:
            mean, deviation = scores.mean(-1, keepdim=True), scores.std(-1, keepdim=True)
            scores = (scores - mean) / (deviation + 1e-8)
        return scores.sum(0) if self.heads == "sum" else scores.amax(0)

    def joined(self, layers: list[torch.Tensor]) -> torch.Tensor:
        """Several layers' scores as one."""
        each = torch.stack(layers)
        if self.aggregate == "max":
            found = each.amax(0)
        elif self.aggregate == "mean":
            found = each.mean(0)
        else:
            found = each.argsort(stable=True).argsort().float().mean(0)
        return pooled(found, self.kernel) if self.pool == "last" else found


class WindowRanking(Ranking):
    """Keeps the scores of the latest layers.

    Args:
        ranker: its settings.
    """

    def __init__(self, ranker: WindowRanker) -> None:
        self._ranker = ranker
        self._latest: deque[torch.Tensor] = deque(maxlen=ranker.layers)

    def observe(self, shown: Shown) -> None:
        """Score the layer's tokens."""
        self._latest.append(self._ranker.of_layer(shown))

    def scores(self) -> torch.Tensor:
        """Of the latest layers, joined."""
        return self._ranker.joined(list(self._latest))

    def pruned(self, kept: torch.Tensor) -> None:
        """Leave out the scores of tokens that are gone."""
        for place, scores in enumerate(self._latest):
            self._latest[place] = scores[kept[kept < scores.shape[0]]]
