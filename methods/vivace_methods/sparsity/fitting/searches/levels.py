"""Levels of sparsity for the layers of a block: not the same for all, where some bear more than others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from vivace_methods.sparsity.applying.groups import applied_groups, uncounted_group
from vivace_methods.sparsity.applying.linears import Group, block_of, by_block
from vivace_methods.sparsity.fitting.calibration import READ
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
from vivace_methods.sparsity.fitting.searches.journal import Journal
from vivace_methods.sparsity.fitting.walk import Walk

STEP = 0.05
"""By which a level is raised at a time."""
MOST = 0.95
TOKENS = 1024
"""Of the texts that levels are searched on, about: more of them gave the same levels, to a step or two."""
PASSES = 120
"""Of each block while its levels are searched, about."""
FitAt = Callable[[LayerFit, float], Fitted]
"""Fits a layer at a level."""


def greedy_levels(
    model: Any,
    groups: Sequence[Group],
    texts: Sequence[torch.Tensor],
    sparsity: float,
    fit: FitAt,
    *,
    journal: Journal,
    rule: str = "",
    on_step: Callable[[int, int], None],
) -> dict[str, float]:
    """Raise the levels of each block's layers step by step, where its output suffers least per weight spared.

    Source: TEAL's block-wise greedy search (Liu et al., arXiv 2408.14690), in which steps are inverse to a layer's
    size; here they are alike, and what they cost is, for layers of very different sizes. Blocks meet what dense ones
    give.

    Args:
        model: with nothing applied.
        groups: its layers.
        texts: token ids, each of shape (1, length). Their second parts are sparse, and are what counts.
        sparsity: of each block.
        fit: fits a layer at a level.
        journal: keeps what each step would lose.
        rule: by which layers are fitted, where a journal is of several.
        on_step: told of the blocks that are done and of all.

    Returns:
        Name of each layer → its level.
    """
    blocks = by_block(groups)
    some = texts[:: max(1, sum(text.shape[1] for text in texts) // TOKENS)]
    walk = Walk(model, groups, some)
    levels: dict[str, float] = {}
    for number, its in enumerate(blocks):
        levels |= _Block(model, its, walk, fit, journal, rule).levels(sparsity)
        on_step(number + 1, len(blocks))
    return levels


def levels_work(texts: Sequence[torch.Tensor]) -> float:
    """How much is to be done, about, in tokens that go through the whole model."""
    tokens: int = sum(text.shape[1] for text in texts)
    return PASSES * min(TOKENS, tokens)


class _Block:
    """A block with what it reads and gives in the dense model."""

    def __init__(
        self, model: Any, groups: Sequence[Group], walk: Walk, fit: FitAt, journal: Journal, rule: str
    ) -> None:
        path = block_of(groups[0].names[0])
        self._key, self._groups, self._fit, self._journal = f"{path} {rule}", groups, fit, journal
        self._block = model.get_submodule(path)
        self._layers: dict[str, LayerFit] = {}
        self._made: dict[tuple[str, float], Fitted] = {}
        self._sizes: dict[str, int] = {}
        for group, inputs in zip(groups, walk.inputs(groups), strict=True):
            for name, module in zip(group.names, group.modules, strict=True):
                self._layers[name] = LayerFit(name, module.weight, inputs)
                self._sizes[name] = int(module.weight.numel())
        self._calls = [(call, call.of(self._block)) for call in walk.calls(path)]

    def levels(self, sparsity: float) -> dict[str, float]:
        """Of each layer, so that of all weights together so many are spared."""
        levels = dict.fromkeys(self._layers, 0.0)
        left, lost = sparsity * sum(self._sizes.values()), 0.0
        price = dict.fromkeys(self._layers, 0.0)  # of the next step: what is lost for each weight that it spares
        while left > 0.5 and price:
            name = min(price, key=lambda each: price[each])
            level = min(levels[name] + min(STEP, left / self._sizes[name]), MOST)
            spared = (level - levels[name]) * self._sizes[name]
            if spared < 0.5:
                del price[name]  # as sparse as may be
                continue
            trial = {**levels, name: level}
            key = f"{self._key} {' '.join(f'{each:.6f}' for each in trial.values())}"
            found = self._journal.get(key, partial(self._lost, trial))
            price[name] = (found - lost) / spared
            # Prices were found out before others were paid. They hardly fall, so that only the lowest is asked again.
            if price[name] <= min(price.values()):
                levels[name], lost = level, found
                left -= spared
        return levels

    def _lost(self, levels: Mapping[str, float]) -> float:
        """The squares of what the output loses."""
        fitted = {name: self._fitted(name, level) for name, level in levels.items()}
        total = 0.0
        with applied_groups([uncounted_group(group, fitted) for group in self._groups]):
            for call, dense in self._calls:
                lost = (call.of(self._block) - dense)[:, int(READ * dense.shape[1]) :]
                total += float(lost.float().square().sum())
        return total

    def _fitted(self, name: str, level: float) -> Fitted:
        if (name, level) not in self._made:
            self._made[name, level] = self._fit(self._layers[name], level)
        return self._made[name, level]
