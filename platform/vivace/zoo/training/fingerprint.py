"""What makes a built zoo model, as one hash: the same hash means that building it again would change nothing."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from vivace.zoo.base import TrainingRecipe

_FOLLOWED = ("vivace.zoo", "vivace.tasks", "vivace_methods")
"""Packages whose code can change what a recipe trains."""
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")


def fingerprint(recipe: TrainingRecipe, steps: int, needed: Mapping[str, Path]) -> str:
    """The hash of a recipe's code with all it imports, its seed and steps, the packages, and the models it needs."""
    made_of = {
        "name": recipe.name,
        "seed": recipe.seed,
        "steps": steps,
        "sources": {name: _digest(path) for name, path in sorted(_sources(type(recipe).__module__).items())},
        "packages": {name: version(name) for name in _PACKAGES},
        "needed": {name: _digest(folder / "model.safetensors") for name, folder in needed.items()},
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _sources(module: str) -> dict[str, Path]:
    """A module and everything of the followed packages that it imports, directly or not."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name not in found and path is not None:
            found[name] = path
            waiting.extend(imported for imported in _imports(path) if imported.startswith(_FOLLOWED))
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """The file of a module; None where the name is that of something inside one."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
