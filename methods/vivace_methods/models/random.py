"""Random models: of real shapes, whose times mean something though their answers don't, and tiny ones for trying out.

Routers with random weights are correlated: a batch of tokens meets fewer different experts than in a trained model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.free_memory import require_free
from vivace_methods.models.shapes import REAL_SHAPES, TINY_SHAPES
from vivace_methods.suggestions import did_you_mean


def real_configuration(like: str, *, layers: int | None = None) -> Any:
    """The configuration of a public model.

    Args:
        like: one of `REAL_SHAPES`.
        layers: fewer layers than it has, or None for all: the time of one layer does not depend on how many follow.

    Raises:
        MethodError: no such model, or more layers than it has.
    """
    if like not in REAL_SHAPES:
        meant = did_you_mean(like, REAL_SHAPES)
        raise MethodError(f"There are no shapes of '{like}'{meant}; there are those of {', '.join(REAL_SHAPES)}.")
    shape = dict(REAL_SHAPES[like])
    if layers is not None:
        if not 1 <= layers <= shape["num_hidden_layers"]:
            raise MethodError(f"{like} has {shape['num_hidden_layers']} layers: take 1 to that many, not {layers}.")
        shape["num_hidden_layers"] = layers
    return _configuration(shape)


def tiny_configuration(architecture: str) -> Any:
    """The configuration of a model of a few thousand parameters.

    Raises:
        MethodError: none of `TINY_SHAPES`.
    """
    if architecture not in TINY_SHAPES:
        raise MethodError(f"There is no tiny '{architecture}'; there are {', '.join(TINY_SHAPES)}.")
    return _configuration(TINY_SHAPES[architecture])


def _configuration(shape: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**shape)


def random_configuration(name: str, *, layers: int | None = None) -> Any:
    """The configuration of a public model, or that of a tiny one by its architecture.

    Args:
        name: one of `REAL_SHAPES` or of `TINY_SHAPES`.
        layers: fewer layers than a public model has; None for all.

    Raises:
        MethodError: neither, or layers that it has not.
    """
    if name not in TINY_SHAPES:
        return real_configuration(name, layers=layers)
    if layers is not None:
        raise MethodError(f"'{name}' is a tiny model already, and keeps its layers.")
    return tiny_configuration(name)


def random_model(
    configuration: Any, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", seed: int = 0
) -> Any:
    """A causal language model with random weights, in evaluation mode, made on its device.

    The random state of the caller stays as it is.

    Args:
        configuration: as the functions above make it.
        seed: the same seed gives the same weights on the same kind of device.

    Raises:
        MethodError: it does not fit into the processor's memory.
    """
    from transformers import AutoModelForCausalLM

    target = torch.device(device)
    with torch.device("meta"):  # or torch would give each weight a random value first, and transformers another one
        model = AutoModelForCausalLM.from_config(configuration, dtype=dtype)
    needed = dtype.itemsize * sum(weights.numel() for weights in model.parameters())
    require_free(needed, target, "The model", "take fewer layers, or numbers of fewer bits")
    model.to_empty(device=target)
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        torch.manual_seed(seed)
        model.initialize_weights()
    model.tie_weights()
    return model.eval()
