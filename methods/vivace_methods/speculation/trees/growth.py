"""How a tree of drafts grows, a level at a time, from what a drafter says of the tokens that may follow each node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from vivace_methods.decoding.sampling import Chooser
from vivace_methods.decoding.trees import Tree
from vivace_methods.speculation.trees.settings import TreeSettings


@dataclass(frozen=True)
class Level:
    """Nodes of one depth that a drafter is to look at together.

    Attributes:
        tokens: ids, shape (1, nodes).
        origins: the row of the level before in which each node's parent stands, shape (nodes,).
        ancestry: whether a node stands on a node that was looked at, or is it, shape (nodes, nodes of all levels so
            far); the root, which the drafter has looked at with what is written, is not among them.
        depth: of the nodes; 1 of those that follow the root.
        in_chain: whether the tree is a chain, so that each node stands on all before it.
    """

    tokens: torch.Tensor
    origins: torch.Tensor
    ancestry: torch.Tensor
    depth: int
    in_chain: bool


class Proposing(ABC):
    """A drafter at the root of one tree."""

    @abstractmethod
    def first(self) -> torch.Tensor:
        """Logits of what follows the root, shape (1, tokens that it drafts)."""

    @abstractmethod
    def further(self, level: Level) -> torch.Tensor:
        """Logits of what follows each node of a level, shape (nodes, tokens that it drafts)."""

    def target_ids(self, drafted: torch.Tensor) -> torch.Tensor:
        """The model's token ids of the drafter's own."""
        return drafted

    def over_target(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits over the model's whole vocabulary."""
        return logits


class Growth(ABC):
    """Which tokens are candidates, which of them are followed, and which are verified."""

    top_k: int
    """Candidates that a node has."""
    depth: int
    """Of the deepest candidates."""

    def within(self, vocabulary: int) -> Growth:
        """The growth where a drafter knows so many tokens."""
        return replace(self, top_k=min(self.top_k, vocabulary))  # type: ignore[type-var]

    @abstractmethod
    def followed(self, depth: int, logs: torch.Tensor) -> torch.Tensor:
        """The candidates of one depth whose own candidates are looked at, as places among them.

        Args:
            depth: of the candidates, from 1.
            logs: of the paths to them, shape (nodes that were followed before, candidates of each).
        """

    @abstractmethod
    def taken(self, logs: torch.Tensor) -> torch.Tensor:
        """The candidates that are verified, as ascending places among all.

        Args:
            logs: of the paths to all candidates, each depth's after those of the depth before, shape (candidates,).
        """


@dataclass(frozen=True)
class Dynamic(Growth):
    """The likeliest paths are followed, and of all candidates the likeliest are verified.

    Source: EAGLE-2 (Li et al., arXiv 2406.16858, section 4), which EAGLE-3 keeps. With one candidate each it is a
    chain.

    Attributes:
        tokens: that are verified, the root among them.
        depth: of the deepest candidates.
        top_k: candidates that a node has, and nodes of a depth that are followed.
    """

    tokens: int
    depth: int
    top_k: int

    def followed(self, depth: int, logs: torch.Tensor) -> torch.Tensor:
        """The likeliest."""
        return _best(logs.flatten(), self.top_k)

    def taken(self, logs: torch.Tensor) -> torch.Tensor:
        """The likeliest; a candidate is never likelier than the one that it follows, and stands after it."""
        return _best(logs, self.tokens - 1).sort().values


@dataclass(frozen=True)
class Static(Growth):
    """A tree of the same form each time: a candidate is taken to be right half as often as the one before it.

    Source: the fixed trees of Medusa (arXiv 2401.10774) and EAGLE (arXiv 2401.15077), whose forms were fitted by hand
    to models; this one follows from its size alone.

    Attributes:
        tokens: that are verified, the root among them.
        depth: of the deepest candidates.
        top_k: candidates that a node has at most.
    """

    tokens: int
    depth: int
    top_k: int

    @cached_property
    def _levels(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Of each depth from 1, the paths that are taken: the rank of each candidate on the way, from 0."""
        best: list[tuple[int, tuple[int, ...]]] = []
        paths: list[tuple[int, ...]] = [()]
        for _ in range(self.depth):
            paths = [(*path, rank) for path in paths for rank in range(self.top_k)]
            # A path is as likely as a half to the power of its ranks and its length.
            best = sorted([*best, *((sum(path) + len(path), path) for path in paths)], key=lambda each: each[0])
            best = best[: self.tokens - 1]
            paths = [path for _, path in best if len(path) == len(paths[0])]
            if not paths:
                break
        taken = [path for _, path in best]
        return tuple(
            tuple(sorted(path for path in taken if len(path) == depth)) for depth in range(1, self.depth + 1)
        )

    def _followed(self, depth: int) -> list[tuple[int, ...]]:
        """The paths of a depth that go on."""
        if depth == 0:
            return [()]
        going_on = {path[:-1] for path in self._levels[depth]} if depth < self.depth else set()
        return [path for path in self._levels[depth - 1] if path in going_on]

    def _places(self, depth: int, paths: Sequence[tuple[int, ...]]) -> list[int]:
        rows = {path: row for row, path in enumerate(self._followed(depth - 1))}
        return [rows[path[:-1]] * self.top_k + path[-1] for path in paths]

    def followed(self, depth: int, logs: torch.Tensor) -> torch.Tensor:
        """Those of the form that go on."""
        return torch.tensor(self._places(depth, self._followed(depth)), dtype=torch.int64, device=logs.device)

    def taken(self, logs: torch.Tensor) -> torch.Tensor:
        """Those of the form, as deep as candidates were looked for."""
        places: list[int] = []
        before = 0
        for depth, paths in enumerate(self._levels, start=1):
            if before >= len(logs):
                break
            places += [before + place for place in self._places(depth, paths)]
            before += len(self._followed(depth - 1)) * self.top_k
        return torch.tensor(places, dtype=torch.int64, device=logs.device)


def growth_of(settings: TreeSettings) -> Growth:
    """The growth that a method's settings ask for."""
    if settings.tokens == 0:
        return Dynamic(settings.depth + 1, settings.depth, 1)
    return (Dynamic if settings.growth == "dynamic" else Static)(settings.tokens, settings.depth, settings.top_k)


def grow(root: torch.Tensor, growth: Growth, proposing: Proposing, most: int) -> Tree:
    """A tree of drafts.

    Args:
        root: the latest token that is written, shape (1, 1).
        growth: of the tree.
        proposing: the drafter at the root.
        most: depth at most; at least 1.
    """
    depth = min(growth.depth, most)
    logits = proposing.first()
    row_logs = torch.zeros(1, device=logits.device)
    row_places = torch.full((1,), -1, device=logits.device)
    ancestry = torch.zeros(1, 0, dtype=torch.bool, device=logits.device)
    tokens: list[torch.Tensor] = []
    logs: list[torch.Tensor] = []
    parents: list[torch.Tensor] = []
    count = 0
    for level in range(1, depth + 1):
        top = logits.float().log_softmax(-1).topk(growth.top_k, -1)
        tokens.append(proposing.target_ids(top.indices).flatten())
        logs.append((row_logs[:, None] + top.values).flatten())
        parents.append(row_places.repeat_interleave(growth.top_k))
        if level < depth:
            places = growth.followed(level, logs[-1].view(top.values.shape))
            if not len(places):
                break
            origins = places // growth.top_k
            own = torch.eye(len(places), dtype=torch.bool, device=logits.device)
            ancestry = torch.cat([ancestry[origins], own], 1)
            row_logs, row_places = logs[-1][places], places + count
            count += len(logs[-1])
            logits = proposing.further(Level(tokens[-1][places][None], origins, ancestry, level, growth.top_k == 1))
    return _tree(root, growth, torch.cat(tokens), torch.cat(logs), torch.cat(parents))


def draw(root: torch.Tensor, depth: int, proposing: Proposing, chooser: Chooser) -> Tree:
    """A chain whose tokens are drawn from what the drafter thinks, as the request has it.

    Args:
        root: the latest token that is written, shape (1, 1).
        depth: tokens of the chain, at least 1.
        proposing: the drafter at the root.
        chooser: of the generation.
    """
    tokens, odds = [root], list[torch.Tensor]()
    logits = proposing.first()
    for level in range(1, depth + 1):
        token, its = chooser.drawn(proposing.over_target(logits))
        tokens.append(token)
        odds.append(its)
        if level < depth:
            alone = torch.zeros(1, dtype=torch.int64, device=logits.device)
            seen = torch.ones(1, level, dtype=torch.bool, device=logits.device)
            logits = proposing.further(Level(token, alone, seen, level, True))
    ids = torch.cat(tokens, 1)
    its_odds = torch.cat(odds)
    logs = its_odds.gather(1, ids[:, 1:].T).log().cumsum(0).flatten().float().cpu()
    return replace(Tree.chain(ids, its_odds), logs=torch.cat([torch.zeros(1), logs]))


def _tree(
    root: torch.Tensor, growth: Growth, tokens: torch.Tensor, logs: torch.Tensor, parents: torch.Tensor
) -> Tree:
    """The candidates that are taken, numbered anew behind their root."""
    taken = growth.taken(logs)
    places = parents[taken]
    numbered = torch.where(places < 0, 0, torch.searchsorted(taken, places) + 1)
    told = torch.stack([numbered.double(), logs[taken].double()]).cpu()  # one transfer
    return Tree(
        torch.cat([root, tokens[taken][None]], 1),
        (-1, *map(int, told[0].tolist())),
        torch.cat([torch.zeros(1), told[1].float()]),
    )


def _best(logs: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the largest; of equal ones the first, so that a candidate comes after the one it follows."""
    return logs.sort(descending=True, stable=True).indices[:count]
