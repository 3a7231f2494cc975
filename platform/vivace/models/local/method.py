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
    from vivace_methods.protocol import MethodError, Role
    from vivace_methods.registry import METHODS, parse_arm

    try:
        arm = parse_arm(text)
        if any(method.roles != {Role.LAYERS} for method in arm.methods):
            standing = [name for name, kind in METHODS.items() if kind.roles == {Role.LAYERS}]
            raise UsageError(
                f"--method {text} is not for conversations: local: models decode with {', '.join(standing)}, or "
                "plainly without --method."
            )
        (member,) = arm.members  # no two methods replace layers
        method = member.method
        if member.fitted is None:
            raise UsageError(
                f"--method {text} names no recipe: fit one with `vivace methods fit '{method.label}' --model local:… "
                f"--calibration FILE -o FOLDER`, and write {method.label}:FOLDER."
            )
        folder = Path(member.fitted)
        method.check_fitted(folder)
    except MethodError as error:
        raise UsageError(str(error)) from error
    digest = hashlib.sha256()
    for name in method.fitted_files:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return AppliedMethod(method.label, folder, digest.hexdigest())


def check_batch(method: AppliedMethod, batch: int) -> None:
    """See that conversations that are answered together are decoded with the method.

    Raises:
        UsageError: they are too many, and would be decoded densely.
    """
    from vivace_kernels.sparsity.packed import MOST_TOKENS

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

        method = parse_method(label)
        self.label = label
        self._applied = ExitStack()  # never left: it lasts as long as the process
        self._attached = self._applied.enter_context(method.attach(model, method.read_fitted(recipe, model)))

    def begin(self) -> None:
        """Forget what was read before."""
        self._attached.ledger.clear()

    def read_since(self) -> float | None:
        """The share of the weights of the decoder's linear layers that decoded tokens read since the beginning.

        None where none was decoded by the method's kernels.
        """
        spared = self._attached.figures(self._attached.ledger.passes).get("sparsity")
        return None if spared is None else 1 - float(spared)
