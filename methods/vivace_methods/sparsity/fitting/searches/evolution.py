"""R-Sparse's evolutionary search: ratios of the layers under which the whole model's perplexity is lowest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.sparsity.applying.groups import applied_groups, uncounted_group
from vivace_methods.sparsity.applying.linears import Group, by_block
from vivace_methods.sparsity.fitting.calibration import READ, batches
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
from vivace_methods.sparsity.fitting.searches.journal import Journal
from vivace_methods.sparsity.fitting.walk import Walk

LENGTH = 256
"""Tokens of a text, about."""
Trait = Callable[[LayerFit, float], Fitted]
"""Fits a layer at a ratio."""


@dataclass(frozen=True)
class Evolution:
    """Algorithm 1 of R-Sparse (arXiv 2504.19449): group by group of layers, with the others at their best so far.

    A candidate has a ratio for each layer of its group. The better half of a generation are parents; a child is a
    parent, or with a chance of `crossover` takes each ratio from one of two parents, and with a chance of `mutation`
    a quarter of its ratios are drawn anew. The parents stay in the next generation.

    Attributes:
        fit: fits a layer at a ratio.
        ratios: that are tried.
        uniform: the ratio of all layers in the first candidate.
        population: candidates of a generation.
        generations: after the first.
        crossover: the chance that a child has two parents.
        mutation: the chance that a child is changed.
        samples: texts, the first ones, whose mean perplexity is the fitness.
        layers: of a group that is searched at a time.
        seed: of all chances.
    """

    fit: Trait
    ratios: Sequence[float]
    uniform: float
    population: int = 32
    generations: int = 5
    crossover: float = 0.5
    mutation: float = 0.5
    samples: int = 16
    layers: int = 28
    seed: int = 0

    @classmethod
    def work(cls, groups: Sequence[Group]) -> float:
        """How much is to be done, about, in tokens that go through the whole model."""
        parts = -(-sum(len(group.names) for group in groups) // cls.layers)
        return parts * (cls.generations + 1) * cls.population * cls.samples * LENGTH

    def run(
        self,
        model: Any,
        groups: Sequence[Group],
        texts: Sequence[torch.Tensor],
        *,
        journal: Journal,
        on_step: Callable[[int, int], None],
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """Search.

        Args:
            model: with nothing applied.
            groups: its layers.
            texts: token ids, each of shape (1, length): all to fit on, the first ones to measure perplexity on.
            journal: keeps each candidate's perplexity.
            on_step: told of the candidates that were measured and of all.

        Returns:
            Name of each layer → what was fitted, and the candidates in the order in which they were measured.
        """
        fits = _Fits(self.fit, model, groups, texts)
        names = [name for group in groups for name in group.names]
        best = dict.fromkeys(names, self.uniform)
        chance = torch.Generator().manual_seed(self.seed)
        log: list[dict[str, Any]] = []
        parts = [names[first : first + self.layers] for first in range(0, len(names), self.layers)]
        steps = len(parts) * (self.generations + 1) * self.population

        def perplexity(part: Sequence[str], ratios: tuple[float, ...]) -> float:
            whole = {**best, **dict(zip(part, ratios, strict=True))}
            key = hashlib.sha256(repr(sorted(whole.items())).encode()).hexdigest()
            found = journal.get(key, lambda: fits.perplexity(whole, texts[: self.samples]))
            log.append({"layers": f"{part[0]} to {part[-1]}", "ratios": list(ratios), "perplexity": found})
            on_step(len(log), steps)
            return found

        for part in parts:
            candidates = self._first(part, best, chance)
            fitness = {each: perplexity(part, each) for each in candidates}
            for _ in range(self.generations):
                parents = sorted(fitness, key=lambda each: (fitness[each], each))[: self.population // 2]
                children = [self._child(parents, chance) for _ in range(self.population)]
                fitness = {each: fitness[each] for each in parents}
                fitness |= {each: perplexity(part, each) for each in children if each not in fitness}
            fittest = min(fitness, key=lambda each: (fitness[each], each))
            best |= dict(zip(part, fittest, strict=True))
        on_step(steps, steps)
        return {name: fits.fitted(name, ratio) for name, ratio in best.items()}, log

    def _first(self, part: Sequence[str], best: dict[str, float], chance: torch.Generator) -> list[tuple[float, ...]]:
        drawn = [self._draw(len(part), chance) for _ in range(self.population - 2)]
        so_far = tuple(best[name] for name in part)
        return list(dict.fromkeys([so_far, (1.0,) * len(part), *drawn]))

    def _child(self, parents: Sequence[tuple[float, ...]], chance: torch.Generator) -> tuple[float, ...]:
        one, other = (parents[int(torch.randint(len(parents), (1,), generator=chance))] for _ in range(2))
        child = list(one)
        if float(torch.rand(1, generator=chance)) < self.crossover:
            swapped = (torch.rand(len(child), generator=chance) < 0.5).tolist()
            child = [theirs if swap else mine for mine, theirs, swap in zip(one, other, swapped, strict=True)]
        if float(torch.rand(1, generator=chance)) < self.mutation:
            changed = (torch.rand(len(child), generator=chance) < 0.25).tolist()
            drawn = self._draw(len(child), chance)
            child = [new if change else old for old, new, change in zip(child, drawn, changed, strict=True)]
        return tuple(child)

    def _draw(self, count: int, chance: torch.Generator) -> tuple[float, ...]:
        places = torch.randint(len(self.ratios), (count,), generator=chance)
        return tuple(self.ratios[int(place)] for place in places)


class _Fits:
    """Layers fitted at ratios, each once, on what they read in the dense model."""

    def __init__(self, fit: Trait, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor]) -> None:
        self._fit, self._model, self._groups = fit, model, groups
        walk = Walk(model, groups, texts)
        self._layers = {
            name: LayerFit(name, module.weight, inputs)
            for block in by_block(groups)
            for group, inputs in zip(block, walk.inputs(block), strict=True)
            for name, module in zip(group.names, group.modules, strict=True)
        }
        self._fitted: dict[tuple[str, float], Fitted] = {}

    def fitted(self, name: str, ratio: float) -> Fitted:
        """A layer at a ratio."""
        if (name, ratio) not in self._fitted:
            self._fitted[name, ratio] = self._fit(self._layers[name], ratio)
        return self._fitted[name, ratio]

    def perplexity(self, ratios: dict[str, float], texts: Sequence[torch.Tensor]) -> float:
        """The mean over texts of the perplexity of their second part, which is sparse."""
        fitted = {name: self.fitted(name, ratio) for name, ratio in ratios.items()}
        with applied_groups([uncounted_group(group, fitted) for group in self._groups]):
            found = [each for batch in batches(texts) for each in _perplexities(self._model, batch)]
        return sum(found) / len(found)


def _perplexities(model: Any, rows: torch.Tensor) -> Iterator[float]:
    ids = rows.to(model.device)
    first = int(READ * ids.shape[1])
    every = model(ids, use_cache=False).logits[:, first:-1].float()
    for row, logits in zip(ids, every, strict=True):
        yield math.exp(min(float(torch.nn.functional.cross_entropy(logits, row[first + 1 :])), 700.0))
