"""CATS: in each MLP, neurons whose activated gate is small are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.fitting.about import About

if TYPE_CHECKING:
    import torch

    from vivace_methods.models.passes import Passes
    from vivace_methods.sparsity.applying.groups import LayerReads
    from vivace_methods.sparsity.applying.linears import Group
    from vivace_methods.sparsity.applying.mlps import Mlp
    from vivace_methods.sparsity.fitting.layers import Fitted
    from vivace_methods.sparsity.fitting.recipe import Recipe
    from vivace_methods.sparsity.fitting.searches.journal import Journal


@dataclass(frozen=True)
class Cats(ActivationSparsity):
    """Gates are computed whole; where one is small, the neuron's other two rows of weights are left out.

    Source: Lee et al., arXiv 2404.08763. Its sparsity counts over all seven layers of a block here, as for the other
    methods, though it leaves out weights of `up_proj` and `down_proj` alone: it cannot go beyond their share.

    Attributes:
        sequential: whether each MLP is calibrated on what the sparse ones before it give, or all on dense ones.
    """

    name: ClassVar[str] = "cats"
    paper: ClassVar[str] = (
        "CATS: Contextually-Aware Thresholding for Sparsity in Large Language Models, arXiv 2404.08763"
    )

    sequential: bool = True

    def groups(self, model: Any) -> list[Group]:
        """The layers that weights are left out of: `up_proj` and `down_proj` of each MLP, in this order."""
        from vivace_methods.sparsity.applying.linears import Group

        return [Group((mlp.up_name, mlp.down_name), (mlp.up, mlp.down)) for mlp in self._mlps(model)]

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A threshold for each MLP's activated gate."""
        from vivace_methods.sparsity.fitting.gates import fit_gates

        sparsity, sequential, on_step = self.sparsity, self.sequential, about.on_step
        mlps = self._mlps(model)
        return fit_gates(model, mlps, texts, sparsity=sparsity, sequential=sequential, on_step=on_step), []

    @contextmanager
    def applied(
        self, model: Any, recipe: Recipe, passes: Passes | None = None
    ) -> Iterator[tuple[torch.Tensor, list[LayerReads]]]:
        """The sparse MLPs in a model, as `ActivationSparsity.applied` says."""
        import torch

        from vivace_methods.sparsity.applying.mlps import sparse_mlps

        self._require(recipe, model)
        mlps = self._mlps(model)
        counts = torch.zeros(2 * len(mlps), dtype=torch.int32, device=model.device)
        levels = self.weights == "int8"
        with sparse_mlps(mlps, recipe, counts, self.prompt, passes, levels=levels) as reads:
            yield counts, reads

    def _mlps(self, model: Any) -> list[Mlp]:
        from vivace_methods.sparsity.applying.mlps import gated_mlps

        return gated_mlps(model, self.only)
