"""What methods of activation sparsity share: settings, fitting layer by layer, and what a token then moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.cache_needs import NOTHING, CacheNeed, Compile, plain_needs
from vivace_methods.devices import require_graphs
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.protocol import Attached, Method, MethodError, Need, Request, Role
from vivace_methods.sparsity.fitting.about import NOBODY, About
from vivace_methods.sparsity.fitting.criteria import FACTORS_FILE, RECIPE_FILE
from vivace_methods.sparsity.only import name_pattern

if TYPE_CHECKING:
    import torch

    from vivace_methods.diagnosis import Evidence
    from vivace_methods.models.passes import Passes
    from vivace_methods.sparsity.applying.attached import Applied
    from vivace_methods.sparsity.applying.linears import Group
    from vivace_methods.sparsity.fitting.layers import Fitted
    from vivace_methods.sparsity.fitting.recipe import Recipe
    from vivace_methods.sparsity.fitting.searches.journal import Journal


@dataclass(frozen=True)
class ActivationSparsity(Method):
    """A method that leaves out weights for small inputs of linear layers, one decoded token at a time.

    Attributes:
        sparsity: share of the weights of the seven linear layers of each block that a decoded token does not read,
            in [0, 1); low-rank factors count as read.
        prompt: share of a prompt's last tokens that is read sparsely too. 0 is how the methods are used: prompts are
            dense. 0.1 and 0.5 are how R-Sparse's and TEAL's released code measure accuracy, 1 is every token.
        compile: `reduce-overhead` compiles the single-token step, the sparse kernels in it, into a CUDA graph; `auto`
            does so on a GPU, where launching one kernel after the other would take longer than they do.
        only: a regular expression: layers in whose names it is not found stay dense. Empty takes all seven.
        weights: `int8` rounds those of sparse layers to eight bits with a scale for each output, for prompts and
            answers alike, so that a kept channel is half as many bytes as in 16 bits; `model` takes them as they are.
            Recipes are the same for both.
    """

    family: ClassVar[str] = "sparsity"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.LAYERS})
    needs: ClassVar[tuple[Need, ...]] = (Need.RECIPE,)
    fitted_files: ClassVar[tuple[str, ...]] = (RECIPE_FILE, FACTORS_FILE)

    sparsity: float = 0.5
    prompt: float = 0.0
    compile: Literal["auto", "none", "reduce-overhead"] = "auto"
    only: str = ""
    weights: Literal["model", "int8"] = "model"

    def __post_init__(self) -> None:
        name_pattern(self.only)
        if not 0 <= self.sparsity < 1:
            raise MethodError(f"The setting sparsity of {self.name} must be in [0, 1), and {self.sparsity} is not.")
        if not 0 <= self.prompt <= 1:
            raise MethodError(f"The setting prompt of {self.name} must be from 0 to 1, and {self.prompt} is not.")

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """What compiled steps ask for, where they are asked for."""
        return NOTHING if self.compile == "auto" else plain_needs("dynamic", self.compile)

    def check_device(self, device: str) -> None:
        """Refuse to compile steps where there are no CUDA graphs."""
        require_graphs(self.compile, device)

    @abstractmethod
    def fit_layers(
        self, model: Any, groups: Sequence[Group], texts: Sequence[torch.Tensor], about: About, journal: Journal
    ) -> tuple[dict[str, Fitted], list[dict[str, Any]]]:
        """Fit every layer, and say what was tried."""

    def groups(self, model: Any) -> list[Group]:
        """The layers that it applies to.

        Raises:
            MethodError: as `find_groups` says.
        """
        from vivace_methods.sparsity.applying.linears import find_groups

        return find_groups(model, self.only)

    def knows(self, architecture: str) -> bool:
        """Dense decoders whose layers need no further look, where all of them are chosen."""
        from vivace_methods.models.anatomy import DENSE

        return not self.only and architecture in DENSE

    def check_model(self, configuration: Any) -> None:
        """Refuse models without such layers, as far as they can be seen without weights."""
        from vivace_methods.models.anatomy import without_weights

        if (model := without_weights(configuration, self.name)) is not None:
            self.groups(model)

    def fit(self, model: Any, calibration: Sequence[torch.Tensor], about: About = NOBODY) -> Recipe:
        """Fit thresholds and low-rank parts; the model is as it was afterwards.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            calibration: token ids, each of shape (1, length).
            about: what the recipe is to say, and who watches.

        Raises:
            MethodError: a model that this does not apply to, too little text, or activations that are not finite.
        """
        from vivace_methods.sparsity.fitting.in_order import fitted_recipe

        return fitted_recipe(
            model,
            calibration,
            about,
            label=self.fitted_label,
            groups_of=self.groups,
            fit_layers=lambda groups, texts, journal: self.fit_layers(model, groups, texts, about, journal),
        )

    @property
    def fitted_label(self) -> str:
        """The label without what does not matter to fitting."""
        return replace(self, prompt=0.0, compile="auto", weights="model").label

    def read_fitted(self, folder: Path, model: Any) -> Recipe:
        """The recipe in a folder, which must be for this model and these settings."""
        from vivace_methods.sparsity.fitting.recipe import load_recipe

        recipe = load_recipe(folder)
        self._require(recipe, model)
        return recipe

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Leave out weights while the context lasts; only what layers do is replaced, and nothing that they hold."""
        from vivace_methods.sparsity.applying.attached import attached
        from vivace_methods.sparsity.fitting.recipe import Recipe

        if not isinstance(fitted, Recipe):
            raise MethodError(f"{self.name} needs a recipe that was fitted to the model: write {self.label}:FOLDER.")
        self._require(fitted, model)
        return attached(model, lambda passes: self.applied(model, fitted, passes), self._compiled(model))

    def _compiled(self, model: Any) -> Compile:
        """How the step of a single token is compiled."""
        if self.compile == "auto":
            return "reduce-overhead" if model.device.type == "cuda" else "none"
        return self.compile

    def applied(self, model: Any, recipe: Recipe, passes: Passes | None = None) -> Applied:
        """The sparse layers in a model, however it is then used.

        Args:
            model: of transformers.
            recipe: fitted to it.
            passes: of the model; None where nothing is verified.

        Returns:
            A context that gives kept channels of decoded tokens so far, int32, shape (layers,), and what each layer
            reads.

        Raises:
            MethodError: the recipe does not fit the model or these settings.
        """
        from vivace_methods.sparsity.applying.attached import sparse_linears

        self._require(recipe, model)
        levels = self.weights == "int8"
        return sparse_linears(model, self.groups(model), recipe, self.prompt, passes, levels=levels)

    def diagnose(
        self, model: Any, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterator[Diagnosis]:
        """The share of each layer's channels that decoded tokens kept (`kept_channels`), over the tokens."""
        tokens = len(evidence.figures.get("token_sparsity", ()))
        for layer, share in evidence.figures.get("kept_channels", {}).items():
            yield Diagnosis("kept_channels", layer, "", share, tokens)

    def check_fitted(self, folder: Path, configuration: Any = None) -> None:
        """See that a recipe is there, and was fitted with these settings to a model of these layers."""
        from vivace_methods.models.anatomy import without_weights
        from vivace_methods.sparsity.fitting.recipe import load_recipe

        recipe = load_recipe(folder)
        self._require_settings_of(recipe)
        if configuration is not None and (model := without_weights(configuration, self.name)) is not None:
            recipe.require_layers(self.groups(model))

    def _require_settings_of(self, recipe: Recipe) -> None:
        if recipe.method != self.fitted_label:
            raise MethodError(
                f"The recipe was fitted as {recipe.method}, and the arm is {self.fitted_label}: write the recipe's "
                "settings before :FOLDER, or fit another."
            )

    def _require(self, recipe: Recipe, model: Any) -> None:
        self._require_settings_of(recipe)
        recipe.require_made_for(self.groups(model), getattr(model.config, "_commit_hash", None))

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """That of dense decoding, and a second copy of the layers by input channel, for prompts read the first."""
        from vivace_methods.models.anatomy import shapes
        from vivace_methods.models.cost import greedy_memory

        size = 1 if self.weights == "int8" else dtype.itemsize
        copied: int = size * sum(shapes(configuration).linears.values())
        return greedy_memory(configuration, prompt, answer, dtype) + copied
