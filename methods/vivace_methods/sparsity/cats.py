"""CATS: in each MLP, neurons whose activated gate is small are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from vivace_kernels.packed import MOST_TOKENS, Packed
from vivace_kernels.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparse_product import sparse_product
from vivace_methods.models.compiling import Opaque
from vivace_methods.models.passing import Passes
from vivace_methods.models.replacing import replaced_forward
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.activation import About, ActivationSparsity, fitted_of
from vivace_methods.sparsity.applying.groups import LayerReads, packed_group, sparse_tokens
from vivace_methods.sparsity.applying.linears import Group, find_groups
from vivace_methods.sparsity.fitting.calibration import DECODED, inputs_of
from vivace_methods.sparsity.fitting.journal import Journal
from vivace_methods.sparsity.fitting.layers import Fitted, halves, threshold_of
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe, Recipe


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
        return [Group((mlp.up_name, mlp.down_name), (mlp.up, mlp.down)) for mlp in self._mlps(model)]

    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """A threshold for each MLP's activated gate."""
        mlps = self._mlps(model)
        dropped = self._dropped(model, mlps)
        fitted: dict[str, Fitted] = {}
        with ExitStack() as applied:
            for number, mlp in enumerate(mlps):
                inputs = inputs_of(model, Group((mlp.gate_name,), (mlp.gate,)), texts)
                its = self._fit(mlp, inputs, dropped)
                fitted |= {mlp.up_name: its, mlp.down_name: its}
                if self.sequential:
                    nobody = torch.zeros(2, dtype=torch.int32, device=model.device)
                    sparse = _SparseMlp(mlp, its.recipe.threshold, nobody, prompt=DECODED, packed=None)
                    applied.enter_context(sparse.applied())
                about.on_step(number + 1, len(mlps))
        return fitted, []

    def _fit(self, mlp: _Mlp, texts: Sequence[torch.Tensor], dropped: float) -> Fitted:
        fit, check = halves(texts)
        gates = mlp.activate(mlp.gate(fit))
        if not bool(torch.isfinite(gates).all()):
            raise MethodError(
                f"On the calibration text, {mlp.gate_name} gives numbers that are not finite: a threshold would mean "
                "nothing. Load the model as bfloat16 or float32, or calibrate on other text."
            )
        threshold = threshold_of(gates.float().abs(), 1 - dropped)
        checked, raised = mlp.activate(mlp.gate(check)), mlp.up(check)
        exact = mlp.down(checked * raised).float()
        lost = exact - mlp.down(torch.where(checked.abs() <= threshold, 0, checked) * raised).float()
        error = float(lost.square().sum() / exact.square().sum().clamp_min(1e-30))
        return Fitted(ModuleRecipe(dropped, 1.0, 0, "gate", threshold, error), None)

    def _dropped(self, model: Any, mlps: Sequence[_Mlp]) -> float:
        """The share of neurons that gives the sparsity of all seven layers."""
        whole = sum(module.weight.numel() for group in find_groups(model) for module in group.modules)
        theirs = sum(mlp.up.weight.numel() + mlp.down.weight.numel() for mlp in mlps)
        dropped: float = self.sparsity * whole / theirs
        if dropped >= 1:
            raise MethodError(
                f"cats leaves out weights of up_proj and down_proj alone, {theirs / whole:.1%} of all here: its "
                f"sparsity must be below {theirs / whole:.3f}, and {self.sparsity} was asked for."
            )
        return dropped

    @contextmanager
    def applied(
        self, model: Any, recipe: Recipe, passes: Passes | None = None
    ) -> Iterator[tuple[torch.Tensor, list[LayerReads]]]:
        """The sparse MLPs in a model, as `ActivationSparsity.applied` says."""
        self._require(recipe, model)
        mlps, fitted = self._mlps(model), fitted_of(recipe)
        counts = torch.zeros(2 * len(mlps), dtype=torch.int32, device=model.device)
        reads = []
        with ExitStack() as applied:
            for number, mlp in enumerate(mlps):
                packed = packed_group(Group((mlp.down_name,), (mlp.down,)), fitted)
                its_counts, threshold = counts[2 * number : 2 * number + 2], recipe.modules[mlp.up_name].threshold
                sparse = _SparseMlp(mlp, threshold, its_counts, self.prompt, packed, passes)
                applied.enter_context(sparse.applied())
                neurons, hidden = mlp.up.out_features, mlp.up.in_features
                reads += [LayerReads(mlp.up_name, neurons, hidden, 0), LayerReads(mlp.down_name, neurons, hidden, 0)]
            yield counts, reads

    def _mlps(self, model: Any) -> list[_Mlp]:
        chosen = {name for group in find_groups(model, self.only) for name in group.names}
        found = []
        for path, parent in model.named_modules():
            gate, up, down = (f"{path}.{role}" for role in ("gate_proj", "up_proj", "down_proj"))
            if chosen.issuperset((gate, up, down)):
                if not hasattr(parent, "act_fn"):
                    raise MethodError(f"{path} has no act_fn, which cats takes for the activation of its gate.")
                found.append(
                    _Mlp(parent, gate, up, down, parent.gate_proj, parent.up_proj, parent.down_proj, parent.act_fn)
                )
        if not found:
            raise MethodError(f"{type(model).__name__} has no gated MLP that cats could apply to.")
        return found


@dataclass(frozen=True)
class _Mlp:
    module: Any
    gate_name: str
    up_name: str
    down_name: str
    gate: torch.nn.Linear
    up: torch.nn.Linear
    down: torch.nn.Linear
    activate: Callable[[torch.Tensor], torch.Tensor]


class _SparseMlp:
    """A gated MLP in which small gates are zero."""

    def __init__(
        self,
        mlp: _Mlp,
        threshold: float,
        counts: torch.Tensor,
        prompt: float,
        packed: Packed | None,
        passes: Passes | None = None,
    ) -> None:
        self._mlp, self._threshold, self._counts = mlp, threshold, counts
        self._sparse_tokens = partial(sparse_tokens, prompt, passes)
        self._decode = None if packed is None else Opaque(partial(self._decoded, packed), _of_shape)

    @contextmanager
    def applied(self) -> Iterator[None]:
        with replaced_forward(self._mlp.module, partial(type(self)._forward, self)):
            yield

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        sequences, tokens = x.shape[:-1].numel() // x.shape[-2], x.shape[-2]
        gate = self._mlp.activate(self._mlp.gate(x))
        if tokens == 1 and sequences <= MOST_TOKENS and self._decode is not None:
            return self._decode(x, gate)
        sparse = self._sparse_tokens(tokens)
        if sparse:
            last = gate[..., tokens - sparse :, :]
            gate = torch.cat((gate[..., : tokens - sparse, :], torch.where(self._small(last), 0, last)), -2)
        out: torch.Tensor = self._mlp.down(gate * self._mlp.up(x))
        return out

    def _decoded(self, packed: Packed, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        flat, gates = x.reshape(-1, x.shape[-1]), gate.reshape(-1, gate.shape[-1])
        kept = ~self._small(gates)
        self._counts += kept.sum(dtype=self._counts.dtype)
        if flat.device.type == "cpu":
            raised = row_gemv_cpu(flat, self._mlp.up.weight, kept, self._mlp.up.bias)
        else:
            raised = self._mlp.up(flat)
        inner = torch.where(kept, gates * raised, 0)
        return sparse_product(inner, packed).view(*x.shape[:-1], -1)

    def _small(self, gates: torch.Tensor) -> torch.Tensor:
        return gates.abs() <= self._threshold


def _of_shape(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)
