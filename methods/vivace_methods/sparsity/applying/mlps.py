"""Gated MLPs in which neurons are left out whose activated gate is small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed
from vivace_kernels.sparsity.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparsity.sparse_product import sparse_product
from vivace_methods.models.opaque import Opaque
from vivace_methods.models.passes import Passes
from vivace_methods.models.replaced_forward import replaced_forward
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.attached import fitted_of
from vivace_methods.sparsity.applying.groups import LayerReads, packed_group, sparse_tokens
from vivace_methods.sparsity.applying.linears import Group, find_groups
from vivace_methods.sparsity.fitting.recipe import Recipe


@dataclass(frozen=True)
class Mlp:
    """A gated MLP: its layers with their names, and the activation of its gate."""

    module: Any
    gate_name: str
    up_name: str
    down_name: str
    gate: torch.nn.Linear
    up: torch.nn.Linear
    down: torch.nn.Linear
    activate: Callable[[torch.Tensor], torch.Tensor]


def gated_mlps(model: Any, only: str) -> list[Mlp]:
    """The gated MLPs of a model, all of whose layers are chosen.

    Args:
        model: of transformers.
        only: as the setting of that name.

    Raises:
        MethodError: there is none, or one does not say how its gate is activated.
    """
    chosen = {name for group in find_groups(model, only) for name in group.names}
    found = []
    for path, parent in model.named_modules():
        gate, up, down = (f"{path}.{role}" for role in ("gate_proj", "up_proj", "down_proj"))
        if chosen.issuperset((gate, up, down)):
            if not hasattr(parent, "act_fn"):
                raise MethodError(f"{path} has no act_fn, which cats takes for the activation of its gate.")
            found.append(
                Mlp(parent, gate, up, down, parent.gate_proj, parent.up_proj, parent.down_proj, parent.act_fn)
            )
    if not found:
        raise MethodError(f"{type(model).__name__} has no gated MLP that cats could apply to.")
    return found


@contextmanager
def sparse_mlps(
    mlps: Sequence[Mlp], recipe: Recipe, counts: torch.Tensor, prompt: float, passes: Passes | None
) -> Iterator[list[LayerReads]]:
    """MLPs that leave out neurons whose activated gate is small; what their layers read.

    Args:
        mlps: of a model.
        recipe: fitted to them.
        counts: int32, two for each MLP: kept neurons of decoded tokens so far.
        prompt: share of a prompt's last tokens that is read sparsely too.
        passes: of the model; None where nothing is verified.
    """
    fitted, reads = fitted_of(recipe), []
    with ExitStack() as applied:
        for number, mlp in enumerate(mlps):
            packed = packed_group(Group((mlp.down_name,), (mlp.down,)), fitted)
            its_counts, threshold = counts[2 * number : 2 * number + 2], recipe.modules[mlp.up_name].threshold
            sparse = SparseMlp(mlp, threshold, its_counts, prompt, packed, passes)
            applied.enter_context(sparse.applied())
            neurons, hidden = mlp.up.out_features, mlp.up.in_features
            reads += [LayerReads(mlp.up_name, neurons, hidden, 0), LayerReads(mlp.down_name, neurons, hidden, 0)]
        yield reads


class SparseMlp:
    """A gated MLP in which small gates are zero."""

    def __init__(
        self,
        mlp: Mlp,
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
