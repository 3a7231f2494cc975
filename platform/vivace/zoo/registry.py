"""The models of the zoo by name; a recipe is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from vivace.errors import UsageError
from vivace.zoo.base import TrainingRecipe
from vivace_methods.suggestions import did_you_mean

PREFIX = "zoo:"

RECIPES: dict[str, str] = {
    "retrieval": "vivace.zoo.recipes.retrieval:RetrievalLlama",
    "retrieval-drafter": "vivace.zoo.recipes.retrieval_drafter:RetrievalDrafter",
    "dense": "vivace.zoo.recipes.dense:DenseLlama",
    "dense-drafter": "vivace.zoo.recipes.dense_drafter:DenseDrafter",
    "moe": "vivace.zoo.recipes.moe:MixtureOfExperts",
    "moe-drafter": "vivace.zoo.recipes.moe_drafter:MixtureOfExpertsDrafter",
}
"""Name → `module:class`, targets before their drafters, and those first whose training and drafter take longest: they
are built in this order, so that two cores are busy to the end. A new model is one file, its weights, a line here."""


def plain_name(name: str) -> str:
    """The name of a zoo model, with or without `zoo:` before it.

    Raises:
        UsageError: there is none of that name.
    """
    plain = name.removeprefix(PREFIX)
    if plain not in RECIPES:
        raise UsageError(
            f"There is no zoo model '{plain}'{did_you_mean(plain, RECIPES)}; there are {', '.join(RECIPES)}."
        )
    return plain


def recipe_class(name: str) -> type[TrainingRecipe]:
    """The recipe of a zoo model.

    Raises:
        UsageError: there is none of that name.
    """
    module, _, kind = RECIPES[plain_name(name)].partition(":")
    return cast(type[TrainingRecipe], getattr(import_module(module), kind))
