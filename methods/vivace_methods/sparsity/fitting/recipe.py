"""What activation sparsity learns of a model beforehand, as it is kept: a small JSON and one file of factors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vivace_kernels.sparsity.packed import Factors
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.linears import Group
from vivace_methods.sparsity.fitting.criteria import FACTORS_FILE, RECIPE_FILE, Criterion

FORMAT = 2
OLD_FORMAT = 1
"""In which `column-norm` meant the norm of a column of W - W_r."""
SAMPLED = 4096
"""Numbers of each matrix that its fingerprint is taken from."""


@dataclass(frozen=True)
class ModuleRecipe:
    """What is done to one linear layer.

    Attributes:
        sparsity: share of its weights that a token does not read.
        ratio: share of the rest that goes to exact channels.
        rank: of the low-rank part.
        criterion: by what a channel is judged.
        threshold: a channel is kept where its score is above; of `random`, the share that is dropped.
        output_error: of what the layer gives, on calibration tokens that nothing was fitted on: the mean square of
            the difference over that of the exact output. None where it was not measured.
    """

    sparsity: float
    ratio: float
    rank: int
    criterion: Criterion
    threshold: float
    output_error: float | None = None


@dataclass(frozen=True)
class Recipe:
    """A method fitted to a model.

    Attributes:
        method: its label.
        model: the model's name.
        revision: of the model, where it is known.
        weights: a fingerprint of the weights that it was fitted to.
        calibration: what it was calibrated on.
        tokens: of the calibration.
        threshold_tokens: those of them that thresholds come from; None where an older version has not said it.
        modules: name of each linear layer → what is done to it.
        factors: name → low-rank part, of those that have one.
        log: what the search tried, step by step; empty without one.
    """

    method: str
    model: str
    revision: str | None
    weights: str
    calibration: str
    tokens: int
    modules: Mapping[str, ModuleRecipe]
    factors: Mapping[str, Factors]
    log: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    threshold_tokens: int | None = None

    def diagnoses(self) -> Iterator[Diagnosis]:
        """What is done to each layer, and what that costs its output; a threshold's setting is its criterion."""
        for layer, module in self.modules.items():
            for kind in ("sparsity", "ratio", "rank"):
                yield Diagnosis(kind, layer, "", getattr(module, kind), 0)
            yield Diagnosis("threshold", layer, module.criterion, module.threshold, 0)
            if module.output_error is not None:
                yield Diagnosis("output_error", layer, "", module.output_error, 0)

    def save(self, folder: Path) -> None:
        """Write both files; the JSON comes last, so that a folder with it is whole.

        Raises:
            MethodError: it cannot be written there.
        """
        tensors = {}
        for name, factors in self.factors.items():
            tensors[f"{name}.up"] = factors.up.contiguous().cpu()
            tensors[f"{name}.down"] = factors.down.contiguous().cpu()
        written = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("factors",)}
        written["modules"] = {name: asdict(module) for name, module in self.modules.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECIPE_FILE).unlink(missing_ok=True)
            # Not by safetensors itself, which leaves files that only their owner can read.
            (folder / FACTORS_FILE).write_bytes(save(tensors))
            (folder / RECIPE_FILE).write_text(json.dumps({"format": FORMAT, **written}, indent=1) + "\n")
        except (OSError, SafetensorError) as error:
            raise MethodError(f"The recipe cannot be written to {folder}: {error}.") from error

    def require_made_for(self, groups: Sequence[Group], revision: str | None) -> None:
        """Refuse a model that this recipe was not fitted to.

        Args:
            groups: the layers that it is to be applied to.
            revision: of the model, where it is known.

        Raises:
            MethodError: other weights, another revision, or as `require_layers` says.
        """
        self.require_layers(groups)
        if None not in (revision, self.revision) and revision != self.revision:
            raise MethodError(
                f"The recipe is for {self.model} at revision {self.revision}, and this is {revision}: fit it again."
            )
        if self.weights != fingerprint(groups):
            raise MethodError(f"The recipe is for other weights, those of {self.model}: fit it again for this model.")

    def require_layers(self, groups: Sequence[Group]) -> None:
        """Refuse a model of other layers, whose weights need not be there.

        Args:
            groups: the layers that the recipe is to be applied to.

        Raises:
            MethodError: layers are missing, there are others, or low-rank parts have other shapes.
        """
        names = [name for group in groups for name in group.names]
        if missing := [name for name in names if name not in self.modules]:
            raise MethodError(
                f"The recipe for {self.model} says nothing of {missing[0]} ({len(missing)} of {len(names)} layers "
                "are missing): fit it again for this model and this setting of only."
            )
        if more := [name for name in self.modules if name not in set(names)]:
            raise MethodError(
                f"The recipe is for a model with a layer {more[0]}, which this one does not have or which the "
                "setting only leaves out: fit it again."
            )
        for group in groups:
            for name, module in zip(group.names, group.modules, strict=True):
                self._require_shapes(name, module)

    def _require_shapes(self, name: str, module: torch.nn.Linear) -> None:
        rank, factors = self.modules[name].rank, self.factors.get(name)
        if rank == 0 and factors is None:
            return
        if factors is None:
            raise MethodError(f"The recipe has no factors for {name}, whose rank is {rank}: fit it again.")
        shapes = (tuple(factors.up.shape), tuple(factors.down.shape))
        if shapes != ((module.out_features, rank), (rank, module.in_features)):
            raise MethodError(
                f"The factors of {name} have shapes {shapes[0]} and {shapes[1]}, which do not fit: the recipe is for "
                "another model."
            )


def load_recipe(folder: Path) -> Recipe:
    """Read a recipe.

    Raises:
        MethodError: there is none, it is damaged, or of another format.
    """
    try:
        written = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8-sig"))
        tensors = load_file(folder / FACTORS_FILE)
    except FileNotFoundError as error:
        raise MethodError(f"There is no recipe in {folder}: it needs {RECIPE_FILE} and {FACTORS_FILE}.") from error
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise MethodError(f"The recipe in {folder} cannot be read: {error}.") from error
    version = written.pop("format", None) if isinstance(written, dict) else None
    if version not in (OLD_FORMAT, FORMAT):
        raise MethodError(
            f"The recipe in {folder} is of format {version}, and this version reads {OLD_FORMAT} and {FORMAT}."
        )
    try:
        if version == OLD_FORMAT:
            written = _renamed(written)
        modules = {name: _module(module) for name, module in written.pop("modules").items()}
        factors = {
            name: Factors(tensors[f"{name}.up"], tensors[f"{name}.down"])
            for name, module in modules.items()
            if module.rank
        }
        return Recipe(**written, modules=modules, factors=factors)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise MethodError(f"The recipe in {folder} is damaged ({error}): fit it again.") from error


def _renamed(written: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of the old format with criteria by their present names.

    Raises:
        MethodError: its settings now mean something else.
    """
    modules = written["modules"].values()
    if "criterion=column-norm" in written["method"] and any(module["rank"] for module in modules):
        raise MethodError(
            f"The recipe was fitted as {written['method']} when column-norm took the norms of W - W_r, and it now "
            "takes those of W: fit it again, with criterion=residual-norm for what it was."
        )
    renamed = {
        name: {**module, "criterion": "residual-norm"}
        if module["criterion"] == "column-norm" and module["rank"]
        else module
        for name, module in written["modules"].items()
    }
    return {**written, "modules": renamed}


def _module(written: Mapping[str, Any]) -> ModuleRecipe:
    module = ModuleRecipe(**written)
    if module.criterion not in get_args(Criterion):
        raise ValueError(f"there is no criterion '{module.criterion}'")
    numbers = (module.sparsity, module.ratio, module.threshold)
    if not all(isinstance(number, int | float) and number == number for number in numbers):
        raise ValueError("a threshold, sparsity or ratio is no number")
    return module


def fingerprint(groups: Sequence[Group]) -> str:
    """A hash by which weights are known again, from some numbers of each matrix.

    They are rounded to bfloat16 before, so that a checkpoint is the same one in whatever type it is loaded.
    """
    found = hashlib.sha256()
    for group in groups:
        for name, module in zip(group.names, group.modules, strict=True):
            flat = module.weight.detach().flatten()
            sample = flat[:: max(1, flat.numel() // SAMPLED)].to(torch.bfloat16).cpu()
            found.update(f"{name} {tuple(module.weight.shape)}".encode())
            found.update(sample.view(torch.int16).numpy().tobytes())
    return found.hexdigest()
