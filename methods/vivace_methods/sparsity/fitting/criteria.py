"""What settings speak of: by what channels are judged, and what low-rank parts are fitted to; a recipe's files."""

from __future__ import annotations

from typing import Literal

RECIPE_FILE = "recipe.json"
FACTORS_FILE = "factors.safetensors"

Criterion = Literal["magnitude", "column-norm", "residual-norm", "gate", "random", "none"]
"""By what a channel is judged: the input's magnitude; that times the norm of the column of W that it meets; that
times the norm of the column of W - W_r, which is what dropping it loses; the magnitude of the activated gate that it
was multiplied with; a draw beforehand; or not at all: every channel is left to the low-rank part."""
FactorFit = Literal["dropped", "svd"]
"""What a low-rank part is fitted to: the inputs that are dropped, or the weights alone."""
