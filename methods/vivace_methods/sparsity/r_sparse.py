"""R-Sparse: large inputs go through exact columns of weights, all the rest through a low-rank part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.criteria import FactorFit

if TYPE_CHECKING:
    import torch

    from vivace_methods.sparsity.applying.linears import Group
    from vivace_methods.sparsity.fitting.layers import Fitted
    from vivace_methods.sparsity.fitting.searches.journal import Journal

Search = Literal["divergence", "output-error", "evolutionary"]


@dataclass(frozen=True)
class RSparse(ActivationSparsity):
    """Large inputs are multiplied exactly, and what is left of the input goes through truncated weights.

    Source: Zhang et al., arXiv 2504.19449: W s(x) + W_r (x - s(x)), sections 3.3 and 3.4. Computed as
    (W - W_r) s(x) + W_r x, which is the same. What one token reads of a layer, exact columns and factors together, is
    (1 - sparsity) of its weights; where levels are searched, that of a block's layers together.

    Attributes:
        ratio: share of what is read that goes to exact columns, the same in all layers (the paper's uniform one is
            0.95; 1 is TEAL). None searches one for each layer.
        levels: `uniform` spares the same share of every layer's weights, as in the paper; `greedy` first searches how
            much of each, as TEAL does: so that a block's output loses least, and the block as a whole is as sparse.
        search: where ratio is None: `divergence` begins at ratio 1 and takes for each layer what moves the whole
            model's predictions least, layer by layer on text that nothing was fitted on; `output-error` takes what
            loses least of the layer's own output there; `evolutionary` is the paper's Algorithm 1, which looks for
            the lowest perplexity of the whole model.
        criterion: by what inputs are judged large. `magnitude`, as the paper writes, and `column-norm`, that times
            the norm of the column of W, are the same in every layer. `released`, as the released code has it, is the
            latter where there is a low-rank part and the former where there is none; so is `residual-norm`, but with
            the norm of the column of W - W_r, which is what dropping an input loses. Under these two a search tries
            both for each layer.
        factors: `svd` truncates the weights, as in the paper; `dropped` fits the low-rank part to what is dropped.
            None is the paper's, and lets a search (but the evolutionary one) try both for each layer.
        sequential: whether each layer is calibrated on what the sparse layers before it give, or all on dense ones.
            An evolutionary search calibrates on dense ones.
    """

    name: ClassVar[str] = "r-sparse"
    paper: ClassVar[str] = "R-Sparse: Rank-Aware Activation Sparsity for Efficient LLM Inference, arXiv 2504.19449"

    ratio: float | None = None
    levels: Literal["uniform", "greedy"] = "uniform"
    search: Search = "divergence"
    criterion: Literal["residual-norm", "released", "magnitude", "column-norm"] = "residual-norm"
    factors: FactorFit | None = None
    sequential: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise MethodError(f"The setting ratio of {self.name} must be from 0 to 1, and {self.ratio} is not.")

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A ratio, a threshold and two factors for each layer."""
        from vivace_methods.sparsity.fitting.searches.ratio_search import RatioFit

        return RatioFit(self).run(model, groups, texts, about, journal)
