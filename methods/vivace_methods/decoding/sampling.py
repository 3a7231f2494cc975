"""How tokens are chosen: the likeliest, one that is drawn, or one that is given; also among drafted ones.

Drafts are judged so that what is written is distributed as if nothing had been drafted (Leviathan et al., arXiv
2211.17192, section 2.3). A drafter here proposes one token for certain, which stands with the probability that the
model gives it; where it falls, the token is drawn from what is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from vivace_methods.requests import Sampling


class Chooser(ABC):
    """Chooses the tokens of one generation, in order."""

    @abstractmethod
    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token, shape (1, 1).

        Args:
            logits: shape (1, vocabulary).
        """

    @abstractmethod
    def verified(self, logits: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """The drafted tokens that stand, and one of the model's own after them, shape (1, 1 to drafts + 1).

        Args:
            logits: from which each draft, and a token after the last, would have been chosen, shape
                (1, drafts + 1, vocabulary).
            drafts: token ids, each following the one before, shape (1, drafts).
        """


class Greedy(Chooser):
    """The likeliest token each time."""

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest."""
        return logits.argmax(-1, keepdim=True)

    def verified(self, logits: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """Drafts stand as long as they are the likeliest."""
        own = logits.argmax(-1)
        right = int((own[:, :-1] == drafts).cumprod(1).sum())
        return own[:, : right + 1]


class Sampled(Chooser):
    """Tokens drawn from the model's distribution, made sharper and cut.

    Args:
        sampling: with a temperature above 0.
        device: of the logits.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._chance = torch.Generator(device).manual_seed(sampling.seed)

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """One that is drawn."""
        return torch.multinomial(probabilities(logits, self._sampling), 1, generator=self._chance)

    def verified(self, logits: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """Each draft stands with its probability; in place of the first that falls another token is drawn."""
        odds = probabilities(logits[0], self._sampling)
        count = drafts.shape[1]
        of_drafts = odds[:count].gather(1, drafts.T).T
        drawn = torch.rand(of_drafts.shape, generator=self._chance, device=odds.device)
        right = int((drawn < of_drafts).cumprod(1).sum())
        left = odds[right].clone()
        if right < count:
            left[drafts[0, right]] = 0.0
        own = torch.multinomial(left[None], 1, generator=self._chance)
        return torch.cat([drafts[:, :right], own], 1)


class Forced(Chooser):
    """Tokens that are given, whatever the model thinks, which is remembered.

    Args:
        answer: token ids.
        device: of the logits.
    """

    def __init__(self, answer: Sequence[int], device: torch.device) -> None:
        self._answer = torch.tensor([list(answer)], device=device)
        self._place = 0
        self.logits: list[torch.Tensor] = []
        """Those from which each token so far would have been chosen, each of shape (tokens, vocabulary)."""

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The next that is given."""
        self.logits.append(logits.clone())  # what a CUDA graph gives is overwritten by its next step
        self._place += 1
        return self._answer[:, self._place - 1 : self._place]

    def verified(self, logits: torch.Tensor, drafts: torch.Tensor) -> torch.Tensor:
        """Drafts stand as long as they are what is given."""
        given = self._answer[:, self._place : self._place + drafts.shape[1] + 1]
        alike = min(given.shape[1], drafts.shape[1])
        right = int((given[:, :alike] == drafts[:, :alike]).cumprod(1).sum())
        stands = given[:, : right + 1]
        self.logits.append(logits[0, : stands.shape[1]].clone())
        self._place += stands.shape[1]
        return stands


def chooser_of(sampling: Sampling, device: torch.device) -> Chooser:
    """What chooses the tokens of a request."""
    return Greedy() if sampling.temperature == 0 else Sampled(sampling, device)


def probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What tokens are drawn from, shape (rows, vocabulary), in 32 bits; each row sums to 1.

    Args:
        logits: shape (rows, vocabulary).
        sampling: with a temperature above 0. Of the tokens in falling order, those stand before which less than
            `top_p` has been gathered.
    """
    odds = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        falling, places = odds.sort(-1, descending=True)
        falling = falling.masked_fill(falling.cumsum(-1) - falling >= sampling.top_p, 0.0)
        odds = torch.zeros_like(odds).scatter(-1, places, falling)
        odds = odds / odds.sum(-1, keepdim=True)
    return odds
