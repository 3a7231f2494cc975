"""The linear layers of a model that activation sparsity applies to, grouped by the input that they read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.models.implementations import has_experts
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.only import name_pattern

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block of Llama, Mistral, Qwen, Gemma and their kin, by their names."""
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Those that read the same input."""
_BLOCK = re.compile(r"(?:.*\.)?layers\.\d+\.")


@dataclass(frozen=True)
class Group:
    """Linear layers that read one input, in the order in which the model calls them.

    Attributes:
        names: of the modules, as `named_modules` of the model gives them.
        modules: plain `torch.nn.Linear`s with as many inputs each.
    """

    names: tuple[str, ...]
    modules: tuple[torch.nn.Linear, ...]

    @property
    def inputs(self) -> int:
        """Features that all of them read."""
        return int(self.modules[0].in_features)


def find_groups(model: Any, only: str = "") -> list[Group]:
    """The seven linear layers of each block of a model's text decoder, in the order in which they are met.

    Args:
        model: a causal language model of transformers, or an audio model whose decoder is one.
        only: a regular expression; layers in whose names it is not found stay as they are. Empty takes all.

    Raises:
        MethodError: quantised weights, experts, tied weights, layers that are no plain linear ones, or none at all.
    """
    _require_plain_weights(model)
    decoder = _decoder(model)
    if has_experts(decoder):
        raise MethodError(
            f"{type(model).__name__} keeps its experts in one parameter of three dimensions, and activation sparsity "
            "takes plain linear layers: take a dense model."
        )
    names = {id(module): name for name, module in model.named_modules()}
    groups = list(_groups(decoder, names, name_pattern(only)))
    if not groups:
        asked = f" in whose name '{only}' is found" if only else ""
        raise MethodError(
            f"{type(model).__name__} has no linear layers {', '.join(SEVEN)} in blocks named layers.N{asked}."
        )
    _require_untied(model, groups)
    return groups


def block_of(name: str) -> str:
    """The path of the block that a layer of this name belongs to."""
    found = _BLOCK.match(name)
    assert found is not None, "find_groups gives no other layers"
    return found[0].removesuffix(".")


def by_block(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups of one block together, in the order in which blocks are met."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(block_of(group.names[0]), []).append(group)
    return list(found.values())


def _groups(decoder: Any, names: dict[int, str], only: re.Pattern[str]) -> Iterator[Group]:
    for path, parent in decoder.named_modules():
        if not _BLOCK.fullmatch(f"{path}.") and not _BLOCK.match(path):
            continue
        for together in TOGETHER:
            found = [(names[id(child)], child) for role in together if (child := getattr(parent, role, None))]
            chosen = [(name, child) for name, child in found if only.search(name)]
            for name, child in chosen:
                _require_linear(name, child)
            # Those with another number of inputs read another input, whatever they are called.
            for inputs in dict.fromkeys(child.in_features for _, child in chosen):
                its = [(name, child) for name, child in chosen if child.in_features == inputs]
                yield Group(tuple(name for name, _ in its), tuple(child for _, child in its))


def _decoder(model: Any) -> Any:
    """The part that reads text: an audio model's encoder has layers of the same names."""
    if hasattr(model, "get_decoder"):
        decoder = model.get_decoder()
        if decoder is not None:
            return decoder
    return model


def _require_plain_weights(model: Any) -> None:
    configuration = getattr(model, "config", None)
    if getattr(model, "is_quantized", False) or getattr(configuration, "quantization_config", None) is not None:
        raise MethodError(
            f"The weights of this {type(model).__name__} are quantised, and activation sparsity takes float32, "
            "bfloat16 or float16: load it without quantisation."
        )


def _require_linear(name: str, module: Any) -> None:
    if type(module) is not torch.nn.Linear:
        raise MethodError(
            f"{name} is a {type(module).__name__} and no plain linear layer: activation sparsity does not know what "
            "it computes."
        )
    if not module.weight.dtype.is_floating_point or module.weight.dtype.itemsize == 1:
        raise MethodError(
            f"The weights of {name} are {module.weight.dtype}: load them as float32, bfloat16 or float16."
        )


def _require_untied(model: Any, groups: list[Group]) -> None:
    """A weight with two uses would be dropped from in one of them only, and be counted twice."""
    owners: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        owners.setdefault(_place(weight), []).append(name)
    for group in groups:
        for name, module in zip(group.names, group.modules, strict=True):
            tied = [owner for owner in owners.get(_place(module.weight), []) if owner != f"{name}.weight"]
            if tied and module.weight.numel():
                raise MethodError(
                    f"The weights of {name} are tied to {tied[0]}: leave them out with the setting only."
                )


def _place(weight: torch.Tensor) -> int:
    """Where a weight lies; of a model in no memory, where all lie at zero, which object it is."""
    return weight.data_ptr() or id(weight)
