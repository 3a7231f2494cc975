"""Where a zoo model lies: its weights come with this package, or were built on this machine."""

from __future__ import annotations

from pathlib import Path

from vivace.errors import UsageError
from vivace.zoo.registry import PREFIX, plain_name, recipe_class
from vivace.zoo.training.fingerprint import fingerprint

WEIGHTS = Path(__file__).with_name("weights")
"""A folder for each model whose weights come with this package."""


def is_shipped(name: str) -> bool:
    """Whether a model's weights come with this package."""
    return (WEIGHTS / plain_name(name) / "config.json").is_file()


def folder_of(name: str, built: Path | None = None) -> Path:
    """The folder with a zoo model's configuration and weights.

    Args:
        name: with or without `zoo:` before it.
        built: where `vivace models build` puts models, by its default; None looks only among those that come with
            this package.

    Raises:
        UsageError: there is no such model, or it has to be built first.
    """
    plain = plain_name(name)
    if is_shipped(plain):
        return WEIGHTS / plain
    if built is not None:
        recipe = recipe_class(plain)()
        needed = {each: folder_of(each, built) for each in recipe.needs}
        folder = built_folder(built, plain, fingerprint(recipe, recipe.steps, needed))
        if folder.is_dir():
            return folder
    raise UsageError(f"The weights of {PREFIX}{plain} are not here: run `vivace models build {plain}` first.")


def built_folder(built: Path, name: str, made_of: str) -> Path:
    """Where a build with that fingerprint lies, or would lie."""
    return built / f"{name}-{made_of[:16]}"
