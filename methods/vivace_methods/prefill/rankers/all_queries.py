"""Tokens are worth what the last part of the prompt attends to, its later tokens counting more (PyramidInfer)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vivace_methods.prefill.rankers.attention_sums import attention_sums
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Ranking, Shown


@dataclass(frozen=True)
class RecentPartRanker(Ranker):
    """The attention of a last part of the tokens in the present layer, as a weighted mean over them and over heads.

    Attributes:
        part: of the tokens that there are, rounded up, above 0 and up to 1; they themselves always go on.
        latest: how much the very last counts, where the first of them counts 1.
    """

    part: float = 0.2
    latest: float = 1.2

    @property
    def history(self) -> int:
        """The present layer."""
        return 1

    def begin(self, prompt: RankedPrompt) -> RecentPartRanking:
        """Nothing is known before the first layer."""
        return RecentPartRanking(self, math.ceil(self.part * prompt.length))

    def least(self) -> int:
        """At least one token looks."""
        return 1


class RecentPartRanking(Ranking):
    """The latest layer's scores.

    Args:
        ranker: its settings.
        looking: tokens that look, at most.
    """

    _latest: torch.Tensor

    def __init__(self, ranker: RecentPartRanker, looking: int) -> None:
        self._ranker, self._most = ranker, looking

    def observe(self, shown: Shown) -> None:
        """Score the layer's tokens; of fewer tokens, as large a part looks."""
        looking = min(self._most, math.ceil(self._ranker.part * shown.tokens))
        weights = torch.linspace(1.0, self._ranker.latest, looking, device=shown.keys.device)
        queries = shown.queries[:, :, -looking:]
        sums = attention_sums(queries, shown.keys, shown.scaling, weights).sum(0)
        self._latest = sums[: shown.tokens - looking] / (weights.sum() * shown.queries.shape[1])

    def scores(self) -> torch.Tensor:
        """Of the latest layer."""
        return self._latest
