"""How a step with kernels of our own in it is compiled as a whole, and captured in one CUDA graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import torch

_known: WeakValueDictionary[int, Opaque] = WeakValueDictionary()
_numbers = itertools.count()


class Opaque:
    """A function of tensors into which `torch.compile` does not look: one operator in its graph.

    The function may read and change whatever it holds besides, such as weights and counters, for nothing of that is
    the graph's; captured in a CUDA graph, it must not wait for the device. The graph knows it as long as it lives.

    Args:
        function: takes tensors, and gives a new one.
        like: what it gives for such tensors, with any content; its shape, type and device are what matters.
    """

    def __init__(self, function: Callable[..., torch.Tensor], like: Callable[..., torch.Tensor]) -> None:
        self.function, self.like = function, like
        self._number = next(_numbers)
        _known[self._number] = self

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        """The function's result; without the operator's overhead where nothing is compiled."""
        if torch.compiler.is_compiling():
            found: torch.Tensor = _opaque(given, self._number)
            return found
        return self.function(*given)


def _called(given: Sequence[torch.Tensor], number: int) -> torch.Tensor:
    return _known[number].function(*given)


def _likened(given: Sequence[torch.Tensor], number: int) -> torch.Tensor:
    return _known[number].like(*given)


_opaque = torch.library.custom_op("vivace::opaque", _called, mutates_args=())
_opaque.register_fake(_likened)
# What functions change besides is not declared: it would become an argument of the graph, often one of many parts of
# a tensor, and compilers would copy it around every call. That a call does more than give a tensor is all that they
# have to know, so that they drop none.
torch.fx.node.has_side_effect(torch.ops.vivace.opaque.default)
