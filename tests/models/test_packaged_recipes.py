"""The recipes that come with Vivace for packaged models: whole, small, and found by the name that an arm gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivace.errors import UsageError
from vivace.models.packaged import RECIPES, recipe_folder
from vivace.tracks.efficiency.measured_models import folder_of_fitted
from vivace_methods.registry import parse_arm
from vivace_methods.sparsity.fitting.recipe import load_recipe

ARMS = ("teal:packaged:smollm2-teal", "r-sparse(ratio=0.95,weights=int8):packaged:smollm2-r-sparse")


@pytest.mark.parametrize("written", ARMS)
def test_an_arm_finds_its_recipe_and_its_settings_are_those_it_was_fitted_with(written: str) -> None:
    (member,) = parse_arm(written).members
    assert member.fitted is not None
    folder = folder_of_fitted(Path("nowhere"))(member.fitted)
    member.method.check_fitted(folder)
    recipe = load_recipe(folder)
    assert recipe.model == "smollm2-135m" and recipe.tokens == 8192 and len(recipe.modules) == 210
    assert str(Path.home()) not in (folder / "recipe.json").read_text(), "paths of the machine it was made on"


def test_all_of_them_are_small() -> None:
    assert sum(file.stat().st_size for file in RECIPES.rglob("*") if file.is_file()) < 8_000_000


def test_one_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(UsageError, match="no packaged recipe 'teal'; there are smollm2-r-sparse, smollm2-teal"):
        recipe_folder("packaged:teal")
