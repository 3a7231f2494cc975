"""Building a zoo model: one thread, fixed seeds and steps, and a folder that is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vivace.errors import UsageError, VivaceError
from vivace.files.folders import whole_or_none
from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.registry import plain_name, recipe_class
from vivace.zoo.shipped import built_folder, folder_of, is_shipped
from vivace.zoo.training.fingerprint import fingerprint


def build(
    name: str,
    built: Path,
    on_step: OnStep,
    *,
    steps: int | None = None,
    seed: int = 0,
    given: Mapping[str, Path] | None = None,
    output: Path | None = None,
) -> Path:
    """Train a zoo model, or find it built, and give its folder.

    Models that it needs are taken from `given`, else from this package, else they are built first.

    Args:
        name: with or without `zoo:` before it.
        built: the folder under which builds are kept, each under a name of its own.
        on_step: told of each training step; of none where the model is found built.
        steps: of training; None for the recipe's own.
        seed: of the weights and of the training data.
        given: the folders of needed models.
        output: where to put this model; None for a folder under `built`.

    Raises:
        UsageError: an unknown model, fewer than one step, or an output folder that holds something.
        VivaceError: the weights could not be written.
    """
    plain = plain_name(name)
    if steps is not None and steps < 1:
        raise UsageError(f"A model is trained for at least 1 step, not {steps}.")
    if output is not None:
        require_empty(output)
    recipe = recipe_class(plain)(seed=seed)
    needed = {each: (given or {}).get(each) or _needed(each, built, on_step) for each in recipe.needs}
    trained = steps or recipe.steps
    folder = output or built_folder(built, plain, fingerprint(recipe, trained, needed))
    if output is not None or not folder.is_dir():
        _build_into(folder, recipe, needed, trained, on_step)
    return folder


def require_empty(folder: Path) -> None:
    """Refuse to write into a folder that holds something.

    Raises:
        UsageError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"'{folder}' is not an empty folder; give another one with --output.")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """As `whole_or_none`, for what safetensors writes.

    Raises:
        VivaceError: weights could not be written.
    """
    from safetensors import SafetensorError

    try:
        with whole_or_none(folder) as unfinished:
            yield unfinished
    except SafetensorError as error:
        raise VivaceError(
            f"The weights could not be written below {folder.parent} ({error}); see to that, and run it again."
        ) from error


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Torch at one thread, with deterministic algorithms and a fixed seed; as it was before at the end."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(1)  # more threads add in another order, which gives other bits
            torch.use_deterministic_algorithms(True)
            torch.manual_seed(seed)
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)


def _needed(name: str, built: Path, on_step: OnStep) -> Path:
    return folder_of(name) if is_shipped(name) else build(name, built, on_step)


def _build_into(
    folder: Path, recipe: TrainingRecipe, needed: Mapping[str, Path], steps: int, on_step: OnStep
) -> None:
    with whole_folder(folder) as unfinished, repeatable(recipe.seed):
        recipe.train(unfinished, needed, steps, on_step)
