"""WINA: inputs are judged by their magnitude times the norm of the weights that they meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vivace_methods.sparsity.fitting.criteria import Criterion
from vivace_methods.sparsity.teal import Teal


@dataclass(frozen=True)
class Wina(Teal):
    """As TEAL, but an input counts by its magnitude times the norm of its column of weights.

    Source: Chen et al., arXiv 2505.19427. Thresholds take the place of the paper's top-k, so that rules are compared
    alike, and the paper's orthogonalising transform of the weights is not there.
    """

    name: ClassVar[str] = "wina"
    paper: ClassVar[str] = (
        "WINA: Weight Informed Neuron Activation for Accelerating Large Language Model Inference, arXiv 2505.19427"
    )
    criterion: ClassVar[Criterion] = "column-norm"
