"""Calibration texts on their way through a model, one block at a time: what a block reads is kept, and read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vivace_methods.models.anatomy import Anatomy, anatomy
from vivace_methods.models.free_memory import require_free
from vivace_methods.models.replaced_forward import replaced_forward
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.linears import Group, block_of, by_block
from vivace_methods.sparsity.fitting.calibration import DECODED, batches, inputs_met


@dataclass(frozen=True)
class Call:
    """How a block is called with a batch of texts.

    Attributes:
        given: its arguments; the first are hidden states.
        named: its arguments by name: positions and a mask, among others.
    """

    given: tuple[Any, ...]
    named: dict[str, Any]

    def of(self, block: Any) -> torch.Tensor:
        """What the block gives, with whatever is applied to it at the moment; shape (texts, length, width)."""
        output = block(*self.given, **self.named)
        found: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return found


class Walk:
    """Calibration texts that are carried through a model; what the block reads to which they have come is kept.

    They are carried on when a later block is asked for, through those before as these are at that moment: sparse, if
    they have become so. So every block is passed a few times however many there are. A model whose anatomy is not
    known is run from its first layer each time.

    Args:
        model: a causal language model of transformers.
        groups: that will be asked for.
        texts: token ids, each of shape (1, length).

    Raises:
        MethodError: what is kept does not fit into memory.
    """

    def __init__(self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor]) -> None:
        self._model, self._texts = model, texts
        self._place = 0
        self._hidden: list[torch.Tensor] = []
        self._calls: list[list[Call]] = []  # of each batch, for each block, without hidden states
        known = _known(model)
        self._blocks = [] if known is None else [layer.module for layer in known.layers]
        if known is not None:
            tokens: int = sum(text.shape[1] for text in texts)
            kept = kept_bytes(known, groups, tokens)
            what = f"Keeping the hidden states of {tokens:,} calibration tokens"
            require_free(kept, model.device, what, "calibrate on fewer tokens")
            self._begin()

    def inputs(self, groups: Sequence[Group]) -> list[list[torch.Tensor]]:
        """What groups of one block read, with the model as it is at the moment.

        Args:
            groups: of one block, no earlier than those that were asked for before.

        Returns:
            For each group, of the second part of each text, shape (tokens, inputs), in the model's type.

        Raises:
            MethodError: the model does not come to a group.
        """
        path = block_of(groups[0].names[0])
        block = self._model.get_submodule(path)
        if not self._carries(block):
            return inputs_met(groups, [partial(self._model, each, use_cache=False) for each in self._rows()])
        return inputs_met(groups, [partial(call.of, block) for call in self.calls(path)])

    def calls(self, path: str) -> list[Call]:
        """How a block is called with each batch of texts, with the model before it as it is at the moment.

        Args:
            path: of the block, no earlier than those that were asked for before.
        """
        block = self._model.get_submodule(path)
        if not self._carries(block):
            return self._watched(block)
        with torch.inference_mode():
            while self._blocks[self._place] is not block:
                for number, call in enumerate(self._here()):
                    self._hidden[number] = call.of(self._blocks[self._place])
                self._place += 1
        return list(self._here())

    def _carries(self, block: Any) -> bool:
        return any(each is block for each in self._blocks[self._place :])

    def _rows(self) -> Iterator[torch.Tensor]:
        for batch in batches(self._texts):
            yield batch.to(self._model.device)

    def _here(self) -> Iterator[Call]:
        for hidden, calls in zip(self._hidden, self._calls, strict=True):
            call = calls[self._place]
            yield Call((hidden, *call.given), call.named)

    def _begin(self) -> None:
        """Run the model once with blocks that do nothing, and keep what they are called with."""
        # Nothing in it depends on what the texts say, so that batches of one shape share their positions and masks.
        of_shape: dict[torch.Size, list[Call]] = {}
        for rows in self._rows():
            met: list[Call] = []
            states: list[torch.Tensor] = []

            def keep(hidden: torch.Tensor, *given: Any, met: Any = met, states: Any = states, **named: Any) -> Any:
                met.append(Call(given, named))
                states[:] = [hidden]
                return hidden

            with ExitStack() as replaced, torch.inference_mode():
                for block in self._blocks:
                    replaced.enter_context(replaced_forward(block, keep))
                self._model(rows, use_cache=False)
            self._hidden += states
            self._calls.append(of_shape.setdefault(rows.shape, met))

    def _watched(self, block: Any) -> list[Call]:
        found: list[Call] = []

        def keep(block: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(Call(given, named))

        hook = block.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with torch.inference_mode():
                for rows in self._rows():
                    self._model(rows, use_cache=False)
        finally:
            hook.remove()
        return found


def kept_bytes(known: Anatomy, groups: Sequence[Group], tokens: int) -> int:
    """What is kept of calibration texts while they are carried through a model.

    These are the hidden states before a block, what all groups of a dense block read, and the second parts of what
    one group reads in single precision.

    Args:
        known: of the model.
        groups: that are fitted.
        tokens: of all texts.
    """
    size: int = groups[0].modules[0].weight.dtype.itemsize
    read = max(sum(group.inputs for group in block) for block in by_block(groups))
    single = max(group.inputs for group in groups)
    return int(tokens * ((known.shapes.hidden + read) * size + DECODED * single * torch.float32.itemsize))


def _known(model: Any) -> Anatomy | None:
    try:
        return anatomy(model)
    except MethodError:
        return None
