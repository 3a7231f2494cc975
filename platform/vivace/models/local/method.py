"""The inference method that a `local:` model decodes with: as a person wrote it, and on the model."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.machine.optional_packages import require_torch
from vivace.models.base import AppliedMethod


def read_method(text: str) -> AppliedMethod:
    """A method of activation sparsity with its recipe, checked as far as that goes without the model.

    Args:
        text: `r-sparse(sparsity=0.4):FOLDER`.

    Raises:
        UsageError: another method, no recipe, or one that cannot be read or was fitted with other settings.
    """
    require_torch()
    from vivace_methods.protocol import MethodError
    from vivace_methods.registry import METHODS, parse_arm
    from vivace_methods.sparsity.activation import ActivationSparsity
    from vivace_methods.sparsity.fitting.criteria import FACTORS_FILE, RECIPE_FILE
    from vivace_methods.sparsity.fitting.recipe import load_recipe

    try:
        arm = parse_arm(text)
        method = arm.method
        if not isinstance(method, ActivationSparsity):
            fitting = [name for name, kind in METHODS.items() if issubclass(kind, ActivationSparsity)]
            raise UsageError(
                f"--method {text} is not for conversations: local: models decode with {', '.join(fitting)}, or "
                "plainly without --method."
            )
        if arm.fitted is None:
            raise UsageError(
                f"--method {text} names no recipe: fit one with `vivace methods fit '{method.label}' --model local:… "
                f"--calibration FILE -o FOLDER`, and write {method.label}:FOLDER."
            )
        folder = Path(arm.fitted)
        method.require_settings_of(load_recipe(folder))
    except MethodError as error:
        raise UsageError(str(error)) from error
    digest = hashlib.sha256()
    for name in (RECIPE_FILE, FACTORS_FILE):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return AppliedMethod(method.label, folder, digest.hexdigest())


def check_batch(method: AppliedMethod, batch: int) -> None:
    """See that conversations that are answered together are decoded with the method.

    Raises:
        UsageError: they are too many, and would be decoded densely.
    """
    from vivace_kernels.packed import MOST_TOKENS

    if batch > MOST_TOKENS:
        raise UsageError(
            f"With --method {method.label}, --model-arg batch may be at most {MOST_TOKENS}: more conversations at "
            "once would be decoded densely."
        )


class SparseDecoding:
    """A method on a model from now on: prompts are read as ever, what is written is decoded with the method.

    Args:
        model: as transformers gives it; its text decoder is what the method applies to.
        label: the method with its settings.
        recipe: the recipe's folder.

    Raises:
        MethodError: the recipe was not fitted to this model, or the method does not apply to it.
    """

    def __init__(self, model: Any, label: str, recipe: Path) -> None:
        from vivace_methods.registry import parse_method
        from vivace_methods.sparsity.activation import ActivationSparsity, weights_of_blocks

        method = parse_method(label)
        assert isinstance(method, ActivationSparsity)
        self.label = label
        self._applied = ExitStack()  # never left: it lasts as long as the process
        self._counts, self._reads = self._applied.enter_context(
            method.applied(model, method.read_fitted(recipe, model))
        )
        self._untouched = weights_of_blocks(model) - sum(layer.dense for layer in self._reads)

    def begin(self) -> None:
        """Forget what was read before."""
        self._counts.zero_()

    def read_since(self, tokens: int) -> float | None:
        """The share of the weights of the decoder's linear layers that decoded tokens read since the beginning.

        Args:
            tokens: how many were decoded, of all sequences together; with none there is no share.
        """
        from vivace_methods.sparsity.applying.groups import read_figures

        if tokens == 0:
            return None
        kept = self._counts.double().cpu()[None] / tokens
        return 1 - float(read_figures(kept, self._reads, self._untouched)["sparsity"])
