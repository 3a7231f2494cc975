"""Linear layers of a model that read weights of fewer bits while a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from vivace_kernels.quantised import QuantisedWeights
from vivace_methods.decoding.plain import PlainDecoder
from vivace_methods.models import implementations
from vivace_methods.models.ledger import Pass
from vivace_methods.models.passes import passes_of
from vivace_methods.models.replaced_forward import replaced_forward
from vivace_methods.protocol import Attached, MethodError
from vivace_methods.sparsity.applying.linears import find_groups


@contextmanager
def rounded_linears(
    model: Any, method: str, only: str, quantised: Callable[[torch.Tensor], QuantisedWeights]
) -> Iterator[Attached]:
    """A model whose linear layers read rounded weights, and whose passes are recorded.

    Args:
        model: of transformers.
        method: by its name.
        only: as the setting of that name.
        quantised: rounds the weights of a layer.

    Raises:
        MethodError: another device than a processor, or a model without such layers.
    """
    if model.device.type != "cpu":
        raise MethodError(f"{method} multiplies on a processor alone, and the model lies on {model.device}: use cpu.")
    read: dict[str, int] = {}
    with ExitStack() as contexts:
        passes = contexts.enter_context(passes_of(model))
        for group in find_groups(model, only):
            for name, module in zip(group.names, group.modules, strict=True):
                rounded = quantised(module.weight)
                read[name] = rounded.bytes
                contexts.enter_context(replaced_forward(module, partial(_forward, module, rounded)))
        # Nothing has to be counted: every pass reads the same.
        nothing = torch.zeros(0, dtype=torch.int32)
        contexts.enter_context(passes.ledger.counter(nothing, partial(_told, read)))
        products = contexts.enter_context(implementations.products(model))
        figures: dict[str, Any] = {"products": products} if products else {}
        yield Attached(passes, usual_decoder=PlainDecoder(model), figures=lambda passes: figures)


def _forward(module: torch.nn.Linear, rounded: QuantisedWeights, x: torch.Tensor) -> torch.Tensor:
    flat = rounded.product(x.reshape(-1, module.in_features))
    whole = flat if module.bias is None else flat + module.bias
    return whole.view(*x.shape[:-1], module.out_features)


def _told(read: dict[str, int], one: Pass, nothing: torch.Tensor) -> Pass:
    return replace(one, read_bytes=read)
