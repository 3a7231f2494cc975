"""One generation under way, as readers and decoders see it: they run the model through it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vivace_methods.decoding.sampling import Chooser
from vivace_methods.decoding.tree_masks import keep_of_latest, tree_masks
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.ledger import PassKind
from vivace_methods.models.passes import Passes
from vivace_methods.requests import Embedded, Request


class Generation:
    """One generation under way, as readers and decoders see it.

    Attributes:
        request: what was asked.
        passes: of the model.
        cache: of keys and values, as it was agreed on.
        chooser: chooses the tokens.
        left: tokens that may still be emitted.
        features: layer → its input at the latest pass, of the layers that the decoder asked for.
        position: of the next token, for the rotary embedding.
    """

    def __init__(
        self,
        model: Any,
        request: Request,
        passes: Passes,
        cache: Any,
        chooser: Chooser,
        features: dict[int, torch.Tensor],
    ) -> None:
        self._model = model
        self.request, self.passes, self.cache, self.chooser = request, passes, cache, chooser
        self.features = features
        self.left = request.most_tokens
        self.position = 0
        self._length = 0
        self._mask: torch.Tensor | None = None

    def forward(
        self,
        ids: torch.Tensor,
        kind: PassKind,
        *,
        embedded: Embedded | None = None,
        tree: Tree | None = None,
        logits: int = 1,
        step: Any = None,
        **named: Any,
    ) -> torch.Tensor:
        """One pass of the model over inputs that follow those in the cache, which takes them up.

        Args:
            ids: token ids, shape (1, tokens).
            kind: what the pass is for.
            embedded: what the model is given in their place.
            tree: in which the tokens stand; None for a chain, each token of which looks at all before it.
            logits: of how many last tokens logits are given; 0 for all.
            step: a compiled form of the model's forward pass, in place of the model.
            named: further arguments of the model.

        Returns:
            Logits, shape (1, tokens, vocabulary).
        """
        count = int(ids.shape[1])
        given = (ids,) if embedded is None else ()
        with self.passes.of(kind, tree):
            found: torch.Tensor = (step or self._model)(
                *given, past_key_values=self.cache, use_cache=True, logits_to_keep=logits,
                **self._where(count, embedded, tree), **named,
            ).logits  # fmt: skip
        self._length += count
        self.position += count
        return found

    def keep(self, count: int, kept: Sequence[int]) -> None:
        """Keep some of the latest pass's positions in the cache, and take the others back.

        Args:
            count: positions of the pass.
            kept: places among these, ascending.
        """
        keep_of_latest(self.cache, count, kept)
        self._taken_back(count - len(kept))

    def _taken_back(self, count: int) -> None:
        self._length -= count
        self.position -= count
        if self._mask is not None and count:
            self._mask = self._mask[:, :-count]

    def compacted(self, length: int) -> None:
        """Say that a reader left so many positions in the cache, while the next token's place stays what it was."""
        self._length = length

    def _where(self, count: int, embedded: Embedded | None, tree: Tree | None) -> dict[str, Any]:
        """What the model cannot know by itself: embeddings, what is padding, and places that no cache tells."""
        named: dict[str, Any] = {}
        if tree is not None and not tree.is_chain:
            self.passes.ledger.note(depths=tree.depths)
            depths = torch.tensor([tree.depths], device=self._model.device)
            named["position_ids"] = self.position + depths
            named["attention_mask"] = tree_masks(
                self.cache, tree.ancestry, tree.depths, dtype=self._model.dtype, device=self._model.device,
                padding=self._mask,
            )  # fmt: skip
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(1, count)], 1)
        if embedded is not None:
            named["inputs_embeds"] = embedded.embeddings
            self._mask = embedded.mask
            if embedded.positions is not None:
                named["position_ids"] = embedded.positions
                self.position = int(embedded.positions.max()) + 1 - count
        if self._mask is not None:
            named.setdefault("attention_mask", self._mask)
        if self.position != self._length and "position_ids" not in named:
            places = torch.arange(self.position, self.position + count, device=self._model.device)
            named["position_ids"] = places[None]
        return named
