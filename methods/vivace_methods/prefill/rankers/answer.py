"""Tokens are worth what an answer attends to: the model's own, a given one, or the beginning of a smaller model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vivace_kernels.prefill.window_scores_cpu import pooled
from vivace_methods.prefill.rankers.base import Asking, RankedPrompt, Ranker, Ranking, Shown

AnswerPool = Literal["first", "last"]
Given = Callable[[torch.Tensor | None], Sequence[int] | None]
"""Gives the answer to a prompt's ids, shape (1, tokens); None where it knows none."""


class AnswerAttention:
    """How much each token of a prompt is attended to by an answer: the mean over the answer of its highest attention.

    Nothing but a row for the prompt's tokens is kept, however many layers, heads and tokens of an answer there are.

    Args:
        tokens: of the prompt.
        kernel: neighbours that are averaged.
        pool: whether each head's attention is averaged with its neighbours `first`, or the result in the end.
        device: of the model.
    """

    def __init__(self, tokens: int, kernel: int, pool: AnswerPool, device: torch.device) -> None:
        self._tokens, self._kernel, self._pool = tokens, kernel, pool
        self._highest = torch.zeros(tokens, device=device)
        self._sum = torch.zeros(tokens, device=device)
        self._queries = 0

    def show(self, shown: Shown) -> None:
        """One layer's attention from the latest token to the prompt, as if there were nothing but the prompt."""
        seen = shown.highest(self._tokens, self._kernel if self._pool == "first" else 1)
        torch.maximum(self._highest, seen, out=self._highest)

    def next(self) -> None:
        """All layers of a token were shown."""
        self._sum += self._highest
        self._highest.zero_()
        self._queries += 1

    def scores(self) -> torch.Tensor:
        """Of each token of the prompt, shape (tokens,)."""
        mean = self._sum / self._queries
        return pooled(mean, self._kernel) if self._pool == "last" else mean


def answer_attention(
    ask: Asking, found: AnswerAttention, most: int, ends: frozenset[int], given: Sequence[int] | None, cache: object
) -> torch.Tensor:
    """Read a prompt, write an answer behind it, and see what it attends to.

    The prompt's last token looks first, then each token of the answer but the last.

    Args:
        ask: runs the model over the prompt and on.
        found: takes up what is seen.
        most: tokens of the answer.
        ends: tokens that end it.
        given: the answer; None for the one that the model itself writes greedily.
        cache: an empty one, of the model.

    Returns:
        Scores, shape (tokens of the prompt,).
    """
    logits = ask(found.show, cache=cache)
    found.next()
    for place in range((most if given is None else len(given)) - 1):
        token = int(logits.argmax(-1)) if given is None else given[place]
        if given is None and token in ends:
            break
        logits = ask(found.show, cache=cache, ids=torch.tensor([[token]], device=logits.device))
        found.next()
    return found.scores()


@dataclass(frozen=True)
class AnswerRanker(Ranker):
    """What the model's own whole answer attends to (the answer-informed oracle).

    Attributes:
        window: last tokens of the prompt that are kept whatever they are worth.
        kernel: neighbours that are averaged, an odd number.
        pool: whether each head's attention is averaged with its neighbours `first`, or the result in the end.
        most: tokens of the answer that the model writes.
        given: gives answers in place of the model's own; None leaves them to the model.
    """

    window: int = 8
    kernel: int = 7
    pool: AnswerPool = "first"
    most: int = 256
    given: Given | None = None

    def begin(self, prompt: RankedPrompt) -> Fixed:
        """Let the model answer, and see what it attends to."""
        from transformers import DynamicCache

        answer = None if self.given is None else self.given(prompt.ids)
        found = AnswerAttention(prompt.length, self.kernel, self.pool, prompt.device)
        cache = DynamicCache(config=prompt.config)
        scores = answer_attention(prompt.ask, found, self.most, prompt.ends, answer, cache)
        return Fixed(scores[: prompt.length - self.window])

    def least(self) -> int:
        """The window."""
        return self.window


@dataclass
class Fixed(Ranking):
    """Scores that are known before the first layer.

    Attributes:
        known: shape (tokens that are ranked,).
    """

    known: torch.Tensor

    def scores(self) -> torch.Tensor:
        """What is known."""
        return self.known

    def pruned(self, kept: torch.Tensor) -> None:
        """Leave out the scores of tokens that are gone."""
        self.known = self.known[kept[kept < self.known.shape[0]]]
