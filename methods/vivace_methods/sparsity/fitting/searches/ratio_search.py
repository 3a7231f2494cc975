"""How R-Sparse finds for each layer the share that goes to exact columns, and what its low-rank part is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch

from vivace_methods.sparsity.applying.linears import Group
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.budget import budget
from vivace_methods.sparsity.fitting.criteria import Criterion, FactorFit
from vivace_methods.sparsity.fitting.in_order import fit_in_order, fit_work
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
from vivace_methods.sparsity.fitting.searches.descent import Choice, Descent
from vivace_methods.sparsity.fitting.searches.evolution import Evolution, Trait
from vivace_methods.sparsity.fitting.searches.journal import Journal
from vivace_methods.sparsity.fitting.searches.levels import greedy_levels, levels_work
from vivace_methods.sparsity.fitting.steps import OnStep, Parts

Levels = Mapping[str, float]
"""Name of each layer → the share of its weights that a token does not read."""

RATIOS = (1.0, 0.98, 0.95, 0.9, 0.8, 0.65, 0.5, 0.3)
"""That a search tries for each layer."""
FEW_RATIOS = (0.95, 0.8)
"""That a search tries whose every trial is a pass of the whole model."""
UNIFORM = 0.95
"""The paper's ratio where all layers have the same."""


class Way(NamedTuple):
    """In which one layer may be fitted.

    Attributes:
        ratio: share of what is read that goes to exact columns.
        criterion: by what inputs are judged large.
        factors: what the low-rank part is fitted to.
    """

    ratio: float
    criterion: Criterion
    factors: FactorFit

    def __str__(self) -> str:
        return f"{self.ratio} {self.criterion}" + (f" {self.factors}" if self.ratio < 1 else "")


class RatioSettings(Protocol):
    """What R-Sparse is set to; `RSparse` says what each setting means."""

    @property
    def sparsity(self) -> float: ...
    @property
    def ratio(self) -> float | None: ...
    @property
    def levels(self) -> str: ...
    @property
    def search(self) -> str: ...
    @property
    def criterion(self) -> Criterion | Literal["released"]: ...
    @property
    def factors(self) -> FactorFit | None: ...
    @property
    def sequential(self) -> bool: ...


class RatioFit:
    """The fitting of a model's layers, one after the other, as the settings of R-Sparse say.

    Args:
        settings: of the method.
    """

    def __init__(self, settings: RatioSettings) -> None:
        self._settings = settings

    def run(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A ratio, a threshold and two factors for each layer."""
        if self._settings.ratio is None and self._settings.search == "divergence":
            return self._descend(model, groups, texts, about, journal)
        fitting = Evolution.work(groups) if self._settings.search == "evolutionary" else fit_work(texts)
        parts = Parts(about.on_step, {"levels": self._levels_work(texts), "fit": fitting})
        way = next(self._ways(1.0, searched=False))
        levels = self._levels(way, model, groups, texts, parts.of("levels"), journal)
        if self._settings.ratio is None and self._settings.search == "evolutionary":
            evolution = Evolution(self._trait(levels), RATIOS, UNIFORM)
            return evolution.run(model, groups, texts, journal=journal, on_step=parts.of("fit"))
        trait = self._trait(levels)
        log: list[dict[str, Any]] = []

        def choose(layer: LayerFit) -> Fitted:
            if self._settings.ratio is not None:
                return trait(layer, self._settings.ratio)
            return self._best(levels, layer, journal, log)

        fitted = fit_in_order(
            model, groups, texts, choose, sequential=self._settings.sequential, on_step=parts.of("fit")
        )
        return fitted, log

    def _levels(
        self,
        way: Way,
        model: Any,
        groups: Sequence[Group],
        texts: Sequence[torch.Tensor],
        on_step: OnStep,
        journal: Journal,
    ) -> Levels:
        """Of all layers, as they would be fitted in one way."""
        if self._settings.levels == "uniform":
            return dict.fromkeys((name for group in groups for name in group.names), self._settings.sparsity)

        def fit(layer: LayerFit, level: float) -> Fitted:
            return self._fit({layer.name: level}, layer, way)

        return greedy_levels(
            model, groups, texts, self._settings.sparsity, fit, journal=journal, rule=str(way), on_step=on_step
        )

    def _levels_work(self, texts: Sequence[torch.Tensor]) -> float:
        return levels_work(texts) if self._settings.levels == "greedy" else 0.0

    def _trait(self, levels: Levels) -> Trait:
        def fit(layer: LayerFit, ratio: float) -> Fitted:
            return self._fit(levels, layer, next(self._ways(ratio, searched=False)))

        return fit

    @staticmethod
    def _fit(levels: Levels, layer: LayerFit, way: Way) -> Fitted:
        outputs, inputs = layer.weight.shape
        level = levels[layer.name]
        its = budget(inputs, outputs, level, way.ratio)
        return layer.fit(its, way.criterion, way.factors, level, way.ratio)

    def _ways(self, ratio: float, searched: bool) -> Iterator[Way]:
        """In which a layer may be fitted at a ratio, the usual one first."""
        for criterion in self._criteria(ratio, searched):
            for factors in self._factors(ratio, searched):
                yield Way(ratio, criterion, factors)

    def _factors(self, ratio: float, searched: bool) -> tuple[FactorFit, ...]:
        if self._settings.factors is not None:
            return (self._settings.factors,)
        return ("svd", "dropped") if searched and ratio < 1 else ("svd",)

    def _criteria(self, ratio: float, searched: bool) -> Iterator[Criterion]:
        if self._settings.criterion in ("magnitude", "column-norm"):
            yield self._settings.criterion
            return
        norm: Criterion = (
            "residual-norm" if self._settings.criterion == "residual-norm" and ratio < 1 else "column-norm"
        )
        if searched:
            yield from ("magnitude", norm)
        else:
            yield "magnitude" if ratio == 1 else norm

    def _descend(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """From plain thresholds, layer by layer to what moves predictions less.

        Column norms are where it begins only where they are better by more than chance: at half of the weights they
        did worse on the zoo than magnitudes, though a calibration text had them a little ahead. All texts tell, for
        next to nothing of a threshold is learned from any one.
        """
        all_texts = Descent(model, groups, texts)
        begun: dict[str, Fitted] = {}
        layers: dict[str, LayerFit] = {}
        levels: Levels = {}
        ways = list(self._ways(1.0, searched=True))
        work: dict[str, float] = {}
        for way in ways:
            work |= {f"levels {way}": self._levels_work(texts), f"fit {way}": fit_work(texts)}
        parts = Parts(about.on_step, {**work, "descent": Descent.work(groups, texts)})
        for way in ways:
            its_levels = self._levels(way, model, groups, texts, parts.of(f"levels {way}"), journal)
            its_layers: dict[str, LayerFit] = {}

            def choose(layer: LayerFit, way: Way = way, at: Levels = its_levels, its: Any = its_layers) -> Fitted:
                its[layer.name] = layer
                return self._fit(at, layer, way)

            fitting = parts.of(f"fit {way}")
            other = fit_in_order(model, groups, texts, choose, sequential=self._settings.sequential, on_step=fitting)
            if not begun or journal.get(f"all {way}", partial(all_texts.change, begun, other)) < 0:
                begun, layers, levels = other, its_layers, its_levels

        def choices(name: str) -> dict[str, Choice]:
            ways = [way for way in self._ways(1.0, searched=True) if way.criterion != begun[name].recipe.criterion]
            for ratio in FEW_RATIOS:
                usual = next(self._criteria(ratio, searched=False))
                ways += [way for way in self._ways(ratio, searched=True) if way.criterion == usual]
            return {str(way): partial(self._fit, levels, layers[name], way) for way in ways}

        descent = Descent(model, groups, list(texts[1::2]) or texts)
        return descent.run(begun, choices, journal=journal, on_step=parts.of("descent"))

    def _best(self, levels: Levels, layer: LayerFit, journal: Journal, log: list[dict[str, Any]]) -> Fitted:
        """What loses least of a layer's output; of equals the one with more exact columns."""
        tried = [way for ratio in RATIOS for way in self._ways(ratio, searched=True)]
        errors = {}
        made: dict[Way, Fitted] = {}
        for way in tried:

            def measure(way: Way = way) -> float:
                made[way] = self._fit(levels, layer, way)
                error = made[way].recipe.output_error
                assert error is not None
                return error

            errors[way] = journal.get(f"{layer.name} {way}", measure)
            log.append({"layer": layer.name, **way._asdict(), "output_error": errors[way]})
        best = min(tried, key=lambda each: errors[each])
        return made[best] if best in made else self._fit(levels, layer, best)
