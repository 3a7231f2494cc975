"""The hooks that prune a prompt while a model reads it, whoever calls the model: our loop, or `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import Anatomy
from vivace_methods.models.passes import Passes
from vivace_methods.prefill.parts.pruning import Pruning
from vivace_methods.prefill.rankers.base import RankedPrompt
from vivace_methods.prefill.reading.asked_passes import AskedPasses, asking, stopped_pass
from vivace_methods.prefill.reading.later_tokens import PrunedCache, mask_for
from vivace_methods.prefill.reading.pass_under_way import PrunedPass


class PruningHooks:
    """Prunes each first pass over a prompt, and sees to those that follow it.

    Args:
        anatomy: of the model.
        pruning: how.
        passes: of the model.
        asked: runs the model for the ranker.
        is_flash: whether the attention makes its own masks.

    Attributes:
        layers: of the model.
        latest: the pass over the latest prompt; None where nothing of it was left out.
        ends: tokens that end an answer.
        usual_ends: those that the model names.
    """

    def __init__(
        self, anatomy: Anatomy, pruning: Pruning, passes: Passes, asked: AskedPasses, is_flash: bool
    ) -> None:
        self._anatomy, self._pruning, self._passes, self._asked = anatomy, pruning, passes, asked
        self._is_flash = is_flash
        self.layers = len(anatomy.layers)
        self._reading: PrunedPass | None = None
        self._follows: Any = None
        self._logits: Any = 0
        self._masks: dict[int, torch.Tensor | None] = {}
        self._caches: WeakKeyDictionary[Any, PrunedCache] = WeakKeyDictionary()
        self.latest: PrunedPass | None = None
        self.usual_ends = _ends(anatomy.model)
        self.ends: frozenset[int] = self.usual_ends

    def install(self, hooks: ExitStack) -> None:
        """Set all hooks, which go when the stack is left."""
        decoder = self._anatomy.decoder
        # Before the hook that records the pass, so that it sees what the pruned pass is given.
        handles = [
            self._anatomy.model.register_forward_pre_hook(self.called, with_kwargs=True, prepend=True),
            decoder.register_forward_pre_hook(self.begins, with_kwargs=True, prepend=True),
            decoder.register_forward_hook(self.ends_pass),
        ]
        for number, layer in enumerate(self._anatomy.layers):
            handles.append(layer.module.register_forward_pre_hook(partial(self.enters, number), with_kwargs=True))
            handles.append(layer.module.register_forward_hook(partial(self.leaves, number)))
            inner = [layer.mlp] if self._pruning.plan.select != "after-block" else []
            if self._pruning.plan.select == "before-attention":
                inner.append(layer.attention.o_proj)
            for module in inner if number in self._pruning.plan.stops else ():
                handles.append(module.register_forward_pre_hook(partial(self.narrows, number)))
                handles.append(module.register_forward_hook(partial(self.widens, number)))
        for handle in handles:
            hooks.callback(handle.remove)

    def called(self, model: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before the model: of how many last tokens does it give logits?

        Raises:
            MethodError: it is to tell how likely the prompt itself is.
        """
        self._logits = named.get("logits_to_keep", 0)
        if named.get("labels") is not None:
            raise MethodError(
                "A pruned prompt has no probabilities of its own tokens, and so no loss of labels: leave them out, "
                "or take full."
            )

    def begins(self, decoder: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Before the decoder: is this a prompt to be pruned, or what follows one?"""
        if self._asked.running:
            return None
        self._reading = self._follows = None
        if given:
            named = {"input_ids": given[0], **named}
        inputs = named.get("inputs_embeds") if named.get("input_ids") is None else named["input_ids"]
        if inputs is None:  # the decoder will say so
            return None
        cache: Any = named.get("past_key_values")
        tokens = int(inputs.shape[1])
        kind = self._passes.kind
        before = None if cache is None else self._caches.get(cache)
        if before is not None and cache.get_seq_length():
            self._follows, self._masks = cache, {}
            return (), before.inputs(named, tokens, self._logits, kind is not None, cache, inputs.device)
        if kind not in (None, "read") or tokens == 1 or not _is_empty(cache):
            return None
        if kind is None and isinstance(self._logits, int) and self._logits > 1:
            raise MethodError(
                f"Logits of {self._logits} last tokens are asked with the prompt, as where drafts come behind it "
                "(assistant_model, prompt_lookup_num_tokens), and its last tokens say how it is pruned: add a method "
                "that drafts, as +prompt-lookup, or ask for the last logits alone."
            )
        return (), self._prompt(named, inputs, cache)

    def _prompt(self, named: dict[str, Any], inputs: torch.Tensor, cache: Any) -> dict[str, Any]:
        """The arguments of the pass over a prompt."""
        _require_plain(named, inputs, cache)
        self.latest = None
        tokens = int(inputs.shape[1])
        if not self._pruning.prunes(tokens):
            return named
        if cache is None:
            from transformers import DynamicCache

            # Without a cache, tokens that do not follow each other would be taken for several texts side by side.
            cache = DynamicCache(config=self._anatomy.decoder.config)
        named = {**named, "past_key_values": cache, "attention_mask": None}
        prompt = self._asked_about(named, inputs)
        self._reading = PrunedPass(self._anatomy, self._pruning, prompt, cache, named.get("position_ids"))
        return self._reading.inputs(named)

    def _asked_about(self, named: dict[str, Any], inputs: torch.Tensor) -> RankedPrompt:
        own = {name: named.get(name) for name in ("input_ids", "inputs_embeds", "position_ids")}

        def ask(show: Any, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            if ids is None:
                found = self._asked.run(show, own, last_layer=last_layer, cache=cache)
                if last_layer is not None:
                    self._passes.ledger.record_other(stopped_pass(self._anatomy, int(inputs.shape[1]), last_layer))
                return found
            start = _next_place(own["position_ids"], int(inputs.shape[1]))
            places = torch.arange(ids.shape[1], device=inputs.device) + start
            before = 0 if cache is None else cache.get_seq_length() - int(inputs.shape[1])
            return self._asked.run(show, {"input_ids": ids, "position_ids": places[None] + before}, cache=cache)

        return RankedPrompt(
            length=int(inputs.shape[1]),
            layers=self.layers,
            ids=named.get("input_ids"),
            ask=ask,
            tell=self._passes.ledger.record_other,
            device=inputs.device,
            ends=self.ends,
            config=self._anatomy.decoder.config,
        )

    def enters(self, layer: int, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Before a layer."""
        if self._reading is not None and not self._asked.running:
            return given, {**named, **self._reading.named(layer, named)}
        if self._follows is not None:
            return given, {**named, "attention_mask": self._mask(layer, given, named)}
        return None

    def _mask(self, layer: int, given: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor | None:
        if self._is_flash:
            return None
        hidden = given[0] if given else named["hidden_states"]
        before = self._follows.layers[layer].get_seq_length()
        if before not in self._masks:
            self._masks[before] = mask_for(named.get("attention_mask"), hidden.shape[1], before, hidden)
        return self._masks[before]

    def leaves(self, layer: int, module: Any, given: tuple[Any, ...], found: Any) -> Any:
        """After a layer."""
        if self._reading is None or self._asked.running:
            return None
        left = self._reading.leave(layer, found)
        if layer == self.layers - 1 and self._reading.is_pruned:
            self._passes.ledger.note(**self._reading.told())
        return left

    def narrows(self, layer: int, module: Any, given: tuple[Any, ...]) -> Any:
        """Before a part of a layer that only kept tokens are to go through."""
        rows = self._rows(layer)
        return None if rows is None else (given[0][:, rows], *given[1:])

    def widens(self, layer: int, module: Any, given: tuple[Any, ...], found: torch.Tensor) -> Any:
        """After it: the others are left out behind the layer, and may be anything until then."""
        rows = self._rows(layer)
        if rows is None or self._reading is None:
            return None
        whole = found.new_zeros(1, self._reading.tokens, found.shape[-1])
        whole[:, rows] = found
        return whole

    def _rows(self, layer: int) -> torch.Tensor | None:
        return None if self._reading is None or self._asked.running else self._reading.rows_inside(layer)

    def ends_pass(self, decoder: Any, given: tuple[Any, ...], found: Any) -> None:
        """After the decoder: remember what the cache does not tell, and let go of the cache itself."""
        if self._asked.running:
            return
        done, self._reading, self._follows = self._reading, None, None
        if done is not None and done.is_pruned:
            self.latest = done
            self._caches[done.cache] = done.cache_state()
            done.cache = None


_PRUNED: WeakSet[Any] = WeakSet()
"""Decoders on which a method is."""


@contextmanager
def hooked(anatomy: Anatomy, pruning: Pruning, passes: Passes, is_flash: bool) -> Iterator[PruningHooks]:
    """Prune what a model reads while the context lasts; afterwards the model is as before.

    Args:
        anatomy: of the model, whose attention must show what it is given.
        pruning: how.
        passes: of the model.
        is_flash: whether the attention makes its own masks.

    Raises:
        MethodError: another method prunes what it reads already.
    """
    if anatomy.decoder in _PRUNED:
        raise MethodError(
            "A method that prunes prompts is on this model already, and two would prune each other's: leave the "
            "context of the first."
        )
    with ExitStack() as hooks:
        _PRUNED.add(anatomy.decoder)
        hooks.callback(_PRUNED.discard, anatomy.decoder)
        asked = hooks.enter_context(asking(anatomy))
        pruner = PruningHooks(anatomy, pruning, passes, asked, is_flash)
        pruner.install(hooks)
        yield pruner


def _is_empty(cache: Any) -> bool:
    if cache is None:
        return True
    length = cache.get_seq_length()
    return not isinstance(length, torch.Tensor) and length == 0


def _require_plain(named: dict[str, Any], inputs: torch.Tensor, cache: Any) -> None:
    """Refuse what cannot be pruned right.

    Raises:
        MethodError: several prompts at once, padding, or a cache of another kind.
    """
    from transformers.cache_utils import DynamicLayer

    if inputs.shape[0] != 1:
        raise MethodError(
            f"Prompts are pruned one at a time, and {inputs.shape[0]} came together: each keeps tokens of its own."
        )
    mask = named.get("attention_mask")
    if isinstance(mask, torch.Tensor) and (mask.dim() != 2 or not bool(mask.all())):
        raise MethodError("The prompt is padded or masked, and padding would be ranked as text: give it without.")
    if cache is not None and any(type(layer) is not DynamicLayer for layer in cache.layers):
        raise MethodError(
            f"Layers of a pruned prompt keep different numbers of positions, and a {type(cache).__name__} has the "
            "same memory for each: leave cache_implementation at dynamic."
        )


def _next_place(places: torch.Tensor | None, tokens: int) -> int:
    return tokens if places is None else int(places.max()) + 1


def _ends(model: Any) -> frozenset[int]:
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset() if found is None else frozenset([found] if isinstance(found, int) else found)
