"""What a ranker is: settings that begin a ranking of one prompt's tokens, which looks at layers and gives scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch

from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_methods.models.ledger import Pass


class Shown:
    """One layer's attention over the tokens that went through it, as it is shown before it is computed.

    Attributes:
        layer: from 0.
        queries: rotated, shape (1, heads, tokens of this pass, width).
        keys: rotated, shape (1, key-value heads, tokens, width).
        scaling: of their products.
    """

    def __init__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, scaling: float) -> None:
        self.layer, self.queries, self.keys, self.scaling = layer, queries, keys, scaling
        self._window_scores = cache(self._scores_of_window)

    @property
    def tokens(self) -> int:
        """How many keys there are."""
        return int(self.keys.shape[2])

    def window_scores(self, window: int, kernel: int = 1, offset: int = 0) -> torch.Tensor:
        """Attention of a window at the end, summed over it and over the heads that share keys.

        Several may ask for the same, and it is computed once.

        Args:
            window: tokens that look; they get no score.
            kernel: neighbours that are averaged, an odd number.
            offset: tokens after the window, which neither look nor get a score.

        Returns:
            Shape (key-value heads, tokens before the window), in 32 bits.
        """
        return self._window_scores(window, kernel, offset)

    def _scores_of_window(self, window: int, kernel: int, offset: int) -> torch.Tensor:
        end = self.tokens - offset
        scoring = Scoring("sum", kernel, scale=self.scaling)
        return window_scores(self.queries[0, :, end - window : end], self.keys[0, :, :end], scoring)

    def highest(self, tokens: int, kernel: int = 1) -> torch.Tensor:
        """The highest attention that the last query pays to each token in any head, among some tokens alone.

        Args:
            tokens: the first so many.
            kernel: neighbours over which each head's attention is averaged before.

        Returns:
            Shape (tokens,), in 32 bits.
        """
        scoring = Scoring("max", kernel, keep_window=True, scale=self.scaling)
        return window_scores(self.queries[0, :, -1:], self.keys[0, :, :tokens], scoring).amax(0)


Show = Callable[[Shown], Any]
"""Called with the attention of one layer after the other."""


class Asking(Protocol):
    """Runs the model over the prompt for a ranker, outside of the pass that is pruned."""

    def __call__(self, show: Show, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
        """One pass over the prompt, or over tokens that follow it; the model is as it is without the method.

        Args:
            show: called at every layer.
            last_layer: where to stop, before its attention is computed; None goes through all layers.
            cache: of keys and values; None where nothing is to be kept.
            ids: in place of the prompt: tokens that follow what is in the cache, shape (1, tokens).

        Returns:
            Logits of the last token, shape (1, vocabulary); None where the pass was stopped.
        """


@dataclass(frozen=True)
class RankedPrompt:
    """The prompt whose tokens are ranked.

    Attributes:
        length: in tokens.
        layers: of the model.
        ids: shape (1, tokens); None where the model was given embeddings alone.
        ask: runs the model over it.
        tell: a ledger of passes that other models run for it.
        device: of the model.
        ends: tokens that end an answer.
        config: of the text decoder.
    """

    length: int
    layers: int
    ids: torch.Tensor | None
    ask: Asking
    tell: Callable[[Pass], None]
    device: torch.device
    ends: frozenset[int]
    config: Any


class Ranking(ABC):
    """The ranking of one prompt's tokens, under way."""

    def observe(self, shown: Shown) -> None:  # noqa: B027 (some rankings need no layer)
        """Look at a layer; layers come in order, the latest `Ranker.history` before each pruning among them."""

    @property
    def is_settled(self) -> bool:
        """Whether scores are ready to be pruned by, where the plan leaves the layer to the ranking."""
        return True

    @abstractmethod
    def scores(self) -> torch.Tensor:
        """What tokens are worth, the more the higher, shape (tokens,); those beyond its end are to be kept anyway."""

    def pruned(self, kept: torch.Tensor) -> None:  # noqa: B027 (most rankings end where the prompt is pruned)
        """Go on with fewer tokens.

        Args:
            kept: indices of those that were there until now, ascending, shape (tokens,).
        """


class Ranker(ABC):
    """Settings of a ranking; a subclass is a frozen dataclass of them."""

    @property
    def history(self) -> int:
        """How many layers its scores are made of, the present one and those before it; 0 where it looks at none."""
        return 0

    @abstractmethod
    def begin(self, prompt: RankedPrompt) -> Ranking:
        """The ranking of one prompt's tokens; whatever of it needs passes of its own is done here."""

    def least(self) -> int:
        """The last tokens of a prompt that it never scores: shorter prompts have nothing to be ranked."""
        return 0
