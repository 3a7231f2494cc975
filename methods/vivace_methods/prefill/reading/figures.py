"""What a pruned prefill shows of a generation: how much was kept, where, and what its caches hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vivace_methods.models.anatomy import Shapes
from vivace_methods.models.ledger import Pass


def figures_of(passes: Sequence[Pass], shapes: Shapes, size: int) -> dict[str, Any]:
    """What was kept of the prompt.

    Args:
        passes: of the generation.
        shapes: of the model.
        size: bytes of a number in the caches.

    Returns:
        `kept_share` is the part of the prompt's tokens that went through the last layer, `kv_share` that of its keys
        and values which stayed, over all layers, `kept_tokens` the same by layer, `kv_bytes` how much they are,
        `prune_layer` the first layer, from 0, behind whose block fewer tokens go on (-1 before the first). Where
        nothing was left out, `nothing_pruned` says why.
    """
    read = next((one for one in reversed(passes) if one.kind == "read" and not one.context), None)
    if read is None:
        return {}
    layers = len(shapes.layers)
    entered = read.layer_tokens or (read.tokens,) * layers
    stored = read.layer_kept or entered
    prompt = read.prompt or read.tokens
    numbers = [layer.key_values for layer in shapes.layers]
    held = sum(kept * each for kept, each in zip(stored, numbers, strict=True))
    found: dict[str, Any] = {
        "kept_share": entered[-1] / prompt,
        "kv_share": held / (prompt * sum(numbers)),
        "kv_bytes": held * size,
        "kept_tokens": {str(layer): kept / prompt for layer, kept in enumerate(stored)},
    }
    if read.prompt is None:
        found["nothing_pruned"] = (
            f"The prompt has {prompt} tokens, which is within the budget or no more than the last tokens that are "
            "kept anyway."
        )
        return found
    before = [prompt, *entered]
    shorter = next((place - 2 for place in range(1, layers + 1) if before[place] < before[place - 1]), None)
    if shorter is not None:
        found["prune_layer"] = shorter
    return found
