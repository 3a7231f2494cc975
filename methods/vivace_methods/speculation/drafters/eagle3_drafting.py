"""How EAGLE-3's layer drafts: on from what the target says of the tokens that stand, and then from its own output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.ledger import Pass
from vivace_methods.protocol import Read
from vivace_methods.speculation.drafters.base import Drafter, Drafting
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, KeysAndValues
from vivace_methods.speculation.trees.growth import Growth, Level, Proposing, draw, grow


class Eagle3Drafting(Drafter):
    """EAGLE-3's layer with a way for its trees to grow.

    Args:
        network: made for the model.
        growth: of the trees.
        drawn: whether chains are drawn where the request draws.
    """

    def __init__(self, network: Eagle3Drafter, growth: Growth, *, drawn: bool = False) -> None:
        self.network, self.growth, self.drawn = network, growth.within(network.config.draft_vocab_size), drawn
        self.taps, self.title = network.taps, network.checkpoint
        self.weights = sum(weights.numel() for weights in network.parameters())

    def start(self, run: Generation, read: Read) -> Drafting:
        """Begin with the features of the prompt."""
        drafting = _Drafting(self, run)
        drafting.stands(read.ids, read.features)
        return drafting


class _Drafting(Drafting):
    """What is kept of verified positions, and what of them the layer has not seen yet."""

    def __init__(self, drafter: Eagle3Drafting, run: Generation) -> None:
        self._drafter, self._run = drafter, run
        self._past: KeysAndValues | None = None
        self._ids: list[torch.Tensor] = []
        self._features: list[torch.Tensor] = []

    def stands(self, ids: torch.Tensor, features: Mapping[int, torch.Tensor]) -> None:
        """Remember them until the next draft."""
        network = self._drafter.network
        self._ids.append(ids)
        self._features.append(network.fuse([features[tap] for tap in network.taps]))

    def draft(self, root: torch.Tensor, most: int) -> Tree:
        """A tree that grows from the layer's output at the latest position."""
        # A feature goes with the token that follows its position.
        follows = torch.cat([*self._ids, root], 1)[:, 1:]
        features = torch.cat(self._features, 1)
        self._ids, self._features = [], []
        out, self._past = self._drafter.network(follows, features, self._past)
        proposing = _Proposing(self._drafter, self._run, out[:, -1:], self._past)
        proposing.record(1)
        if self._drafter.drawn and self._run.chooser.draws:
            return draw(root, min(self._drafter.growth.depth, most), proposing, self._run.chooser)
        return grow(root, self._drafter.growth, proposing, most)


@dataclass
class _Proposing(Proposing):
    """The layer at the nodes of one tree.

    Attributes:
        drafter: with the layer.
        run: the generation.
        out: of the layer at the latest nodes, shape (1, nodes, hidden).
        past: keys and values of verified positions, and of all nodes so far.
    """

    drafter: Eagle3Drafting
    run: Generation
    out: torch.Tensor
    past: KeysAndValues

    def first(self) -> torch.Tensor:
        """By the output at the root."""
        return self.drafter.network.logits(self.out)[0]

    def further(self, level: Level) -> torch.Tensor:
        """By the outputs at the nodes, each of which goes on from its parent's."""
        parents = self.out[:, level.origins]
        if level.in_chain:
            self.out, self.past = self.drafter.network(level.tokens, parents, self.past)
        else:
            verified = self.past.keys.shape[2] - (level.ancestry.shape[1] - level.ancestry.shape[0])
            self.out, self.past = self.drafter.network.side_by_side(
                level.tokens, parents, self.past, level.ancestry, verified + level.depth - 1
            )
        self.record(level.tokens.shape[1])
        return self.drafter.network.logits(self.out)[0]

    def record(self, tokens: int) -> None:
        """Count a pass of the layer; its keys and values are so few that they are left out."""
        self.run.passes.ledger.record_other(Pass("draft", tokens, 0, logits=0, weights=self.drafter.weights))

    def target_ids(self, drafted: torch.Tensor) -> torch.Tensor:
        """By the checkpoint's table."""
        return self.drafter.network.target_ids(drafted)

    def over_target(self, logits: torch.Tensor) -> torch.Tensor:
        """No other token than the draft vocabulary's is ever drafted."""
        ids = self.drafter.network.target_ids(torch.arange(logits.shape[-1], device=logits.device))
        whole = logits.new_full((logits.shape[0], self.drafter.network.config.vocab_size), float("-inf"))
        return whole.index_copy(1, ids, logits)
