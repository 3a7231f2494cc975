"""What reads and decodes where a method does nothing special: a whole prompt, and then one token a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vivace_methods.cache_needs import NOTHING, CacheKind, CacheNeed, Compile, plain_needs
from vivace_methods.decoding.generation import Generation
from vivace_methods.devices import require_graphs
from vivace_methods.protocol import Decoder, Read, Reader


class FullReader(Reader):
    """The whole prompt through the whole model, in one pass.

    Args:
        needs: of the attention that it is read with.
    """

    def __init__(self, needs: frozenset[CacheNeed] = NOTHING) -> None:
        self.needs = needs

    def read(self, run: Generation) -> Read:
        """Read it; everything is kept."""
        request = run.request
        logits = run.forward(request.prompt, "read", embedded=request.embedded)
        return Read(logits[:, -1], request.prompt, run.features)


class PlainDecoder(Decoder):
    """One token a pass.

    Args:
        model: a causal language model of transformers.
        cache: whether keys and values grow with the answer, or lie in memory of a fixed size.
        compile: whether single-token steps are compiled into CUDA graphs.
        decoding: a context that is entered after the first token, for kernels that suit single tokens.

    Raises:
        MethodError: the model or the machine cannot do what is asked.
    """

    def __init__(
        self,
        model: Any,
        *,
        cache: CacheKind = "dynamic",
        compile: Compile = "none",
        decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._decoding = decoding
        self._step: Any = None if compile == "none" else compiled_step(model, compile)
        self.needs = plain_needs(cache, compile)

    def steps(self, run: Generation, read: Read, first: torch.Tensor) -> Iterator[list[int]]:
        """A token each."""
        token = first
        step = None if self._step is None else run.passes.around(self._step)
        with self._decoding():
            while True:
                token = run.chooser.next(run.forward(token, "decode", step=step)[:, -1])
                yield [int(token)]


def compiled_step(model: Any, mode: Compile) -> Any:
    """The forward pass of single tokens, compiled into a CUDA graph; its cache must stay in its place.

    Raises:
        MethodError: the model is not on a CUDA device.
    """
    require_graphs(mode, model.device.type)
    return torch.compile(model.forward, mode=mode, dynamic=False)
