"""What a model is asked: a prompt, as ids or as embeddings, how far to answer it, and how tokens are chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vivace_methods.errors import MethodError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen from what the model thinks of them.

    Attributes:
        temperature: 0 takes the likeliest token; otherwise logits are divided by it before one is drawn.
        top_p: tokens are drawn from the fewest whose probabilities sum to this; 1 is all.
        seed: of the draws; the same seed gives the same tokens on the same machine.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise MethodError(f"A temperature must be a number of at least 0, and {self.temperature} is not.")
        if not 0 < self.top_p <= 1:
            raise MethodError(f"top_p must be above 0 and at most 1, and {self.top_p} is not.")


GREEDY = Sampling()


@dataclass(frozen=True)
class Embedded:
    """A prompt as embeddings, as audio models make them: sound and text in one row.

    Attributes:
        embeddings: what goes into the first layer, shape (1, prompt length, hidden).
        mask: 1 where a position counts, 0 where it is padding, shape (1, prompt length); None where all count.
        positions: of each for the rotary embedding, shape (1, prompt length); None for 0, 1, 2 and so on.
    """

    embeddings: torch.Tensor
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None


@dataclass(frozen=True)
class Request:
    """One prompt and how far to answer it.

    Attributes:
        prompt: token ids, shape (1, prompt length), on the model's device.
        most_tokens: the most tokens to generate; all of them where `end_tokens` is empty.
        end_tokens: ids after which to stop; the last token of the answer is one of them.
        sampling: how tokens are chosen; greedily by default.
        evidence: places in the prompt of tokens that hold what the answer needs, where they are known: for what is
            shown of a generation, and never for a method to read by.
        embedded: what the model is given in place of the ids, position by position; None for the ids' own embeddings.
    """

    prompt: torch.Tensor
    most_tokens: int
    end_tokens: frozenset[int] = frozenset()
    sampling: Sampling = GREEDY
    embedded: Embedded | None = None
    evidence: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.embedded is not None and self.embedded.embeddings.shape[1] != self.prompt.shape[1]:
            ids, embeddings = self.prompt.shape[1], self.embedded.embeddings.shape[1]
            raise MethodError(
                f"The prompt has {ids} token ids and {embeddings} embeddings: each position needs both, with any id "
                "where there is sound."
            )
