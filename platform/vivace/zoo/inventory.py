"""What there is in the zoo, read from the files alone: no model is loaded for it."""

from __future__ import annotations

import inspect
import json
from math import prod
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.zoo.registry import RECIPES, recipe_class
from vivace.zoo.shipped import folder_of

SCORES = "scores.json"
"""Beside a model's weights: what `vivace models score NAME --format json` printed of it."""


def inventory(built: Path) -> list[dict[str, Any]]:
    """A row for each model: name, class, parameters, bytes, score, purpose, folder; None for what is not known.

    Args:
        built: where `vivace models build` puts models, by its default.
    """
    return [_row(name, built) for name in RECIPES]


def _row(name: str, built: Path) -> dict[str, Any]:
    purpose = (inspect.getdoc(recipe_class(name)) or "").partition("\n\n")[0].replace("\n", " ")
    row: dict[str, Any] = {"name": name, "class": None, "parameters": None, "bytes": None, "score": None}
    try:
        folder = folder_of(name, built)
    except UsageError:
        return {**row, "purpose": purpose, "folder": None}
    weights = folder / "model.safetensors"
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8")) if (folder / SCORES).is_file() else [None]
    return {
        **row,
        "class": configuration["architectures"][0],
        "parameters": _parameters(weights),
        "bytes": weights.stat().st_size,
        "score": scores[0],
        "purpose": purpose,
        "folder": str(folder),
    }


def _parameters(weights: Path) -> int:
    """How many numbers a safetensors file holds, from its header."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
