"""Which tokens go on, by their scores: the best ones, the best stretches, or those above a percentile."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from vivace_kernels.prefill.selection import top_places


def budget(keep: float, tokens: int) -> int:
    """How many of a prompt's tokens are kept, at least 1 and at most all.

    Args:
        keep: up to 1 a share of the tokens, rounded down; above 1 how many.
        tokens: of the prompt.
    """
    wanted = math.floor(keep * tokens + 1e-6) if keep <= 1 else int(keep)
    return min(max(wanted, 1), tokens)


@dataclass(frozen=True)
class Selector(ABC):
    """How tokens are chosen by their scores.

    Attributes:
        first: so many of the first tokens are kept whatever their scores.
        last: so many of the last tokens are, too.
    """

    first: int = 0
    last: int = 0

    def select(self, scores: torch.Tensor, tokens: int, most: int) -> torch.Tensor | None:
        """The tokens that are kept, as ascending indices; None where these are all.

        Args:
            scores: the more, the better, shape (at most `tokens`,); what lies beyond its end is kept anyway.
            tokens: that there are.
            most: how many may be kept. What is kept whatever its score counts, and is kept even where it is more.
        """
        begin, end = self.first, min(scores.shape[0], tokens - self.last)
        if most >= tokens or end <= begin:
            return None
        chosen = self.chosen(scores[begin:end], most - begin - (tokens - end)) + begin
        places = torch.arange(tokens, device=scores.device)
        kept = torch.cat([places[:begin], chosen, places[end:]])
        return kept if kept.shape[0] < tokens else None

    @abstractmethod
    def chosen(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """Ascending indices of what is kept.

        Args:
            scores: shape (tokens,).
            most: how many; none where it is not above 0.
        """


@dataclass(frozen=True)
class TopTokens(Selector):
    """The tokens with the highest scores."""

    def chosen(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """As many as may be."""
        return top_places(scores, min(max(most, 0), scores.shape[0]))


@dataclass(frozen=True)
class TopChunks(Selector):
    """The stretches of tokens with the highest mean score (SpecPrefill).

    Attributes:
        size: of a stretch, in tokens; the last one may be shorter. So many stretches are kept, rounded up, that
            they hold the budget.
    """

    size: int = 32

    def chosen(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """All tokens of the chosen stretches."""
        tokens = scores.shape[0]
        size = min(self.size, tokens)
        chunks = -(-tokens // size)
        filled = torch.nn.functional.pad(scores.float(), (0, chunks * size - tokens))
        sums = filled.view(chunks, size).sum(1)
        counts = torch.full_like(sums, size)
        counts[-1] = tokens - (chunks - 1) * size
        wanted = min(max(math.ceil(chunks * most / tokens), 0), chunks)
        best = top_places(sums / counts, wanted)
        places = (best[:, None] * size + torch.arange(size, device=scores.device)).flatten()
        return places[places < tokens]


@dataclass(frozen=True)
class Evenly(Selector):
    """Tokens at even distances, whatever their scores."""

    def chosen(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """As many as may be, each in the middle of its part."""
        wanted, tokens = min(max(most, 0), scores.shape[0]), scores.shape[0]
        return (2 * torch.arange(wanted, device=scores.device) + 1) * tokens // max(2 * wanted, 1)


@dataclass(frozen=True)
class AbovePercentile(Selector):
    """All tokens whose scores reach the percentile above which the budget lies (LazyLLM); ties are kept."""

    def chosen(self, scores: torch.Tensor, most: int) -> torch.Tensor:
        """At least as many as may be."""
        if most <= 0:
            return torch.arange(0, device=scores.device)
        threshold = scores.topk(min(most, scores.shape[0])).values[-1]
        return (scores >= threshold).nonzero().flatten()
