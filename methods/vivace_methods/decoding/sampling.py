"""How tokens are chosen: the likeliest, one that is drawn, or one that is given; also along a tree of drafted ones.

Drafts are judged so that what is written is distributed as if nothing had been drafted. At each node the model's own
token is chosen as it would be without drafts; where a draft says the same it stands, and its node is the next. A
draft that a drafter proposes for certain thereby stands with the probability that the model gives it, and where all
fall, what is written comes from what is left: the rule of Leviathan et al. (arXiv 2211.17192, section 2.3) for a
drafter that is certain, and its extension to several candidates (Miao et al., arXiv 2305.09781, section 4.3). Drafts
that were themselves drawn are judged by that rule in its general form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from vivace_methods.decoding.trees import Stands, Tree
from vivace_methods.requests import Sampling


class Chooser(ABC):
    """Chooses the tokens of one generation, in order."""

    draws = False
    """Whether tokens are drawn, so that drafts may be, too."""

    @abstractmethod
    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token, shape (1, 1).

        Args:
            logits: shape (1, vocabulary).
        """

    def verified(self, logits: torch.Tensor, tree: Tree) -> Stands:
        """The drafted tokens that stand, and one of the model's own after them.

        Args:
            logits: of what follows each node, shape (1, nodes, vocabulary).
            tree: the drafts.
        """
        nodes, tokens = [0], list[torch.Tensor]()
        drafted = tree.tokens[0].tolist()
        while True:
            tokens.append(self.next(logits[:, nodes[-1]]))
            own = tokens[-1].flatten().tolist()
            following = [node for node in tree.children[nodes[-1]] if [drafted[node]] == own]
            if not following:
                return Stands(tuple(nodes), torch.cat(tokens, 1))
            nodes += following

    def drawn(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A token that a drafter draws, shape (1, 1), and the distribution it comes from, shape (1, vocabulary).

        Args:
            logits: of the drafter, over the model's vocabulary, shape (1, vocabulary).
        """
        raise NotImplementedError("These tokens are not drawn.")


class Greedy(Chooser):
    """The likeliest token each time."""

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest."""
        return logits.argmax(-1, keepdim=True)

    def verified(self, logits: torch.Tensor, tree: Tree) -> Stands:
        """Drafts stand as long as they are the likeliest; the device is asked once for all nodes."""
        own = logits.argmax(-1)
        drafted, likeliest = torch.cat([tree.tokens, own]).tolist()
        nodes = [0]
        while following := [node for node in tree.children[nodes[-1]] if drafted[node] == likeliest[nodes[-1]]]:
            nodes += following
        return Stands(tuple(nodes), own[:, nodes])


class Sampled(Chooser):
    """Tokens drawn from the model's distribution, made sharper and cut.

    Args:
        sampling: with a temperature above 0.
        device: of the logits.
    """

    draws = True

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._chance = torch.Generator(device).manual_seed(sampling.seed)

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """One that is drawn."""
        return self._from(probabilities(logits, self._sampling))

    def verified(self, logits: torch.Tensor, tree: Tree) -> Stands:
        """Drafts stand where they are drawn again; drafts that were drawn themselves, by the ratio of their odds."""
        return super().verified(logits, tree) if tree.odds is None else self._of_drawn(logits, tree, tree.odds)

    def drawn(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A drafter's token, drawn as the request has it."""
        odds = probabilities(logits, self._sampling)
        return self._from(odds), odds

    def _from(self, odds: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(odds, 1, generator=self._chance)

    def _of_drawn(self, logits: torch.Tensor, chain: Tree, of_drafter: torch.Tensor) -> Stands:
        """A draft stands with min(1, p / q); in place of the first that falls comes one from what p has above q."""
        odds = probabilities(logits[0], self._sampling)
        drafts, count = chain.tokens[:, 1:], len(chain) - 1
        p, q = (each[:count].gather(1, drafts.T).flatten() for each in (odds, of_drafter))
        drawn = torch.rand(p.shape, generator=self._chance, device=odds.device)
        right = int((drawn * q < p).cumprod(0).sum())
        left = odds[right]
        if right < count:
            above = (left - of_drafter[right]).clamp(min=0)
            left = above if float(above.sum()) > 0 else left  # equal but for roundings, and yet it fell
        tokens = torch.cat([drafts[:, :right], self._from(left[None])], 1)
        return Stands(tuple(range(right + 1)), tokens)


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
        """The next that is given; none where there is none left."""
        following = self._answer[:, self._place : self._place + 1]
        if following.numel():
            self.logits.append(logits.clone())  # what a CUDA graph gives is overwritten by its next step
            self._place += 1
        return following


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
