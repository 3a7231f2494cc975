"""Gated MLPs in which neurons are left out whose activated gate is small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vivace_kernels.quantised import levels_of, output_scales
from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed, whole_product
from vivace_kernels.sparsity.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparsity.sparse_product import prepare, sparse_product
from vivace_methods.models.opaque import Opaque
from vivace_methods.models.passes import Passes
from vivace_methods.models.replaced_forward import replaced_forward
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.attached import fitted_of
from vivace_methods.sparsity.applying.groups import SCALE_BYTES, LayerReads, Stored, packed_group, sparse_tokens
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
    mlps: Sequence[Mlp],
    recipe: Recipe,
    counts: torch.Tensor,
    prompt: float,
    passes: Passes | None,
    *,
    levels: bool,
) -> Iterator[list[LayerReads]]:
    """MLPs that leave out neurons whose activated gate is small; what their layers read.

    Args:
        mlps: of a model.
        recipe: fitted to them.
        counts: int32, two for each MLP: kept neurons of decoded tokens so far.
        prompt: share of a prompt's last tokens that is read sparsely too.
        passes: of the model; None where nothing is verified.
        levels: whether the weights of the layers that leave out neurons are rounded to eight bits.
    """
    fitted, reads = fitted_of(recipe), []
    with ExitStack() as applied:
        for number, mlp in enumerate(mlps):
            packed = packed_group(Group((mlp.down_name,), (mlp.down,)), fitted, levels=levels)
            its_counts, threshold = counts[2 * number : 2 * number + 2], recipe.modules[mlp.up_name].threshold
            up = UpWeights.rounded(mlp.up) if levels else UpWeights(mlp.up.weight, mlp.up.bias)
            sparse = SparseMlp(mlp, threshold, its_counts, prompt, (up, packed), passes)
            applied.enter_context(sparse.applied())
            neurons, hidden = mlp.up.out_features, mlp.up.in_features
            for name, outputs in ((mlp.up_name, neurons), (mlp.down_name, hidden)):
                stored = Stored(hidden, outputs * SCALE_BYTES) if levels else None
                reads.append(LayerReads(name, neurons, hidden, 0, stored))
        yield reads


@dataclass(frozen=True)
class UpWeights:
    """The weights of the layer whose outputs a gate leaves out.

    Attributes:
        weight: shape (neurons, inputs), of the model's type; or int8, of levels.
        bias: shape (neurons,), or None.
        scales: float32, shape (neurons,), of levels; or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scales: torch.Tensor | None = None

    @classmethod
    def rounded(cls, module: torch.nn.Linear) -> UpWeights:
        """Those of a layer in levels of eight bits."""
        scales = output_scales(module.weight)
        return cls(levels_of(module.weight, scales.unsqueeze(1)), module.bias, scales.float())

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """All outputs, shape (…, neurons)."""
        weight = self.weight
        if self.scales is not None:
            weight = weight.to(x.dtype) * self.scales.to(x.dtype).unsqueeze(1)
        return torch.nn.functional.linear(x, weight, self.bias)

    def product_of_kept(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Those outputs that are kept, shape (tokens, neurons); others are anything."""
        if x.device.type == "cpu":
            return row_gemv_cpu(x, self.weight, kept, self.bias, self.scales)
        return self.product(x)


class SparseMlp:
    """A gated MLP in which small gates are zero.

    Args:
        mlp: the MLP.
        threshold: of activated gates.
        counts: int32, two numbers: kept neurons of decoded tokens are added to both.
        prompt: share of a prompt's last tokens that is sparse too.
        weights: of `up_proj`, and of `down_proj` as the kernels take them; None where no single token is decoded.
        passes: say what a pass is for; None where nothing is verified.
    """

    def __init__(
        self,
        mlp: Mlp,
        threshold: float,
        counts: torch.Tensor,
        prompt: float,
        weights: tuple[UpWeights, Packed] | None,
        passes: Passes | None = None,
    ) -> None:
        self._mlp, self._threshold, self._counts = mlp, threshold, counts
        self._sparse_tokens = partial(sparse_tokens, prompt, passes)
        self._weights = weights
        if weights is not None:
            prepare(weights[1])
        self._decode = None if weights is None else Opaque(partial(self._decoded, *weights), _of_shape)

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
        return self._whole(x, gate)

    def _whole(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """The MLP's output for gates, none of whose neurons is left out; of rounded weights, if they were."""
        if self._weights is None or self._weights[0].scales is None:
            out: torch.Tensor = self._mlp.down(gate * self._mlp.up(x))
            return out
        up, down = self._weights
        inner = gate * up.product(x)
        return whole_product(inner.reshape(-1, inner.shape[-1]), down).view(*x.shape[:-1], -1)

    def _decoded(self, up: UpWeights, down: Packed, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        flat, gates = x.reshape(-1, x.shape[-1]), gate.reshape(-1, gate.shape[-1])
        kept = ~self._small(gates)
        self._counts += kept.sum(dtype=self._counts.dtype)
        inner = torch.where(kept, gates * up.product_of_kept(flat, kept), 0)
        return sparse_product(inner, down).view(*x.shape[:-1], -1)

    def _small(self, gates: torch.Tensor) -> torch.Tensor:
        return gates.abs() <= self._threshold


def _of_shape(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)
