"""Passes over a prompt that a ranker asks for, of the model itself or of a smaller one, shown layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from vivace_methods.models.anatomy import Anatomy
from vivace_methods.models.ledger import Pass
from vivace_methods.prefill.rankers.base import Show, Shown
from vivace_methods.prefill.reading.attention import SHOW


class _Stopped(Exception):
    """Ends a pass from inside of a layer."""


class AskedPasses:
    """A model whose layers show their attention while it is asked.

    Attributes:
        running: whether a pass is under way that was asked for.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._show: Show | None = None
        self._last: int | None = None

    @property
    def running(self) -> bool:
        """Whether a pass that was asked for is under way."""
        return self._show is not None

    def run(
        self, show: Show, inputs: dict[str, Any], *, last_layer: int | None = None, cache: Any = None
    ) -> torch.Tensor | None:
        """One pass, of which every layer is shown.

        Args:
            show: called with each layer's attention.
            inputs: of the decoder: `input_ids` or `inputs_embeds`, and `position_ids`.
            last_layer: where to stop, before its attention is computed; None goes through all layers.
            cache: of keys and values.

        Returns:
            Logits of the last token, shape (1, vocabulary); None where the pass was stopped.
        """
        from transformers import DynamicCache

        self._show, self._last = show, last_layer
        if cache is None:
            # Without one, places that do not follow each other would be taken for several texts side by side.
            cache = DynamicCache(config=self._anatomy.decoder.config)
        try:
            with torch.no_grad():
                found = self._anatomy.decoder(**inputs, past_key_values=cache, use_cache=True)
        except _Stopped:
            return None
        finally:
            self._show = self._last = None
        hidden = found.last_hidden_state[:, -1:]
        return self._anatomy.head(hidden)[:, -1]  # type: ignore[misc]

    def named(self, layer: int) -> dict[str, Any]:
        """What a layer is to be called with besides, while a pass is under way."""
        return {SHOW: partial(self._shown, layer)}

    def _shown(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, scaling: float) -> None:
        assert self._show is not None
        self._show(Shown(layer, queries, keys, scaling))
        if layer == self._last:
            raise _Stopped


def stopped_pass(anatomy: Anatomy, tokens: int, last: int) -> Pass:
    """What a ledger is told of a pass over a prompt that ended in a layer, where its queries and keys were known.

    Args:
        anatomy: of the model.
        tokens: of the prompt.
        last: the layer.
    """
    layers = anatomy.shapes.layers
    ended = (f"layers.{last}.mlp.", f"layers.{last}.self_attn.o_proj")
    entered = tuple(tokens if number <= last else 0 for number in range(len(layers)))
    experts = [number for number, layer in enumerate(layers) if layer.experts]
    met = tuple(0 if number == last else None for number in experts) or None
    return Pass(
        "read", tokens, 0, logits=0, layer_tokens=entered,
        layer_pairs=tuple(each * (each + 1) // 2 if number != last else 0 for number, each in enumerate(entered)),
        linear_tokens={name: 0 for name in anatomy.shapes.linears if name.startswith(ended)},
        experts=met, routed=met,
    )  # fmt: skip


@contextmanager
def asking(anatomy: Anatomy) -> Iterator[AskedPasses]:
    """A model that can be asked while the context lasts; its attention must show what it is given.

    Args:
        anatomy: of the model.
    """
    asked = AskedPasses(anatomy)

    def enters(layer: int, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return (given, {**named, **asked.named(layer)}) if asked.running else None

    with ExitStack() as hooks:
        for number, layer in enumerate(anatomy.layers):
            hook = layer.module.register_forward_pre_hook(partial(enters, number), with_kwargs=True)
            hooks.callback(hook.remove)
        yield asked
