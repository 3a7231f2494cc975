"""The inference method that a `local:` model answers with: as a person wrote it, and on the model."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.errors import UsageError
from vivace.machine.optional_packages import require_torch
from vivace.models.base import AppliedMethod

if TYPE_CHECKING:
    from vivace_methods.arms import ArmMember


def read_method(text: str) -> AppliedMethod:
    """A method that prunes prompts, one that replaces linear layers, or both, checked without the model.

    Args:
        text: `claa(keep=0.2)`, `r-sparse(sparsity=0.4):FOLDER`, `claa(keep=0.2)+r-sparse(sparsity=0.4):FOLDER`.

    Raises:
        UsageError: another method, no recipe, or one that is damaged or was fitted with other settings.
    """
    require_torch()
    from vivace_methods.arms import Arm
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
                f"{reading}, with one of each, or without --method."
            )
        fitted = [member for member in arm.members if _is_fitted(member, text)]
        for member in fitted:
            member.method.check_fitted(Path(str(member.fitted)))
    except MethodError as error:
        raise UsageError(str(error)) from error
    # Written alike whatever the order in which they were named, and the one with a recipe last, before its hash.
    members = sorted((each for each in arm.members if each not in fitted), key=lambda each: each.method.name) + fitted
    label = Arm(tuple(replace(each, fitted=None) for each in members)).label
    if not fitted:
        return AppliedMethod(label)
    (member,) = fitted  # only one may replace layers, and no other has a recipe
    folder, digest = Path(str(member.fitted)), hashlib.sha256()
    for name in member.method.fitted_files:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return AppliedMethod(label, folder, digest.hexdigest())


def _is_fitted(member: ArmMember, text: str) -> bool:
    """Whether a method in what was written has a recipe.

    Raises:
        UsageError: it has one that it takes not, or lacks one.
    """
    from vivace_methods.protocol import Need

    method = member.method
    if Need.RECIPE not in method.needs:
        if member.fitted is not None:
            raise UsageError(f"{method.name} takes nothing fitted in conversations: write --method {method.label}.")
        return False
    if member.fitted is None:
        raise UsageError(
            f"--method {text} names no recipe: fit one with `vivace methods fit '{method.label}' --model local:… "
            f"--calibration FILE -o FOLDER`, and write {method.label}:FOLDER."
        )
    return True


def check_batch(method: AppliedMethod, batch: int) -> None:
    """See that conversations that are answered together are answered with the method.

    Raises:
        UsageError: they are too many: each pruned prompt keeps tokens of its own, and sparse kernels take few tokens.
    """
    from vivace_kernels.sparsity.packed import MOST_TOKENS
    from vivace_methods.protocol import Role
    from vivace_methods.registry import parse_arm

    if batch > 1 and any(Role.READER in each.roles for each in parse_arm(method.label).methods):
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
    """What a model answers with on it from now on: it prunes prompts, decodes with fewer weights, or both.

    Args:
        model: as transformers gives it; its text decoder is what methods apply to.
        label: the method with its settings, or two.
        recipe: the recipe's folder, for the one that needs one; None where none does.

    Raises:
        MethodError: the recipe was not fitted to this model, or the method does not apply to it.
    """

    def __init__(self, model: Any, label: str, recipe: Path | None) -> None:
        from vivace_methods.registry import parse_arm

        self.label = label
        arm = parse_arm(label) if recipe is None else parse_arm(label).with_recipe(str(recipe))
        self._applied = ExitStack()  # never left: it lasts as long as the process
        self._attached = self._applied.enter_context(arm.attach(model))

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
