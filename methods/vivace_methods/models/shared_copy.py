"""Copies of a model that share its weights, so that every arm of a comparison has a model of its own at no cost."""

from __future__ import annotations

import copy
from typing import Any


def shared_copy(model: Any) -> Any:
    """A copy of a module tree whose parameters and buffers are the very tensors of the original.

    Modules, configuration and hooks are the copy's own: what one method does to its copy (hooks, attention and expert
    kernels, compiled forms) no other one meets. Whoever writes into a weight or a buffer writes into all copies.

    Args:
        model: a module of torch; a model of transformers with its configuration. Copy it before anything is applied
            to it: hooks that are there are copied too.
    """
    shared: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        shared[id(tensor)] = tensor
    return copy.deepcopy(model, shared)
