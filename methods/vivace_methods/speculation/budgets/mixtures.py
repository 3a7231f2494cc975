"""The layers with experts, as far as a model's configuration tells: what a budget is held to before a run begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vivace_methods.errors import MethodError


@dataclass(frozen=True)
class ExpertLayer:
    """A layer with experts.

    Attributes:
        layer: its number, from 0.
        experts: that it has.
        active: experts of each token.
    """

    layer: int
    experts: int
    active: int


def no_mixture(model: str) -> MethodError:
    """What is said of a model without experts."""
    return MethodError(
        f"{model} has no router that chooses experts, and a budget does nothing there: take eagle-3, or a mixture of "
        "experts."
    )


def mixtures_of(configuration: Any) -> list[ExpertLayer] | None:
    """The layers with experts of a model that need not be there yet; None where its architecture is not known.

    Args:
        configuration: of transformers.

    Raises:
        MethodError: there are none.
    """
    from vivace_methods.models.anatomy import shapes

    try:
        layers = shapes(configuration).layers
    except MethodError:
        return None
    found = [ExpertLayer(number, its.experts, its.active) for number, its in enumerate(layers) if its.experts]
    if not found:
        raise no_mixture(configuration.model_type)
    return found
