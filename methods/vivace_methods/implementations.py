"""Which attention and expert kernels a transformers model runs with, chosen for a while and then put back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vivace_methods.base import MethodError


def has_experts(model: Any) -> bool:
    """Whether a model is a mixture of experts whose kernels transformers can switch."""
    return any(name.rpartition(".")[2] == "experts" for name, _ in model.named_modules())


@contextmanager
def attention(model: Any, implementation: str) -> Iterator[None]:
    """Run a model with an attention implementation of transformers while the context lasts.

    Raises:
        MethodError: the model or this machine cannot run it.
    """
    before = _attention_implementations(model)
    try:
        _choose_attention(model, implementation)
        yield
    finally:
        model.set_attn_implementation(before)


def _choose_attention(model: Any, implementation: str) -> None:
    if implementation.startswith("flash") and model.device.type != "cuda":
        raise MethodError(f"{implementation} needs a CUDA device, and the model is on {model.device}: use sdpa.")
    try:
        model.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        raise MethodError(f"{implementation} is not available here: {_first_sentence(error)}") from error
    if model.config._attn_implementation != implementation:
        raise MethodError(f"{type(model).__name__} cannot switch its attention to {implementation}.")


def _attention_implementations(model: Any) -> dict[str, str | None]:
    """In the form that `set_attn_implementation` takes: of the model, and of each part with a configuration."""
    parts = {name: getattr(model.config, name, None) for name in model.config.sub_configs}
    found = {name: part._attn_implementation for name, part in parts.items() if part is not None}
    return {"": model.config._attn_implementation, **found}


@contextmanager
def experts(model: Any, implementation: str) -> Iterator[None]:
    """Run a model's experts with an implementation of transformers while the context lasts.

    Raises:
        MethodError: the model has no experts, or this machine cannot run the implementation.
    """
    if not has_experts(model):
        raise MethodError(
            f"{type(model).__name__} has no experts: leave experts_implementation at auto, or take a model with some."
        )
    before = model.get_experts_implementation()
    try:
        try:
            model.set_experts_implementation(implementation)
        except (ValueError, ImportError) as error:
            raise MethodError(f"{implementation} is not available here: {_first_sentence(error)}") from error
        yield
    finally:
        model.set_experts_implementation(before)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".") + "."
