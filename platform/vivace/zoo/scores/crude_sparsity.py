"""Crude activation sparsity: inputs of linears dropped by magnitude or at random, to see how quality falls.

`teal` and `random-channels` do so for real, but for two sequences at once at most: many answers are written together
here, and a curve of them would take many times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

SparsityRule = Literal["magnitude", "random"]


def magnitude_thresholds(model: Any, texts: Sequence[torch.Tensor], sparsity: float) -> dict[str, float]:
    """The magnitude below which each linear's inputs lie in a share of all cases.

    Args:
        model: a dense causal language model of transformers.
        texts: token ids to calibrate on, each of shape (1, length).
        sparsity: the share.

    Returns:
        Name of each linear of the blocks → its threshold.
    """
    import torch

    seen: dict[str, list[torch.Tensor]] = {}
    with ExitStack() as hooks, torch.inference_mode():
        for name, linear in _linears(model):

            def keep(module: Any, inputs: tuple[torch.Tensor], name: str = name) -> None:
                seen.setdefault(name, []).append(inputs[0].abs().flatten())

            hooks.callback(linear.register_forward_pre_hook(keep).remove)
        for text in texts:
            model(text, use_cache=False)
    return {name: float(torch.cat(magnitudes).quantile(sparsity)) for name, magnitudes in seen.items()}


@contextmanager
def dropped_inputs(
    model: Any, rule: SparsityRule, sparsity: float, thresholds: Mapping[str, float], seed: int = 0
) -> Iterator[None]:
    """Set a share of the inputs of all linears of the blocks to zero, while the context lasts.

    Args:
        model: a dense causal language model of transformers.
        rule: `magnitude` drops inputs below their linear's threshold; `random` drops any.
        sparsity: the share that `random` drops.
        thresholds: of each linear, as `magnitude_thresholds` gives them.
        seed: of the random rule.
    """
    import torch

    chance = torch.Generator().manual_seed(seed)
    with ExitStack() as hooks:
        for name, linear in _linears(model):

            def drop(module: Any, inputs: tuple[torch.Tensor], name: str = name) -> tuple[torch.Tensor]:
                (given,) = inputs
                if rule == "magnitude":
                    kept = given.abs() > thresholds[name]
                else:
                    kept = torch.rand(given.shape, generator=chance) >= sparsity
                return (given * kept,)

            hooks.callback(linear.register_forward_pre_hook(drop).remove)
        yield


def _linears(model: Any) -> list[tuple[str, Any]]:
    """The seven linears of each block."""
    return [(name, module) for name, module in model.named_modules() if ".layers." in name and name.endswith("_proj")]
