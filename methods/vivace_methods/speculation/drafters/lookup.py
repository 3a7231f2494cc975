"""What followed the latest tokens where they stood before, in the prompt or in the answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.trees import Tree
from vivace_methods.protocol import Read
from vivace_methods.speculation.drafters.base import Drafter, Drafting


class Lookup(Drafter):
    """Finds the latest place where the same tokens stood, as many of them as possible.

    Args:
        longest: tokens that are looked for at most.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def start(self, run: Generation, read: Read) -> Drafting:
        """Begin with the prompt."""
        drafting = _Drafting(self._longest)
        drafting.stands(read.ids, {})
        return drafting


class _Drafting(Drafting):
    """All that is written, and where each run of a few tokens ended the last time."""

    def __init__(self, longest: int) -> None:
        self._written: list[int] = []
        self._ends: list[dict[tuple[int, ...], int]] = [{} for _ in range(longest)]

    def stands(self, ids: torch.Tensor, features: Mapping[int, torch.Tensor]) -> None:
        """Remember them."""
        for token in ids[0].tolist():
            self._written.append(token)
            end = len(self._written)
            for length, ends in enumerate(self._ends, start=1):
                if length <= end:
                    ends[tuple(self._written[end - length :])] = end

    def draft(self, root: torch.Tensor, most: int) -> Tree:
        """What followed; the root alone, where it stands nowhere."""
        known = [*self._written, int(root)]
        for length in range(min(len(self._ends), len(known)), 0, -1):
            end = self._ends[length - 1].get(tuple(known[-length:]))
            if end is not None:
                # What followed may reach the root, and then goes on as it is drafted itself.
                followed = [known[end + place % (len(known) - end)] for place in range(most)]
                drafts = torch.tensor([followed], dtype=root.dtype, device=root.device)
                return Tree.chain(torch.cat([root, drafts], 1))
        return Tree.chain(root)
