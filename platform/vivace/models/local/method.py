"""The inference method that a `local:` model answers with: as a person wrote it, and on the model."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.machine.optional_packages import require_torch
from vivace.models.base import AppliedMethod


def read_method(text: str) -> AppliedMethod:
    """A method that prunes prompts, or one of activation sparsity with its recipe, checked without the model.

    Args:
        text: `claa(keep=0.2)`, `r-sparse(sparsity=0.4):FOLDER`.

    Raises:
        UsageError: another method or several, no recipe, or one that is damaged or was fitted with other settings.
    """
    require_torch()
    from vivace_methods.protocol import MethodError, Need, Role
    from vivace_methods.registry import METHODS, parse_arm

    def stands(kind: Any) -> bool:
        return kind.roles == {Role.LAYERS} or (kind.roles == {Role.READER} and Need.DRAFTER not in kind.needs)

    try:
        arm = parse_arm(text)
        if not all(stands(method) for method in arm.methods):
            decoding, reading = (
                ", ".join(name for name, kind in METHODS.items() if stands(kind) and kind.roles == {role})
                for role in (Role.LAYERS, Role.READER)
            )
            raise UsageError(
                f"--method {text} is not for conversations: local: models decode with {decoding}, read prompts with "
                f"{reading}, or do without --method."
            )
        if len(arm.members) > 1:
            raise UsageError(f"--method {text} names several methods, and local: models answer with one: name one.")
        (member,) = arm.members
        method = member.method
        if Need.RECIPE not in method.needs:
            if member.fitted is not None:
                raise UsageError(
                    f"{method.name} takes nothing fitted in conversations: write --method {method.label}."
                )
            return AppliedMethod(method.label)
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
    """See that conversations that are answered together are answered with the method.

    Raises:
        UsageError: they are too many: each pruned prompt keeps tokens of its own, and sparse kernels take few tokens.
    """
    from vivace_kernels.sparsity.packed import MOST_TOKENS
    from vivace_methods.protocol import Role
    from vivace_methods.registry import parse_method

    if batch > 1 and parse_method(method.label).roles == {Role.READER}:
        raise UsageError(
            f"With --method {method.label} conversations are answered one at a time, for each prompt keeps tokens of "
            "its own: leave out --model-arg batch."
        )
    if batch > MOST_TOKENS and method.recipe is not None:
        raise UsageError(
            f"With --method {method.label}, --model-arg batch may be at most {MOST_TOKENS}: more conversations at "
            "once would be decoded densely."
        )


class MethodOnModel:
    """A method on a model from now on: it prunes prompts, or decodes with fewer weights.

    Args:
        model: as transformers gives it; its text decoder is what the method applies to.
        label: the method with its settings.
        recipe: the recipe's folder; None for a method that needs none.

    Raises:
        MethodError: the recipe was not fitted to this model, or the method does not apply to it.
    """

    def __init__(self, model: Any, label: str, recipe: Path | None) -> None:
        from vivace_methods.registry import parse_method

        method = parse_method(label)
        self.label = label
        self._applied = ExitStack()  # never left: it lasts as long as the process
        fitted = None if recipe is None else method.read_fitted(recipe, model)
        self._attached = self._applied.enter_context(method.attach(model, fitted))

    def begin(self) -> None:
        """Forget what was read before."""
        self._attached.ledger.clear()

    def figures(self) -> dict[str, Any]:
        """What the method shows of the passes since the beginning.

        `sparsity` is the share of the weights of the decoder's linear layers that decoded tokens did not read, absent
        where none was decoded by the method's kernels; `kept_share` the part of the prompt that went through the last
        layer, absent where the method reads whole prompts; `nothing_pruned` says why it is all of it.
        """
        return self._attached.figures(self._attached.ledger.passes)
