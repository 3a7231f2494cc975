"""Low rank only: every linear layer is replaced by two thin ones while decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.budget import WeightBudget
from vivace_methods.sparsity.fitting.criteria import FactorFit

if TYPE_CHECKING:
    import torch

    from vivace_methods.sparsity.applying.linears import Group
    from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
    from vivace_methods.sparsity.fitting.searches.journal import Journal


@dataclass(frozen=True)
class LowRank(ActivationSparsity):
    """The whole budget goes to a low-rank part, which all inputs go through.

    Source: the ablation of R-Sparse, arXiv 2504.19449, table 3.

    Attributes:
        factors: `dropped` fits the low-rank part to the layer's inputs on calibration text, `svd` to its weights.
        sequential: whether each layer is calibrated on what the sparse layers before it give, or all on dense ones.
    """

    name: ClassVar[str] = "low-rank"
    paper: ClassVar[str] = "R-Sparse: Rank-Aware Activation Sparsity for Efficient LLM Inference, arXiv 2504.19449"

    factors: FactorFit = "dropped"
    sequential: bool = True

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """Two factors for each layer."""
        from vivace_methods.sparsity.fitting.in_order import fit_in_order

        fitted = fit_in_order(model, groups, texts, self._fit, sequential=self.sequential, on_step=about.on_step)
        return fitted, []

    def _fit(self, layer: LayerFit) -> Fitted:
        outputs, inputs = layer.weight.shape
        rank = max(int((1 - self.sparsity) * inputs * outputs / (inputs + outputs)), 1)
        its = WeightBudget(inputs, outputs, 0, min(rank, inputs, outputs))
        return layer.fit(its, "none", self.factors, self.sparsity, 0.0)
