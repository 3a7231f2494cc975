"""TEAL: every linear layer leaves out the inputs of least magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vivace_methods.sparsity.activation import About, ActivationSparsity, fit_in_order
from vivace_methods.sparsity.budget import budget
from vivace_methods.sparsity.fitting import Fitted, LayerFit
from vivace_methods.sparsity.journal import Journal
from vivace_methods.sparsity.linears import Group
from vivace_methods.sparsity.recipe import Criterion


@dataclass(frozen=True)
class Teal(ActivationSparsity):
    """Inputs whose magnitude is below their layer's threshold are left out, with their columns of weights.

    Source: Liu et al., arXiv 2408.14690, at one level for all layers; the paper's greedy search of levels for each
    block is not there. Thresholds are quantiles of magnitudes on calibration text.

    Attributes:
        sequential: whether each layer is calibrated on what the sparse layers before it give, or all on dense ones.
    """

    name: ClassVar[str] = "teal"
    paper: ClassVar[str] = "Training-Free Activation Sparsity in Large Language Models, arXiv 2408.14690"
    criterion: ClassVar[Criterion] = "magnitude"

    sequential: bool = True

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A threshold for each layer."""
        fitted = fit_in_order(model, groups, texts, self._fit, sequential=self.sequential, on_step=about.on_step)
        return fitted, []

    def _fit(self, layer: LayerFit) -> Fitted:
        outputs, inputs = layer.weight.shape
        its = budget(inputs, outputs, self.sparsity, 1.0)
        return layer.fit(its, self.criterion, "svd", self.sparsity, 1.0)
