"""The routers of a model as budgets see them: what each makes of its logits, found out and not assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.speculation.budgets.mixtures import no_mixture

_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""By how much weights may differ from what they are taken for; others are rounded to three digits or fewer."""


@dataclass(frozen=True)
class Router:
    """A router and how it comes from logits to weights.

    Attributes:
        module: gives logits (tokens, experts), weights and indices, both (tokens, experts of each).
        layer: number of the layer among all of the model's.
        experts: of the layer.
        active: of each token.
        renormalised: whether the weights of a token's experts are divided by their sum.
        sigmoid: whether experts are chosen by sigmoids with a bias, as in DeepSeek-V3, and not by a softmax.
        scale: what the weights are multiplied with at the end; 1 where a softmax is taken.
    """

    module: Any
    layer: int
    experts: int
    active: int
    renormalised: bool
    sigmoid: bool = False
    scale: float = 1.0

    def thoughts(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What experts are chosen by, and what their weights are made of, each float32, shape (tokens, experts)."""
        if not self.sigmoid:
            odds = logits.float().softmax(-1)
            return odds, odds
        odds = logits.float().sigmoid()
        return odds + self.module.e_score_correction_bias.float(), odds


def routers_of(model: Any, name: str, *, sigmoid: bool) -> list[Router]:
    """The routers of a model, in the order of its layers.

    Args:
        model: of transformers.
        name: of the method that asks.
        sigmoid: whether routers by sigmoids are taken, too.

    Raises:
        MethodError: there are none, or of a kind that is not known.
    """
    found = [router for number, layer in enumerate(_layers(model)) for router in _in_layer(layer, number, name)]
    if not found:
        raise no_mixture(type(model).__name__)
    if any(router.sigmoid for router in found) and not sigmoid:
        raise MethodError(
            f"The routers of {type(model).__name__} choose by sigmoids, and the paper's by a softmax: write "
            f"{name}(sigmoid=true) for an extension of our own."
        )
    return found


def _layers(model: Any) -> list[Any]:
    """All decoder layers, also of architectures whose costs are not known."""
    decoder = model.get_decoder()
    return list(getattr(decoder, "layers", None) or [])


def _in_layer(layer: Any, number: int, name: str) -> list[Router]:
    blocks = [block for block in layer.modules() if isinstance(getattr(block, "experts", None), torch.nn.Module)]
    return [_known(block, number, name) for block in blocks]


def _known(block: Any, number: int, name: str) -> Router:
    """The router of a block, by what it makes of a token.

    Raises:
        MethodError: it does not give what routers of transformers give, or makes something else of it.
    """
    module = getattr(block, "gate", None) or getattr(block, "router", None)
    kind = type(module).__name__
    unknown = MethodError(
        f"{name} puts a budget on routers that give logits, weights and indices, and {kind} in layer {number} is of "
        "another kind: take eagle-3."
    )
    if module is None or not isinstance(getattr(module, "weight", None), torch.Tensor):
        raise unknown
    hidden = torch.linspace(
        -1, 1, 2 * module.weight.shape[-1], dtype=module.weight.dtype, device=module.weight.device
    )
    with torch.inference_mode():
        given = module(hidden.view(2, -1))
        if not (isinstance(given, tuple) and len(given) == 3 and given[1].shape == given[2].shape):
            raise unknown
        logits, weights, index = given
        sigmoid = hasattr(module, "e_score_correction_bias")
        scale = float(getattr(module, "routed_scaling_factor", 1.0)) if sigmoid else 1.0
        router = Router(module, number, logits.shape[-1], index.shape[-1], True, sigmoid, scale)
        values = router.thoughts(logits)[1].gather(1, index)
        close = _CLOSE.get(weights.dtype, 2e-2)
        if torch.allclose(weights.float(), scale * values / values.sum(-1, keepdim=True), atol=close):
            return router
        if torch.allclose(weights.float(), scale * values, atol=close):
            return Router(module, number, router.experts, router.active, False, sigmoid, scale)
    raise unknown
