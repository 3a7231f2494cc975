"""Fitting layers one after the other, on the inputs that they meet, and the recipe that comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from vivace_methods.models.loading import require_causal
from vivace_methods.sparsity.applying.groups import applied_groups, uncounted_group
from vivace_methods.sparsity.applying.linears import Group, by_block
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.sparsity.fitting.calibration import fitted_tokens, require_texts
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
from vivace_methods.sparsity.fitting.recipe import Recipe, fingerprint
from vivace_methods.sparsity.fitting.searches.journal import Journal
from vivace_methods.sparsity.fitting.walk import Walk

PASSES = 4
"""Of each block while its layers are fitted, about, what is computed of their inputs among them."""

FitLayers = Callable[
    [Sequence[Group], Sequence[torch.Tensor], Journal], tuple[dict[str, Fitted], list[dict[str, Any]]]
]
"""Fits every layer on texts, and says what was tried."""


def fitted_recipe(
    model: Any,
    calibration: Sequence[torch.Tensor],
    about: About,
    *,
    label: str,
    groups_of: Callable[[Any], list[Group]],
    fit_layers: FitLayers,
) -> Recipe:
    """What a method learns of a model; the model is as it was afterwards.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        calibration: token ids, each of shape (1, length).
        about: what the recipe is to say, and who watches.
        label: of the method, with the settings that matter to fitting.
        groups_of: the layers of a model that the method applies to.
        fit_layers: as the method does it.

    Raises:
        MethodError: a model that the method does not apply to, too little text, or activations that are not finite.
    """
    require_causal(model)
    texts = sorted(calibration, key=lambda text: int(text.shape[1]))  # those of one length are read together
    tokens = require_texts(texts)
    groups = groups_of(model)
    weights = fingerprint(groups)
    journal = Journal(about.journal, {"method": label, "weights": weights, "text": _hash(texts)})
    with torch.inference_mode():
        fitted, log = fit_layers(groups, texts, journal)
    return Recipe(
        method=label,
        model=about.model or _name(model),
        revision=about.revision or getattr(model.config, "_commit_hash", None),
        weights=weights,
        calibration=about.calibration,
        tokens=tokens,
        threshold_tokens=fitted_tokens(texts),
        modules={name: each.recipe for name, each in fitted.items()},
        factors={name: each.factors for name, each in fitted.items() if each.factors is not None},
        log=log,
    )


def fit_in_order(
    model: Any,
    groups: Sequence[Group],
    texts: Sequence[torch.Tensor],
    choose: Callable[[LayerFit], Fitted],
    *,
    sequential: bool,
    on_step: Callable[[int, int], None],
) -> dict[str, Fitted]:
    """Fit layers one after the other, on the inputs that they meet.

    Args:
        model: with nothing applied.
        groups: its layers, in the order in which they are met.
        texts: token ids, each of shape (1, length).
        choose: fits one layer.
        sequential: whether layers meet what those before give once they are sparse; or what they gave before.
        on_step: told of the groups that are done and of all.

    Returns:
        Name of each layer → what was fitted.
    """
    fitted: dict[str, Fitted] = {}
    walk, done = Walk(model, groups, texts), 0
    with ExitStack() as applied:
        for together in [[group] for group in groups] if sequential else by_block(groups):
            for group, inputs in zip(together, walk.inputs(together), strict=True):
                for name, module in zip(group.names, group.modules, strict=True):
                    fitted[name] = choose(LayerFit(name, module.weight, inputs))
                done += 1
                on_step(done, len(groups))
            if sequential:
                applied.enter_context(applied_groups([uncounted_group(group, fitted) for group in together]))
    return fitted


def fit_work(texts: Sequence[torch.Tensor]) -> float:
    """How much `fit_in_order` has to do, about, in tokens that go through the whole model."""
    tokens: int = sum(text.shape[1] for text in texts)
    return PASSES * tokens


def _hash(texts: Sequence[torch.Tensor]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text.cpu().to(torch.int64).numpy().tobytes() + b"|")
    return found.hexdigest()


def _name(model: Any) -> str:
    """The model's name on the hub, or of the folder that it was read from; its class for one that was made here."""
    named = getattr(model.config, "_name_or_path", "") or ""
    return (Path(named).name if Path(named).is_dir() else named) or type(model).__name__
