"""Attention of transformers that shows queries and keys to whoever asks, before they are multiplied."""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from vivace_kernels.prefill.kept_attention import kept_attention
from vivace_methods.models import implementations

SHOW = "vivace_show"
"""The argument that a layer is called with where its attention is to be shown: `Showing`."""

Showing = Callable[[torch.Tensor, torch.Tensor, float], "torch.Tensor | None"]
"""Called with rotated queries, keys and the scaling of their products. It may choose rows, as ascending indices of
queries: attention is then computed of these alone, and is zero for the others."""


@contextmanager
def showing_attention(decoder: Any, implementation: str) -> Iterator[None]:
    """Run a text decoder with an implementation that shows what it is given, while the context lasts.

    Nobody is shown anything unless a layer is called with `SHOW`; what is computed is the implementation's own.

    Raises:
        MethodError: the model or this machine cannot run it.
    """
    with implementations.attention(decoder, implementation):
        before = decoder.config._attn_implementation
        decoder.set_attn_implementation(_registered(before))
        try:
            yield
        finally:
            decoder.set_attn_implementation(before)


def _registered(implementation: str) -> str:
    """The name under which transformers knows the implementation that shows.

    Its masks have to be registered beside it: without them padding would be lost.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    # Whatever has `flash` in its name is looked for in packages of kernels.
    name = f"vivace_showing_{implementation.replace('flash', 'fast')}"
    masks = AttentionMaskInterface()
    if name not in masks:
        AttentionInterface.register(name, _showing(implementation))
        AttentionMaskInterface.register(name, masks[implementation])
    return name


def _showing(implementation: str) -> Callable[..., Any]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known: WeakKeyDictionary[Any, _Configured] = WeakKeyDictionary()

    def attention(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **named: Any
    ) -> Any:
        show: Showing | None = named.pop(SHOW, None)
        rows = None if show is None else show(query, key, named["scaling"])
        if rows is not None:
            return _of_rows(query, key, value, rows, named["scaling"]), None
        if implementation == "eager":  # each architecture has its own
            return sys.modules[type(module).__module__].eager_attention_forward(
                module, query, key, value, attention_mask, **named
            )
        if implementation.startswith("flash"):  # it loads the kernel that the module's configuration names
            if module not in known:
                known[module] = _Configured(module, implementation)
            module = known[module]
        return ALL_ATTENTION_FUNCTIONS[implementation](module, query, key, value, attention_mask, **named)

    return attention


class _Configured:
    """A module of attention as if its configuration named an implementation.

    Args:
        module: of transformers.
        implementation: the name.
    """

    def __init__(self, module: Any, implementation: str) -> None:
        self._module = weakref.proxy(module)
        self.config = copy.copy(module.config)
        self.config._attn_implementation = implementation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _of_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention of some queries over all keys up to their own, of all tokens' shape (1, tokens, heads, width)."""
    heads, tokens, width = query.shape[1:]
    whole = query.new_zeros(1, tokens, heads, width)
    whole[0, rows] = kept_attention(query[0, :, rows], key[0], value[0], rows, scale=scaling).transpose(0, 1)
    return whole
