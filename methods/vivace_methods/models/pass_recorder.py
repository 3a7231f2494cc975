"""Records a model's forward passes as they happen, with the experts that they meet, whoever calls the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from vivace_methods.models.anatomy import Anatomy, anatomy
from vivace_methods.models.ledger import Ledger, Pass, PassKind, Tell
from vivace_methods.models.opaque import Opaque


@contextmanager
def counting(
    model: Any, ledger: Ledger, kind: Callable[[], PassKind | None] = lambda: None
) -> Iterator[PassRecorder]:
    """Record each forward pass of a model's text decoder while the context lasts; afterwards the model is as before.

    Nothing that the model gives is changed, and no pass waits for a device. Hooks do the work, so that it does not
    matter who calls the model: a loop of ours, `generate` of transformers, lm-eval. Hooks cannot see single runs of a
    compiled step: give such a step to `PassRecorder.around`.

    Args:
        model: of transformers, or what wraps one.
        ledger: where passes are recorded.
        kind: asked at each pass what it is for. Where it says None, a single token that follows others is decoded,
            and everything else is read.

    Raises:
        MethodError: an architecture that is not known.
    """
    found = anatomy(model)
    recorder = PassRecorder(found, ledger, kind)
    with ExitStack() as hooks:
        handles = [
            found.decoder.register_forward_pre_hook(recorder.begins, with_kwargs=True),
            found.decoder.register_forward_hook(recorder.ends),
        ]
        if found.head is not None:
            handles.append(found.head.register_forward_pre_hook(recorder.gives_logits))
        for number, layer in enumerate(found.mixtures):
            hook = partial(recorder.meets_experts, number)
            handles.append(layer.experts.register_forward_pre_hook(hook, with_kwargs=True))  # type: ignore[union-attr]
        for handle in handles:
            hooks.callback(handle.remove)
        if recorder.hits is not None:
            hooks.enter_context(ledger.counter(recorder.hits, _experts_met))
        yield recorder


class PassRecorder:
    """Turns what hooks see into passes.

    Args:
        anatomy: of the model.
        ledger: where passes are recorded.
        kind: as `counting` says.
    """

    hits: torch.Tensor | None = None
    """How many tokens of the running pass went to each expert, int32, shape (layers with experts, experts + 1); the
    last column is for those that were sent to none."""

    def __init__(self, anatomy: Anatomy, ledger: Ledger, kind: Callable[[], PassKind | None]) -> None:
        self._ledger, self._kind = ledger, kind
        self._running: tuple[torch.Size, Any] | None = None
        self._around = self._awaits_logits = False
        self._met: list[list[torch.Tensor]] = [[] for _ in anatomy.mixtures]
        self._counted: list[Opaque] = []
        if anatomy.mixtures:
            experts: Any = anatomy.mixtures[0].experts
            device = next(experts.parameters()).device
            shape = len(anatomy.mixtures), experts.num_experts + 1
            self.hits = torch.zeros(shape, dtype=torch.int32, device=device)
            one = torch.ones(1, dtype=torch.int32, device=device)
            self._one = one
            self._counted = [Opaque(partial(_count, row, one), torch.empty_like) for row in self.hits]

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step whose every run is recorded from outside: for one that is compiled, whose hooks are not called.

        Args:
            step: a forward pass of the model; its arguments are those of the model, its result has `logits`.
        """

        def recorded(*given: Any, **named: Any) -> Any:
            self.begins(None, given, named)
            self._around = True
            try:
                found = step(*given, **named)
            finally:
                self._around = False
            self._record(found.logits.shape[1])
            return found

        return recorded

    def begins(self, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before the decoder: what goes through it, and what was there before."""
        if torch.compiler.is_compiling() or self._around:
            return
        tokens = given[0] if given else named.get("input_ids")
        inputs = named.get("inputs_embeds") if tokens is None else tokens
        if inputs is None:  # the decoder will say so
            return
        self._running = inputs.shape[:2], _positions(named.get("past_key_values"))
        for met in self._met:
            met.clear()

    def ends(self, module: Any, given: tuple[Any, ...], found: Any) -> None:
        """After the decoder."""
        if torch.compiler.is_compiling() or self._around:
            return
        self._record(0)
        self._awaits_logits = True

    def gives_logits(self, module: Any, given: tuple[Any, ...]) -> None:
        """Before the head: how many hidden states become logits."""
        if torch.compiler.is_compiling() or not self._awaits_logits:
            return
        self._awaits_logits = False
        self._ledger.amend(logits=given[0].shape[-2])

    def meets_experts(self, number: int, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Before the experts of a layer: which of them are to compute something.

        Args:
            number: of the layer, among those that have experts.
            module: the experts.
            given: hidden states, indices of experts with shape (tokens, experts of each), and their weights.
            named: those of the arguments that are given by name.
        """
        hidden, index, *others = given
        if torch.compiler.is_compiling():
            return (hidden, self._counted[number](index), *others), named
        self._met[number].append(index)
        return None

    def _record(self, logits: int) -> None:
        if self._running is None:  # hooks were set while it was running
            return
        (sequences, tokens), (context, per_layer, later) = self._running
        self._running = None
        if any(self._met):
            self._add_met()
        kind = self._kind() or ("decode" if tokens == 1 and (context or later) else "read")
        self._ledger.record(Pass(kind, tokens, context, logits, sequences, layer_context=per_layer), later)

    def _add_met(self) -> None:
        """Count all layers of a pass at once, which takes less time than one after the other."""
        assert self.hits is not None
        flat = [torch.cat(met) if len(met) > 1 else met[0] if met else self._one[:0] for met in self._met]
        flat = [each.to(self.hits.device).flatten() for each in flat]
        alike = len({each.shape for each in flat}) == 1
        most = self.hits.shape[1] - 1
        index = torch.stack(flat) if alike else torch.nn.utils.rnn.pad_sequence(flat, True, most)
        self.hits.scatter_add_(1, index, self._one.expand(index.shape))
        for met in self._met:
            met.clear()


def _count(row: torch.Tensor, one: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Add to the hits of one layer, from inside a compiled step; gives the indices on, or nobody would ask for it."""
    flat = index.flatten()
    row.scatter_add_(0, flat, one.expand(flat.shape))
    return index.clone()


def _experts_met(one: Pass, hits: torch.Tensor) -> Pass:
    computed = hits[:, :-1]
    different = (computed > 0).sum(1).tolist()
    return replace(one, experts=tuple(different), routed=tuple(computed.sum(1).tolist()))


def _positions(cache: Any) -> tuple[int, tuple[int, ...] | None, list[tuple[torch.Tensor, Tell]]]:
    """Positions in a cache; those of each layer, where they differ; and what only the device knows of it."""
    if cache is None:
        return 0, None, []
    lengths = [layer.get_seq_length() for layer in getattr(cache, "layers", [cache])]
    on_device = [length for length in lengths if isinstance(length, torch.Tensor)]
    if on_device:  # memory of a fixed size, whose layers are all alike
        return 0, None, [(on_device[0].clone(), lambda one, length: replace(one, context=int(length)))]
    context = max(lengths, default=0)
    return context, tuple(lengths) if min(lengths, default=0) < context else None, []
