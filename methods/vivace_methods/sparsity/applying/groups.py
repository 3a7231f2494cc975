"""Linear layers that leave out small inputs while a context lasts: how methods of activation sparsity are applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from vivace_kernels.sparsity.packed import MOST_TOKENS, Packed, masked_product, pack, whole_product
from vivace_kernels.sparsity.sparse_product import prepare, sparse_product
from vivace_methods.models.ledger import Pass, Tell
from vivace_methods.models.opaque import Opaque
from vivace_methods.models.passes import Passes
from vivace_methods.models.replaced_forward import replaced_forward
from vivace_methods.sparsity.applying.channel_limits import channel_limits
from vivace_methods.sparsity.applying.linears import Group
from vivace_methods.sparsity.fitting.calibration import DECODED
from vivace_methods.sparsity.fitting.layers import Fitted

SCALE_BYTES = torch.float32.itemsize
"""Of the scale that the levels of an output are multiplied with."""


def packed_group(group: Group, fitted: Mapping[str, Fitted], *, levels: bool = False) -> Packed:
    """The layers of a group as the kernels take them; with `levels`, their weights rounded to eight bits."""
    parts = [fitted[name] for name in group.names]
    weights = [module.weight for module in group.modules]
    limits = [
        channel_limits(name, part.recipe, weight, part.factors)
        for name, part, weight in zip(group.names, parts, weights, strict=True)
    ]
    biases = [module.bias for module in group.modules]
    return pack(weights, [part.factors for part in parts], torch.stack(limits), biases, levels=levels)


@dataclass(frozen=True)
class Stored:
    """Bytes that are read of a layer whose weights are not in the model's type.

    Attributes:
        per_channel: for each kept channel.
        always: whatever is kept: scales, and a low-rank part.
    """

    per_channel: int
    always: int


@dataclass(frozen=True)
class LayerReads:
    """What a token reads of one layer.

    Attributes:
        name: of the layer.
        channels: that it may keep.
        per_channel: weights that are read for each kept one.
        always: weights that are read whatever is kept: a low-rank part's.
        stored: their bytes, where these are not those of the model's type.
    """

    name: str
    channels: int
    per_channel: int
    always: int
    stored: Stored | None = None

    @classmethod
    def of(cls, name: str, module: torch.nn.Linear, rank: int, *, levels: bool = False) -> LayerReads:
        """Of a layer whose input channels are kept or left to a low-rank part.

        Args:
            name: of the layer.
            module: the layer.
            rank: of its low-rank part.
            levels: whether its rows are levels of eight bits; the first factor of a low-rank part never is.
        """
        inputs, outputs = module.in_features, module.out_features
        first_factor = rank * inputs * module.weight.dtype.itemsize
        stored = Stored(outputs, outputs * SCALE_BYTES + rank * outputs + first_factor) if levels else None
        return cls(name, inputs, outputs, rank * (inputs + outputs), stored)

    @property
    def dense(self) -> int:
        """Weights that a dense token reads."""
        return self.channels * self.per_channel


class SparseGroup:
    """The layers of a group, computed together when the first of them is called.

    One token at a time goes through the sparse kernel, of at most two sequences. Drafted tokens that are verified
    together leave out what each of them would leave out alone, but read all weights. Of a prompt, the last share may
    be sparse as well, for evaluation; the others are dense. Where weights were rounded, they are for all tokens.

    Args:
        group: the layers.
        packed: the same as the kernels take them.
        counts: int32, shape (layers,): kept channels of decoded tokens are added to it.
        prompt: share of a prompt's last tokens that is sparse too.
        passes: say what a pass is for; None where nothing is verified.
    """

    def __init__(
        self, group: Group, packed: Packed, counts: torch.Tensor, prompt: float, passes: Passes | None = None
    ) -> None:
        self._group, self._packed = group, packed
        prepare(packed)
        self._sparse_tokens = partial(sparse_tokens, prompt, passes)
        self._product = Opaque(partial(sparse_product, packed=packed, counts=counts), self._like)
        self._read: torch.Tensor | None = None
        self._given: dict[int, torch.Tensor] = {}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace what the layers do, and nothing that they hold."""
        with ExitStack() as restored:
            for place, module in enumerate(self._group.modules):
                restored.enter_context(replaced_forward(module, partial(self._forward, place)))
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
        sparse = self._sparse_tokens(tokens)
        if sparse == 0 and self._packed.scales is None:
            return None
        first, last = x[..., : tokens - sparse, :], x[..., tokens - sparse :, :]
        masked = masked_product(last.reshape(-1, x.shape[-1]), self._packed)
        return torch.cat((self._dense(first), masked.view(*last.shape[:-1], self._packed.outputs)), -2)

    def _dense(self, x: torch.Tensor) -> torch.Tensor:
        """What all layers give where nothing is left out: by their own weights, or by what was made of these."""
        if self._packed.scales is None:
            return torch.cat([torch.nn.Linear.forward(module, x) for module in self._group.modules], -1)
        return whole_product(x.reshape(-1, x.shape[-1]), self._packed).view(*x.shape[:-1], self._packed.outputs)


def sparse_tokens(prompt: float, passes: Passes | None, tokens: int) -> int:
    """How many of the last tokens of a pass are sparse, where they do not go through the kernel of single ones.

    Args:
        prompt: share of a prompt's last tokens that is.
        passes: say what the pass is for.
        tokens: of each sequence.
    """
    if passes is not None and passes.kind == "verify":
        return tokens
    return tokens - int(tokens * (1 - prompt)) if tokens > 1 else 0


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


def reading(layers: Sequence[LayerReads]) -> Tell:
    """Says of a pass how many weights it read of each layer, from the channels that were counted during it.

    Several tokens at once are computed densely, if on masked inputs.

    Args:
        layers: in the order in which their channels are counted.
    """

    def tell(one: Pass, kept: torch.Tensor) -> Pass:
        single = one.tokens == 1 and one.sequences <= MOST_TOKENS
        counted = list(zip(layers, kept.tolist() if single else [layer.channels for layer in layers], strict=True))
        read = {layer.name: layer.always + layer.per_channel * count for layer, count in counted} if single else {}
        stored = {
            layer.name: layer.stored.always + layer.stored.per_channel * count
            for layer, count in counted
            if layer.stored is not None
        }
        return replace(one, read=read, read_bytes=stored)

    return tell


def figures_of(passes: Sequence[Pass], layers: Sequence[LayerReads], untouched: int) -> dict[str, Any]:
    """What the decoded tokens of some passes read, as `read_figures` says.

    Args:
        passes: as `reading` has completed them; those that decode no token are left out.
        layers: as there.
        untouched: weights of layers that are dense.
    """
    rows = []
    for one in passes:
        if one.kind == "decode" and one.read:
            of_one = [(one.read[each.name] - each.always) / (each.per_channel * one.sequences) for each in layers]
            rows += [of_one] * one.sequences
    return read_figures(torch.tensor(rows, dtype=torch.float64).reshape(-1, len(layers)), layers, untouched)


def read_figures(kept: torch.Tensor, layers: Sequence[LayerReads], untouched: int) -> dict[str, Any]:
    """What decoded tokens read.

    Args:
        kept: channels that each layer kept for each token, shape (tokens, layers).
        layers: in the same order.
        untouched: weights of layers that are dense.

    Returns:
        `sparsity`, the share of the weights of the seven linear layers of all blocks that decoded tokens did not
        read; `token_sparsity`, the same of each decoded token; `kept_channels`, the mean share of channels that
        each layer kept, by its name; `weights_read`, how many weights of those layers all decoded tokens read, of
        `weights_dense`. Empty where nothing was decoded.
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
        "kept_channels": {layer.name: round(share, 4) for layer, share in zip(layers, shares, strict=True)},
        "weights_read": int(weights.sum()),
        "weights_dense": int(dense * len(kept)),
    }
