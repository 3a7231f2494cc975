"""Linear layers that leave out small inputs while a context lasts: how methods of activation sparsity are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vivace_kernels.packed import MOST_TOKENS, Packed, masked_product, pack
from vivace_kernels.sparse_product import sparse_product
from vivace_methods.decoding.greedy import GreedyGenerator
from vivace_methods.models.compiling import Opaque
from vivace_methods.protocol import Emit, Request, Trace
from vivace_methods.sparsity.applying.limits import channel_limits
from vivace_methods.sparsity.applying.linears import Group
from vivace_methods.sparsity.fitting.calibration import DECODED
from vivace_methods.sparsity.fitting.layers import Fitted


def packed_group(group: Group, fitted: Mapping[str, Fitted]) -> Packed:
    """The layers of a group as the kernels take them."""
    parts = [fitted[name] for name in group.names]
    weights = [module.weight for module in group.modules]
    limits = [
        channel_limits(name, part.recipe, weight, part.factors)
        for name, part, weight in zip(group.names, parts, weights, strict=True)
    ]
    biases = [module.bias for module in group.modules]
    return pack(weights, [part.factors for part in parts], torch.stack(limits), biases)


@dataclass(frozen=True)
class LayerReads:
    """What a token reads of one layer.

    Attributes:
        name: of the layer.
        channels: that it may keep.
        per_channel: weights that are read for each kept one.
        always: weights that are read whatever is kept: a low-rank part's.
    """

    name: str
    channels: int
    per_channel: int
    always: int

    @classmethod
    def of(cls, name: str, module: torch.nn.Linear, rank: int) -> LayerReads:
        """Of a layer whose input channels are kept or left to a low-rank part."""
        inputs, outputs = module.in_features, module.out_features
        return cls(name, inputs, outputs, rank * (inputs + outputs))

    @property
    def dense(self) -> int:
        """Weights that a dense token reads."""
        return self.channels * self.per_channel


class SparseGroup:
    """The layers of a group, computed together when the first of them is called.

    One token at a time goes through the sparse kernel, of at most two sequences. Of more tokens at once, a prompt,
    the last share may be sparse as well, for evaluation; the others are dense.

    Args:
        group: the layers.
        packed: the same as the kernels take them.
        counts: int32, shape (layers,): kept channels of decoded tokens are added to it.
        prompt: share of a prompt's last tokens that is sparse too.
    """

    def __init__(self, group: Group, packed: Packed, counts: torch.Tensor, prompt: float) -> None:
        self._group, self._packed, self._prompt = group, packed, prompt
        self._product = Opaque(partial(sparse_product, packed=packed, counts=counts), self._like)
        self._read: torch.Tensor | None = None
        self._given: dict[int, torch.Tensor] = {}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace what the layers do, and nothing that they hold."""
        with ExitStack() as restored:
            for place, module in enumerate(self._group.modules):
                module.forward = partial(self._forward, place)
                restored.callback(delattr, module, "forward")
            yield

    def _forward(self, place: int, x: torch.Tensor) -> torch.Tensor:
        # The others of the group are called with the very same input; a model that copies it between is only slower.
        if x is self._read and place in self._given:
            return self._take(place)
        computed = self._joint(x)
        if computed is None:
            return torch.nn.Linear.forward(self._group.modules[place], x)
        widths = [linear.outputs for linear in self._packed.linears]
        self._read, self._given = x, dict(enumerate(computed.split(widths, dim=-1)))
        return self._take(place)

    def _like(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(x.shape[0], self._packed.outputs)

    def _take(self, place: int) -> torch.Tensor:
        found = self._given.pop(place)
        if not self._given:
            self._read = None
        return found

    def _joint(self, x: torch.Tensor) -> torch.Tensor | None:
        """What all layers give; None where all of it is dense."""
        sequences, tokens = x.shape[:-1].numel() // x.shape[-2], x.shape[-2]
        if tokens == 1 and sequences <= MOST_TOKENS:
            flat = self._product(x.reshape(sequences, -1))
            return flat.view(*x.shape[:-1], -1)
        sparse = tokens - int(tokens * (1 - self._prompt)) if tokens > 1 else 0
        if sparse == 0:
            return None
        dense = torch.cat(
            [torch.nn.Linear.forward(module, x[..., : tokens - sparse, :]) for module in self._group.modules], -1
        )
        last = x[..., tokens - sparse :, :]
        masked = masked_product(last.reshape(-1, x.shape[-1]), self._packed)
        return torch.cat((dense, masked.view(*last.shape[:-1], -1)), -2)


def uncounted_group(group: Group, fitted: Mapping[str, Fitted]) -> SparseGroup:
    """The layers of a group as calibration text meets them: its second parts are sparse, and nobody counts."""
    nobody = torch.zeros(len(group.names), dtype=torch.int32, device=group.modules[0].weight.device)
    return SparseGroup(group, packed_group(group, fitted), nobody, prompt=DECODED)


@contextmanager
def applied_groups(groups: Sequence[SparseGroup]) -> Iterator[None]:
    """Several groups at once."""
    with ExitStack() as contexts:
        for group in groups:
            contexts.enter_context(group.applied())
        yield


class SparseGenerator(GreedyGenerator):
    """Greedy decoding that tells how much of each layer a token read.

    Args:
        model: with sparse layers.
        new_cache: gives an empty cache for so many positions.
        step: the forward pass of one token; the model itself, or a compiled form of it.
        counts: the kept channels of all layers together, as the groups add to them, shape (layers,).
        reads: what a token reads of each of these layers.
        untouched: weights of those of the seven linear layers of each block that stay dense.
        products: the dense product that single tokens go through in layers that stay dense, by their shape.
    """

    def __init__(
        self,
        model: Any,
        new_cache: Callable[[int], Any],
        step: Any,
        counts: torch.Tensor,
        reads: Sequence[LayerReads],
        untouched: int,
        products: Mapping[str, str],
    ) -> None:
        super().__init__(model, new_cache, self._counted, products=products)
        self._reading, self._counts, self._reads, self._untouched = step, counts, reads, untouched
        self._seen: list[torch.Tensor] = []

    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt greedily.

        The figures are `sparsity`, the share of the weights of the seven linear layers of all blocks that decoded
        tokens did not read; `token_sparsity`, the same of each decoded token; `kept`, the mean share of channels that
        each layer kept, by its name; `weights_read`, how many weights of those layers all decoded tokens read, of
        `weights_dense`; and `products`, if any were chosen for layers that stay dense.
        """
        self._seen = [self._counts.clone()]
        trace = super().generate(request, emit)
        seen = torch.stack(self._seen).double().cpu()
        self._seen = []
        return Trace({**trace.figures, **read_figures(seen.diff(dim=0), self._reads, self._untouched)})

    def _counted(self, *tokens: Any, **named: Any) -> Any:
        out = self._reading(*tokens, **named)
        self._seen.append(self._counts.clone())
        return out


def read_figures(kept: torch.Tensor, layers: Sequence[LayerReads], untouched: int) -> dict[str, Any]:
    """What decoded tokens read.

    Args:
        kept: channels that each layer kept for each token, shape (tokens, layers).
        layers: in the same order.
        untouched: weights of layers that are dense.

    Returns:
        As `SparseGenerator.generate` says; empty where nothing was decoded.
    """
    if not len(kept):
        return {}
    per_channel = torch.tensor([float(layer.per_channel) for layer in layers], dtype=torch.float64)
    always = float(sum(layer.always for layer in layers) + untouched)
    dense = float(sum(layer.dense for layer in layers) + untouched)
    weights = kept @ per_channel + always
    shares = (kept.mean(0) / torch.tensor([float(layer.channels) for layer in layers])).tolist()
    return {
        "sparsity": 1 - float(weights.mean()) / dense,
        "token_sparsity": [round(1 - float(each) / dense, 4) for each in weights],
        "kept": {layer.name: round(share, 4) for layer, share in zip(layers, shares, strict=True)},
        "weights_read": int(weights.sum()),
        "weights_dense": int(dense * len(kept)),
    }
