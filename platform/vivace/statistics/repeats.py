"""Where does a score's noise come from? Its variance split between conversations and replies to the same one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class VarianceSplit:
    """The two components of a pass rate's variance, by the one-way random effects model y_ij = μ + c_i + e_ij."""

    between: float
    """Variance of the conversations' own pass rates: what other conversations would change."""
    within: float
    """Variance of one reply's outcome around its conversation's pass rate: what another try would change."""
    conversations: int
    """Conversations with a wholly scored reply."""
    replies: int
    """Wholly scored replies to them."""

    @property
    def between_error(self) -> float:
        """The standard error of APR that the choice of conversations contributes."""
        return math.sqrt(self.between / self.conversations)

    @property
    def within_error(self) -> float:
        """The standard error of APR that the choice of replies contributes."""
        return math.sqrt(self.within / self.replies)


def variance_split(clusters: Sequence[tuple[int, int]]) -> VarianceSplit | None:
    """The components by analysis of variance (Searle, Casella & McCulloch 1992, section 3.6).

    With n conversations of k_i replies, N in all: within = MSW, between = max(0, (MSB − MSW) / k₀) with
    k₀ = (N − Σ k_i² / N) / (n − 1). A between of 0 says that the conversations differ no more than the replies
    to one of them do. None where nothing can be split: fewer than two conversations, or one reply to each.

    Args:
        clusters: (passes, wholly scored replies) of each conversation; those without a reply do not count.
    """
    tried = [(passes, replies) for passes, replies in clusters if replies > 0]
    n, total = len(tried), sum(replies for _, replies in tried)
    if n < 2 or total == n:
        return None
    mean = sum(passes for passes, _ in tried) / total
    # Of outcomes 0 and 1, the squares around a conversation's rate p are k·p·(1 − p).
    within = sum(passes * (replies - passes) / replies for passes, replies in tried) / (total - n)
    spread = sum(replies * (passes / replies - mean) ** 2 for passes, replies in tried) / (n - 1)
    size = (total - sum(replies**2 for _, replies in tried) / total) / (n - 1)
    return VarianceSplit(max(0.0, (spread - within) / size), within, n, total)
