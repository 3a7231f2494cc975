"""The routers of a model as budgets see them: what each makes of its logits, found out and not assumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import without_weights
from vivace_methods.speculation.budgets.mixtures import ExpertLayer, mixtures_of, no_mixture

_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""By how much weights may differ from what they are taken for; others are rounded to three digits or fewer."""
_LOUDNESS = (1.0, 0.1, 0.003)
"""Of the inputs that a router is tried with: loud ones leave nearly all to a token's experts, whose sum is then 1
anyhow, and quiet ones do not."""


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
    blocks = _blocks(model, sigmoid=sigmoid)
    return [_known(block, number, name) for number, block in blocks]


def mixtures_of_model(configuration: Any, name: str, *, sigmoid: bool) -> list[ExpertLayer]:
    """The layers with experts of a model that need not be there; none where its modules do not tell how many.

    Args:
        configuration: of transformers.
        name: of the method that asks.
        sigmoid: whether routers by sigmoids are taken, too.

    Raises:
        MethodError: there are none, or they choose by sigmoids.
    """
    if (found := mixtures_of(configuration)) is not None:
        return found
    if (model := without_weights(configuration, name)) is None:
        return []
    routers = [(number, _router(block)) for number, block in _blocks(model, sigmoid=sigmoid)]
    if not all(
        hasattr(router, "weight") and isinstance(getattr(router, "top_k", None), int) for _, router in routers
    ):
        return []
    return [ExpertLayer(number, router.weight.shape[0], router.top_k) for number, router in routers]


def _blocks(model: Any, *, sigmoid: bool) -> list[tuple[int, Any]]:
    """Each block with experts, and the number of its layer.

    Raises:
        MethodError: as `routers_of` says.
    """
    found = [
        (number, block)
        for number, layer in enumerate(_layers(model))
        for block in layer.modules()
        if isinstance(getattr(block, "experts", None), torch.nn.Module)
    ]
    if not found:
        raise no_mixture(type(model).__name__)
    if not sigmoid and any(_has_sigmoids(_router(block)) for _, block in found):
        raise MethodError(
            f"The routers of {type(model).__name__} choose by sigmoids, and the paper's by a softmax: write "
            "moe-spec(sigmoid=true) for an extension of our own."
        )
    return found


def _router(block: Any) -> Any:
    return getattr(block, "gate", None) or getattr(block, "router", None)


def _has_sigmoids(router: Any) -> bool:
    return hasattr(router, "e_score_correction_bias")


def _layers(model: Any) -> list[Any]:
    """All decoder layers, also of architectures whose costs are not known."""
    decoder = model.get_decoder()
    return list(getattr(decoder, "layers", None) or [])


def _known(block: Any, number: int, name: str) -> Router:
    """The router of a block, by what it makes of a token.

    Raises:
        MethodError: it does not give what routers of transformers give, or makes something else of it.
    """
    module = _router(block)
    kind = type(module).__name__
    unknown = MethodError(
        f"{name} puts a budget on routers that give logits, weights and indices, and {kind} in layer {number} is of "
        "another kind: take eagle-3."
    )
    if module is None or not isinstance(getattr(module, "weight", None), torch.Tensor):
        raise unknown
    width = module.weight.shape[-1]
    hidden = torch.linspace(-1, 1, len(_LOUDNESS) * width, dtype=torch.float64).view(-1, width)
    hidden = (hidden * torch.tensor(_LOUDNESS, dtype=torch.float64)[:, None]).to(module.weight)
    with torch.inference_mode():
        given = module(hidden)
        if not (isinstance(given, tuple) and len(given) == 3 and given[1].shape == given[2].shape):
            raise unknown
        logits, weights, index = given
        sigmoid = _has_sigmoids(module)
        scale = float(getattr(module, "routed_scaling_factor", 1.0)) if sigmoid else 1.0
        router = Router(module, number, logits.shape[-1], index.shape[-1], True, sigmoid, scale)
        values = scale * router.thoughts(logits)[1].gather(1, index)
        sums = values.sum(-1, keepdim=True) / scale
        far, far_as_they_are = (float((weights.float() - each).abs().max()) for each in (values / sums, values))
    if min(far, far_as_they_are) <= _CLOSE.get(weights.dtype, 2e-2):
        return replace(router, renormalised=far <= far_as_they_are)
    raise unknown
