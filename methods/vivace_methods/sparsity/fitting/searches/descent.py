"""A search by what the whole model loses: layer by layer, the fit under which its predictions move least."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vivace_methods.sparsity.applying.groups import applied_groups, uncounted_group
from vivace_methods.sparsity.applying.linears import Group
from vivace_methods.sparsity.fitting.calibration import READ, batches
from vivace_methods.sparsity.fitting.layers import Fitted
from vivace_methods.sparsity.fitting.searches.journal import Journal

PARTS = 3
"""Of the texts; what does no better on the first is not tried on the others."""
SURE = 2.0
"""Standard errors by which a change must be for the better. With one, what was taken on 96 texts did worse on others
than what it began from."""
TRIED = 4
"""Choices of a layer, about."""
Choice = Callable[[], Fitted]
"""Fits a layer in one of the ways that it may be done."""


class Descent:
    """Predictions of a model with sparse layers, held against those of the dense one.

    Args:
        model: with nothing applied.
        groups: its layers.
        texts: token ids, each of shape (1, length), that nothing is fitted on. Their second parts are sparse, and are
            what counts.
    """

    def __init__(self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor]) -> None:
        self._model, self._groups = model, groups
        parts = [texts[first::PARTS] for first in range(PARTS)]
        self._parts = [[rows.to(model.device) for rows in batches(part)] for part in parts if part]
        self._dense = [[self._predictions(rows) for rows in part] for part in self._parts]

    @staticmethod
    def work(groups: Sequence[Group], texts: Sequence[torch.Tensor]) -> float:
        """How much is to be done, about, in tokens that go through the whole model."""
        layers = sum(len(group.names) for group in groups)
        tokens: int = sum(text.shape[1] for text in texts)
        return layers * TRIED * tokens / 4  # of half of them, often a part

    def divergence(self, fitted: Mapping[str, Fitted]) -> torch.Tensor:
        """The Kullback-Leibler divergence from the dense model's predictions, in nats: of each text, a token's mean.

        Returns:
            Shape (texts,), part by part.
        """
        return torch.cat([self._part(fitted, number) for number in range(len(self._parts))])

    def change(self, before: Mapping[str, Fitted], after: Mapping[str, Fitted]) -> float:
        """The upper end of how much the divergence grows: below zero where what is after is surely better."""
        return _upper_end(self.divergence(after) - self.divergence(before))

    def _part(self, fitted: Mapping[str, Fitted], number: int) -> torch.Tensor:
        found = []
        with applied_groups([uncounted_group(group, fitted) for group in self._groups]):
            for rows, dense in zip(self._parts[number], self._dense[number], strict=True):
                found.append((dense.exp() * (dense - self._predictions(rows))).sum(-1).mean(-1).cpu())
        return torch.cat(found).double()

    def _predictions(self, rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self._model(rows, use_cache=False).logits[:, int(READ * rows.shape[1]) :]
            return logits.float().log_softmax(-1)

    def run(
        self,
        start: Mapping[str, Fitted],
        choices: Callable[[str], Mapping[str, Choice]],
        *,
        journal: Journal,
        on_step: Callable[[int, int], None],
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """Go through the layers once, and take for each what moves predictions less, all others as they are.

        A few texts that go wrong make most of the divergence, and what helps them by chance helps no others. So a
        change must be for the better by more than its standard error over texts, and twice so.

        Args:
            start: name of each layer → what it is before.
            choices: the other ways in which a layer may be fitted, by their names.
            journal: keeps the upper end of each change.
            on_step: told of the choices that were measured and of all.

        Returns:
            Name of each layer → what was taken, and what was tried, in order.
        """
        best = dict(start)
        state = {name: _name(each) for name, each in best.items()}
        present: list[torch.Tensor] = []
        log: list[dict[str, Any]] = []
        ways = {name: choices(name) for name in best}
        steps, done = sum(map(len, ways.values())), 0
        for name in best:
            for way, fit in ways[name].items():
                measured: list[tuple[Fitted, list[torch.Tensor]]] = []

                def change(fit: Choice = fit, name: str = name, measured: Any = measured) -> float:
                    present[:] = present or [self._part(best, number) for number in range(len(self._parts))]
                    made = fit()
                    found: list[torch.Tensor] = []
                    for number, before in enumerate(present):
                        found.append(self._part({**best, name: made}, number))
                        if float((found[number] - before).mean()) >= 0:
                            break  # what is no better on a part of the texts is hardly for certain on all
                    measured.append((made, found))
                    upper = _upper_end(torch.cat(found) - torch.cat(present[: len(found)]))
                    return upper if len(found) == len(present) else max(upper, 0.0)

                upper = journal.get(_key({**state, name: way}), change)
                log.append({"layer": name, "choice": way, "change": upper, "taken": upper < 0})
                if upper < 0:
                    best[name], present[:] = measured[0] if measured else (fit(), [])
                    state[name] = way
                done += 1
                on_step(done, steps)
        return best, log


def _upper_end(changes: torch.Tensor) -> float:
    """The mean, and some standard errors more."""
    error = changes.std() / len(changes) ** 0.5 if len(changes) > 1 else 0.0
    return float(changes.mean() + SURE * error)


def _name(fitted: Fitted) -> str:
    return f"{fitted.recipe.ratio} {fitted.recipe.criterion}"


def _key(state: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
