"""Drafted tokens as a tree: each follows another one, and one pass of the model looks at all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Tree:
    """Tokens that may follow what is written; a chain is a tree without branches.

    Attributes:
        tokens: ids, the latest token that is written at the root before them, shape (1, nodes).
        parents: of each node, the node that it follows, which stands before it; -1 of the root. Tokens that follow
            the same node differ.
        logs: logarithms of the probability that the drafter gives to the path down to each node, shape (nodes,), on
            the processor; 0 of the root. None where the drafter gives none.
        odds: of each node but the root, the distribution over the model's vocabulary from which it was drawn, shape
            (nodes - 1, vocabulary); None where drafts are proposed for certain. Drawn drafts are chains.
    """

    tokens: torch.Tensor
    parents: tuple[int, ...]
    logs: torch.Tensor | None = None
    odds: torch.Tensor | None = None

    @classmethod
    def chain(cls, tokens: torch.Tensor, odds: torch.Tensor | None = None) -> Tree:
        """Tokens of which each follows the one before.

        Args:
            tokens: the root and the drafts, shape (1, nodes).
            odds: as the class has them.
        """
        return cls(tokens, tuple(range(-1, tokens.shape[1] - 1)), odds=odds)

    def __len__(self) -> int:
        """Nodes, the root among them: the tokens of a verifying pass."""
        return len(self.parents)

    @property
    def is_chain(self) -> bool:
        """Whether each node follows the one before it."""
        return self.parents == tuple(range(-1, len(self) - 1))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Of each node, from 0 at the root."""
        found: list[int] = []
        for parent in self.parents:
            found.append(found[parent] + 1 if parent >= 0 else 0)
        return tuple(found)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each node, the nodes that follow it."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[parent].append(node)
        return tuple(map(tuple, found))

    @cached_property
    def ancestry(self) -> torch.Tensor:
        """Whether a node (row) stands on another (column) or is that node, shape (nodes, nodes), on the processor."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    def part(self, nodes: Sequence[int]) -> Tree:
        """The tree of some nodes.

        Args:
            nodes: ascending, the root among them, and with each node all that it stands on.
        """
        if len(nodes) == len(self):
            return self
        place = {node: number for number, node in enumerate(nodes)}
        parents = tuple(place[self.parents[node]] if node else -1 for node in nodes)
        index = torch.tensor(nodes)
        logs = None if self.logs is None else self.logs[index]
        odds = None if self.odds is None else self.odds[index[1:] - 1]
        return Tree(self.tokens[:, index.to(self.tokens.device)], parents, logs, odds)


@dataclass(frozen=True)
class Stands:
    """What stands of a tree that was verified.

    Attributes:
        nodes: from the root on, each following the one before.
        tokens: those of the nodes but the root, and one of the model's own after them, shape (1, nodes).
    """

    nodes: tuple[int, ...]
    tokens: torch.Tensor
