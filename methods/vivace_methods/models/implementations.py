"""Which kernels a transformers model runs with, for attention, experts and dense products: chosen, then put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from vivace_kernels.dense_gemv_cpu import dense_gemv_cpu, fastest_product
from vivace_kernels.speculation.expert_product import expert_product
from vivace_kernels.speculation.experts import fits_kernel
from vivace_methods.devices import require_attention
from vivace_methods.errors import MethodError
from vivace_methods.models.replaced_forward import replaced_forward

LEAST_WEIGHTS = 2**20
"""Of a matrix whose product is chosen: fewer lie in a cache near the core, where calling takes as long as reading."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OWN_EXPERTS = "vivace"
"""The name under which transformers knows the kernels of `vivace_kernels.speculation`."""


def has_experts(model: Any) -> bool:
    """Whether a model is a mixture of experts whose kernels transformers can switch."""
    return any(name.rpartition(".")[2] == "experts" for name, _ in model.named_modules())


def require_experts(model: Any) -> None:
    """Refuse a model without experts, where kernels for them are asked for.

    Raises:
        MethodError: it has none.
    """
    if not has_experts(model):
        raise MethodError(
            f"{type(model).__name__} has no experts: leave experts_implementation at auto, or take a model with some."
        )


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
    require_attention(implementation, model.device.type)
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
    """Run a model's experts with an implementation of transformers, or with Vivace's own, while the context lasts.

    Args:
        model: a mixture of experts.
        implementation: a name that transformers knows, or `OWN_EXPERTS`.

    Raises:
        MethodError: the model has no experts, or this machine cannot run the implementation.
    """
    require_experts(model)
    before = model.get_experts_implementation()
    if implementation == OWN_EXPERTS:
        _register_own_experts()
    try:
        try:
            model.set_experts_implementation(implementation)
        except (ValueError, ImportError) as error:
            raise MethodError(f"{implementation} is not available here: {_first_sentence(error)}") from error
        yield
    finally:
        model.set_experts_implementation(before)


def _register_own_experts() -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

    def forward(
        module: torch.nn.Module, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        # Experts of other forms than Mixtral's, as gpt-oss has them, stay with transformers; so do prompts on a GPU.
        ours = _has_plain_experts(module) and (hidden.device.type == "cpu" or fits_kernel(hidden))
        if not ours or torch.is_grad_enabled():
            return grouped_mm_experts_forward(module, hidden, index, weights)
        return expert_product(hidden, module.gate_up_proj, module.down_proj, index, weights)

    ALL_EXPERTS_FUNCTIONS.register(OWN_EXPERTS, forward)


def _has_plain_experts(module: Any) -> bool:
    """Whether an expert is down · (silu(gate · x) * (up · x)), with gate above up, rows of outputs and no bias."""
    special = (module.has_bias, module.has_post_expert_norm, module.is_transposed, not module.is_concatenated)
    usual_gate = module.has_gate and type(module)._apply_gate.__name__ == "_default_apply_gate"
    return usual_gate and not any(special) and module.config.hidden_act == "silu"


@contextmanager
def products(model: Any) -> Iterator[dict[str, str]]:
    """Multiply single tokens with large matrices by the fastest product of this processor, while the context lasts.

    `torch.nn.Linear` goes through `F.linear`, which some processors have faster products than. Which is the fastest
    is tried once in a process for each shape and type. Several tokens at once, small matrices, other devices and
    layers whose forward somebody else has replaced stay as they are.

    Yields:
        Shape of the weights, as `4096x11008` (inputs and outputs), and their type → the product that is taken.
    """
    alike: dict[tuple[int, int, torch.dtype], list[torch.nn.Linear]] = {}
    for module in model.modules():
        if type(module) is torch.nn.Linear and "forward" not in vars(module) and _is_large(module.weight):
            alike.setdefault((module.in_features, module.out_features, module.weight.dtype), []).append(module)
    taken: dict[str, str] = {}
    with ExitStack() as restored:
        for (inputs, outputs, dtype), modules in alike.items():
            product = fastest_product([module.weight for module in modules]).fastest
            taken[f"{inputs}x{outputs} {str(dtype).removeprefix('torch.')}"] = product
            if product == "linear":
                continue
            for module in modules:
                restored.enter_context(replaced_forward(module, partial(_forward, module, product)))
        yield taken


def _is_large(weight: torch.Tensor) -> bool:
    plain = weight.device.type == "cpu" and weight.dtype in DTYPES and weight.is_contiguous()
    return plain and weight.numel() >= LEAST_WEIGHTS


def _forward(module: torch.nn.Linear, product: Any, x: torch.Tensor) -> torch.Tensor:
    if x.numel() != module.in_features or torch.is_grad_enabled():
        return torch.nn.Linear.forward(module, x)
    flat = dense_gemv_cpu(x.reshape(1, -1), module.weight, module.bias, product=product)
    return flat.view(*x.shape[:-1], -1)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".") + "."
