"""What reads and decodes where a method does nothing special: a whole prompt, and then one token a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vivace_methods.decoding.generation import Generation
from vivace_methods.protocol import CacheKind, CacheNeed, Compile, Decoder, MethodError, Read, Reader


class FullReader(Reader):
    """The whole prompt through the whole model, in one pass."""

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
        self._step: Any = None
        if compile != "none":
            self._step = compiled_step(model, compile)
            self.needs = frozenset({CacheNeed.HELD})
        elif cache == "static":
            self.needs = frozenset({CacheNeed.FIXED})

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
    if model.device.type != "cuda":
        raise MethodError(f"compile={mode} needs a CUDA device, and the model is on {model.device}: use none.")
    return torch.compile(model.forward, mode=mode, dynamic=False)
