"""Arms that need a recipe and name none are fitted once for their model, and the recipe is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace_methods.arms import Arm
    from vivace_methods.diagnosis import Diagnosis
    from vivace_methods.sparsity.activation import ActivationSparsity
    from vivace_methods.sparsity.fitting.recipe import Recipe

OnStep = Callable[[str, int, int], None]
"""Called with an arm's name, its steps that are done, and all of them."""


def fit_arm(
    method: ActivationSparsity,
    model: Any,
    name: str,
    calibration: str,
    texts: Sequence[Any],
    recipes: Path,
    on_step: Callable[[int, int], None],
) -> Path:
    """The folder of a method's recipe for a model, fitted unless it is kept there from an earlier time.

    Args:
        method: with its settings.
        model: loaded, with nothing applied.
        name: of the model, as the recipe says it.
        calibration: what the texts are.
        texts: token ids, each of shape (1, length).
        recipes: where recipes are kept; a search that is interrupted goes on there the next time.
        on_step: told of the steps that are done and of all.

    Raises:
        MethodError: the method does not apply to the model, or the texts are not enough.
    """
    from vivace_methods.sparsity.fitting.criteria import RECIPE_FILE
    from vivace_methods.sparsity.fitting.recipe import fingerprint

    # What the text was called, or where it lay, makes no other recipe.
    lengths = [text.shape[1] for text in texts]
    made_of = [method.fitted_label, str(model.dtype), fingerprint(method.groups(model)), *lengths]
    key = hashlib.sha256("\n".join(map(str, made_of)).encode())
    for text in texts:
        key.update(text.numpy().tobytes())
    folder = recipes / key.hexdigest()[:24]
    if not (folder / RECIPE_FILE).is_file():
        fit_recipe(method, model, texts, folder, model_name=name, calibration=calibration, on_step=on_step)
    return folder


def fit_recipe(
    method: ActivationSparsity,
    model: Any,
    texts: Sequence[Any],
    folder: Path,
    *,
    model_name: str,
    calibration: str,
    on_step: Callable[[int, int], None],
    revision: str | None = None,
) -> Recipe:
    """Fit a method to a model and write the recipe into a folder; a search that was interrupted goes on there.

    Args:
        method: with its settings.
        model: loaded, with nothing applied.
        texts: token ids, each of shape (1, length).
        folder: for the recipe.
        model_name: as the recipe says it.
        calibration: what the texts are.
        on_step: told of the steps that are done and of all.
        revision: of the model, where it is known.

    Raises:
        MethodError: the method does not apply to the model, the texts are not enough, or the folder cannot be
            written.
    """
    from vivace_methods.sparsity.fitting.about import About

    journal = folder / "search.jsonl"
    about = About(model_name, revision, calibration, on_step, journal)
    recipe = method.fit(model, texts, about)
    recipe.save(folder)
    journal.unlink(missing_ok=True)
    return recipe


def fit_missing(
    arms: dict[str, Arm],
    model: Any,
    name: str,
    calibration: Callable[[], tuple[str, Sequence[Any]]],
    recipes: Path,
    on_step: OnStep,
) -> dict[str, Arm]:
    """The arms, each with its recipe.

    Args:
        arms: name → arm.
        model: loaded, with nothing applied.
        name: of the model.
        calibration: what the texts are, and their token ids; asked only where an arm is to be fitted.
        recipes: where recipes are kept.
        on_step: told how far it has come.

    Raises:
        MethodError: as `fit_arm` says.
    """
    if not any(arm.awaits_recipe for arm in arms.values()):
        return arms
    of, texts = calibration()
    fitted: dict[str, Arm] = {}
    for label, arm in arms.items():
        if not arm.awaits_recipe:
            fitted[label] = arm
            continue

        def tell(done: int, steps: int, label: str = label) -> None:
            on_step(label, done, steps)

        (method,) = (member.method for member in arm.members if member.awaits_recipe)
        folder = fit_arm(method, model, name, of, texts, recipes, tell)  # type: ignore[arg-type]
        fitted[label] = arm.with_recipe(str(folder))
    return fitted


def recipe_details(folder: Path) -> tuple[dict[str, Any], tuple[Diagnosis, ...]]:
    """What a recipe was calibrated on, as JSON has it, and what it says of each layer."""
    from vivace_methods.sparsity.fitting.recipe import load_recipe

    recipe = load_recipe(folder)
    details = {
        "calibration": recipe.calibration,
        "tokens": recipe.tokens,
        "threshold_tokens": recipe.threshold_tokens,
        "model": recipe.model,
    }
    return details, tuple(recipe.diagnoses())
