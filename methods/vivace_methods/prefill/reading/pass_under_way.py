"""One pass over a prompt while it is pruned: which tokens are left at each layer, and what stays in its cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from vivace_kernels.prefill.selection import gathered
from vivace_methods.models.anatomy import Anatomy
from vivace_methods.prefill.parts.kv import Shared
from vivace_methods.prefill.parts.pruning import Pruning
from vivace_methods.prefill.parts.selectors import budget
from vivace_methods.prefill.rankers.base import RankedPrompt, Shown
from vivace_methods.prefill.reading.attention import SHOW
from vivace_methods.prefill.reading.later_tokens import PrunedCache


class PrunedPass:
    """One pass over a prompt, under way.

    Args:
        anatomy: of the model.
        pruning: how.
        prompt: that is read.
        cache: that takes up keys and values.
        places: of the prompt's tokens, shape (…, tokens); None for 0, 1, 2 and so on.

    Attributes:
        cache: that takes up keys and values.
        kept: the prompt's tokens that have gone through the latest layer, ascending, shape (tokens,); None for all.
        layer_tokens: how many went into each layer so far.
        layer_kept: how many positions each layer has put into its cache.
        at: layer → the prompt's tokens that went into it, of the first layer and those at which their number changes.
    """

    def __init__(self, anatomy: Anatomy, pruning: Pruning, prompt: RankedPrompt, cache: Any, places: Any) -> None:
        self._layers, self._pruning, self._prompt = len(anatomy.layers), pruning, prompt
        self._linears = anatomy.shapes.linears
        self.cache, self._places = cache, places
        self._plan = pruning.plan
        self._ranking = pruning.ranker.begin(prompt)
        self._is_done = False
        self.kept: torch.Tensor | None = None
        self.at: dict[int, torch.Tensor | None] = {0: None}
        self.layer_tokens: list[int] = []
        self.layer_kept: list[int] = []
        self._rows: dict[int, torch.Tensor | None] = {}
        self._positions: dict[int, torch.Tensor] = {}
        self._rotations: tuple[Any, Any] = (None, None)

    @property
    def tokens(self) -> int:
        """How many tokens go into the present layer."""
        return self._prompt.length if self.kept is None else int(self.kept.shape[0])

    @property
    def is_pruned(self) -> bool:
        """Whether anything was left out."""
        return any(kept < self._prompt.length for kept in (*self.layer_tokens, *self.layer_kept))

    def inputs(self, named: dict[str, Any]) -> dict[str, Any]:
        """What the decoder is given: all of the prompt, or what is left where it is pruned before the first layer."""
        if self._plan.restart is None:
            return named
        most = budget(self._plan.restart, self._prompt.length)
        rows = self._pruning.selector.select(self._ranking.scores(), self._prompt.length, most)
        if rows is None:
            return named
        self.kept = self.at[0] = rows
        shorter = {
            name: named[name][:, rows] for name in ("input_ids", "inputs_embeds") if named.get(name) is not None
        }
        places = self._places
        if self._plan.positions == "compacted":
            places = torch.arange(rows.shape[0], device=rows.device)[None]
        else:
            places = rows[None] if places is None else places[..., rows]
        return {**named, **shorter, "position_ids": places}

    def named(self, layer: int, named: dict[str, Any]) -> dict[str, Any]:
        """What a layer is called with in place of what the model would call it with."""
        self.layer_tokens.append(self.tokens)
        changed: dict[str, Any] = {}
        if self.kept is not None:
            # Attention that looks at places would take gaps between them for ends of texts.
            changed["position_ids"] = None
            if self._plan.restart is None:
                changed["position_embeddings"] = self._rotated(named["position_embeddings"])
                changed["attention_mask"] = self._masked(named.get("attention_mask"))
        if self._is_ranked(layer) or self._pruning.kv.looks_at(layer) or self._is_early(layer):
            changed[SHOW] = partial(self._show, layer)
        return changed

    def leave(self, layer: int, found: torch.Tensor) -> torch.Tensor | None:
        """After a layer: leave out what is to be left out of its output and of its cache."""
        rows = self._selected(layer) if self._is_stop(layer) else None
        stored = self.cache.layers[layer]
        if layer in self._positions:
            places = self._positions.pop(layer)[None].to(stored.keys.device)
            stored.keys, stored.values = (gathered(each, places) for each in (stored.keys, stored.values))
        self.layer_kept.append(stored.get_seq_length())
        if rows is not None:
            self._is_done = self._plan.once
            self._ranking.pruned(rows)
            self.kept = rows if self.kept is None else self.kept[rows]
            self.at[layer + 1] = self.kept
        if layer == self._layers - 1:
            self._finish()
        return None if rows is None else gathered(found, rows)

    def rows_inside(self, layer: int) -> torch.Tensor | None:
        """The tokens that go through the parts of a layer behind its selection; None for all."""
        return self._selected(layer) if self._is_stop(layer) else None

    def cache_state(self) -> PrunedCache:
        """What the cache does not tell, for the passes that follow."""
        following = self._prompt.length if self._places is None else int(self._places.max()) + 1
        moved = 0
        if self._plan.restart is not None and self._plan.positions == "compacted":
            moved = following - int(self.cache.get_seq_length())
        return PrunedCache(following, tuple(self.layer_kept), moved)

    def kept_of(self, layer: int) -> torch.Tensor | None:
        """The prompt's tokens that went into a layer, ascending; None for all."""
        return self.at[max(first for first in self.at if first <= layer)]

    def share_of(self, places: Sequence[int], layer: int) -> float:
        """The part of some of the prompt's tokens that went into a layer."""
        kept = self.kept_of(layer)
        return 1.0 if kept is None else len(set(places) & set(kept.tolist())) / len(set(places))

    def told(self) -> dict[str, Any]:
        """What a ledger is told of the pass."""
        entered, stored = tuple(self.layer_tokens), tuple(self.layer_kept)
        told: dict[str, Any] = {"prompt": self._prompt.length}
        if len(set(entered)) > 1:
            told["layer_tokens"] = entered
        if stored != entered:
            told["layer_kept"] = stored
        if self._plan.select != "after-block":
            self._tell_narrowed(told)
        return told

    def _tell_narrowed(self, told: dict[str, Any]) -> None:
        """What went through the parts of a layer behind its selection."""
        linears, pairs = {}, [tokens * (tokens + 1) // 2 for tokens in self.layer_tokens]
        early = self._plan.select == "before-attention"
        for layer, rows in self._rows.items():
            if rows is None:
                continue
            inner = (f"layers.{layer}.mlp.", *([f"layers.{layer}.self_attn.o_proj"] if early else []))
            linears.update({name: int(rows.shape[0]) for name in self._linears if name.startswith(inner)})
            if early:
                pairs[layer] = int(rows.sum()) + int(rows.shape[0])
        if linears:
            told["linear_tokens"] = linears
        if early and linears:
            told["layer_pairs"] = tuple(pairs)

    def _is_ranked(self, layer: int) -> bool:
        history = self._pruning.ranker.history
        return not self._is_done and any(stop - history < layer <= stop for stop in self._plan.stops)

    def _is_stop(self, layer: int) -> bool:
        return layer in self._plan.stops and not self._is_done and (not self._plan.once or self._settles(layer))

    def _is_early(self, layer: int) -> bool:
        return self._plan.select == "before-attention" and self._is_stop(layer)

    def _settles(self, layer: int) -> bool:
        return layer == max(self._plan.stops) or self._ranking.is_settled

    def _show(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor | None:
        shown = Shown(layer, queries.detach(), keys.detach(), scaling)
        if self._is_ranked(layer):
            self._ranking.observe(shown)
        if self._pruning.kv.looks_at(layer):
            positions = self._pruning.kv.kept(shown, self._prompt.length)
            if positions is not None:
                self._positions[layer] = positions
        return self._selected(layer) if self._is_early(layer) else None

    def _selected(self, layer: int) -> torch.Tensor | None:
        """Indices among the tokens that went into a layer, chosen once."""
        if layer not in self._rows:
            most = budget(self._plan.stops[layer], self._prompt.length)
            self._rows[layer] = self._pruning.selector.select(self._ranking.scores(), self.tokens, most)
        return self._rows[layer]

    def _rotated(self, embeddings: Any) -> Any:
        """The rotary embeddings of the kept tokens' own places."""
        known, for_kept = self._rotations
        if known is not self.kept:
            for_kept = tuple(gathered(each, self.kept) for each in embeddings)
            self._rotations = self.kept, for_kept
        return for_kept

    def _masked(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """What is causal among all is causal among fewer."""
        return None if mask is None else mask[..., : self.tokens, : self.tokens]

    def _finish(self) -> None:
        """Where all layers keep one set, it is known only now."""
        if not isinstance(self._pruning.kv, Shared) or self.kept is None:
            return
        for layer in range(self._pruning.kv.from_layer, self._layers):
            its = self.kept_of(layer)
            rows = self.kept if its is None else torch.searchsorted(its, self.kept)
            if self.layer_kept[layer] > rows.shape[0]:
                stored = self.cache.layers[layer]
                stored.keys, stored.values = (gathered(each, rows) for each in (stored.keys, stored.values))
                self.layer_kept[layer] = int(rows.shape[0])
