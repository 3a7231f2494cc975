"""TEAL: every linear layer leaves out the inputs of least magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.budget import budget
from vivace_methods.sparsity.fitting.criteria import Criterion
from vivace_methods.sparsity.fitting.steps import Parts

if TYPE_CHECKING:
    import torch

    from vivace_methods.sparsity.applying.linears import Group
    from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
    from vivace_methods.sparsity.fitting.searches.journal import Journal


@dataclass(frozen=True)
class Teal(ActivationSparsity):
    """Inputs whose magnitude is below their layer's threshold are left out, with their columns of weights.

    Source: Liu et al., arXiv 2408.14690. Thresholds are quantiles of magnitudes on calibration text.

    Attributes:
        levels: `uniform` is one for all layers; `greedy` searches one for each layer of a block, by what the block's
            output loses, so that the block as a whole is as sparse.
        sequential: whether each layer is calibrated on what the sparse layers before it give, or all on dense ones.
    """

    name: ClassVar[str] = "teal"
    paper: ClassVar[str] = "Training-Free Activation Sparsity in Large Language Models, arXiv 2408.14690"
    criterion: ClassVar[Criterion] = "magnitude"

    levels: Literal["uniform", "greedy"] = "uniform"
    sequential: bool = True

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A threshold for each layer."""
        from vivace_methods.sparsity.fitting.in_order import fit_in_order, fit_work
        from vivace_methods.sparsity.fitting.searches.levels import greedy_levels, levels_work

        greedy = self.levels == "greedy"
        work = {"levels": levels_work(texts) if greedy else 0.0, "fit": fit_work(texts)}
        parts = Parts(about.on_step, work)
        levels: dict[str, float] = {}
        if greedy:
            search = parts.of("levels")
            levels = greedy_levels(model, groups, texts, self.sparsity, self._fit, journal=journal, on_step=search)

        def choose(layer: LayerFit) -> Fitted:
            return self._fit(layer, levels.get(layer.name, self.sparsity))

        fitted = fit_in_order(model, groups, texts, choose, sequential=self.sequential, on_step=parts.of("fit"))
        return fitted, []

    def _fit(self, layer: LayerFit, level: float) -> Fitted:
        outputs, inputs = layer.weight.shape
        return layer.fit(budget(inputs, outputs, level, 1.0), self.criterion, "svd", level, 1.0)
