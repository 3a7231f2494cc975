"""Tokens are worth what the prompt's last one asks for: products in a pass of their own, or attention on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vivace_kernels.prefill.window_scores_cpu import pooled
from vivace_methods.prefill.rankers.answer import Fixed
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Ranking, Shown


@dataclass(frozen=True)
class LastQueryRanker(Ranker):
    """Raw products of the last token's query with all keys in one layer, summed over heads, found by a pass up to it.

    Attributes:
        layer: from 0.
        kernel: neighbours that are averaged, an odd number.
    """

    layer: int
    kernel: int = 5

    def begin(self, prompt: RankedPrompt) -> Fixed:
        """Run the model up to that layer."""
        found: list[torch.Tensor] = []

        def show(shown: Shown) -> None:
            if shown.layer == self.layer:
                found.append(self.of_layer(shown))

        prompt.ask(show, last_layer=self.layer)
        return Fixed(found[0])

    def of_layer(self, shown: Shown) -> torch.Tensor:
        """One layer's scores, shape (tokens,)."""
        keys = shown.keys[0].float()
        queries = shown.queries[0, :, -1].float().view(keys.shape[0], -1, keys.shape[-1])
        return pooled((queries.sum(1, keepdim=True) @ keys.transpose(1, 2)).sum((0, 1)), self.kernel)


@dataclass(frozen=True)
class LastTokenRanker(Ranker):
    """The attention of the prompt's last token, in the present layer, as a mean over heads (LazyLLM)."""

    @property
    def history(self) -> int:
        """The present layer."""
        return 1

    def begin(self, prompt: RankedPrompt) -> LastTokenRanking:
        """Nothing is known before the first layer."""
        return LastTokenRanking()

    def least(self) -> int:
        """The last token."""
        return 1


class LastTokenRanking(Ranking):
    """The latest layer's scores."""

    _latest: torch.Tensor

    def observe(self, shown: Shown) -> None:
        """Score the layer's tokens."""
        self._latest = shown.window_scores(1).sum(0) / shown.queries.shape[1]

    def scores(self) -> torch.Tensor:
        """Of the latest layer."""
        return self._latest
