"""What methods of activation sparsity share: settings, fitting layer by layer, and what a token then moves."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from vivace_methods.decoding.plain import PlainDecoder
from vivace_methods.models import implementations
from vivace_methods.models.anatomy import shapes
from vivace_methods.models.cost import greedy_memory
from vivace_methods.models.ledger import Pass
from vivace_methods.models.loading import require_causal
from vivace_methods.models.passing import Passes, passes_of
from vivace_methods.protocol import Attached, Compile, Method, MethodError, Need, Role
from vivace_methods.sparsity.applying.groups import (
    LayerReads,
    SparseGroup,
    applied_groups,
    figures_of,
    packed_group,
    reading,
    uncounted_group,
)
from vivace_methods.sparsity.applying.linears import Group, find_groups
from vivace_methods.sparsity.fitting.calibration import fitted_tokens, inputs_of, require_texts
from vivace_methods.sparsity.fitting.criteria import FACTORS_FILE, RECIPE_FILE
from vivace_methods.sparsity.fitting.journal import Journal
from vivace_methods.sparsity.fitting.layers import Fitted, LayerFit
from vivace_methods.sparsity.fitting.recipe import Recipe, fingerprint, load_recipe


@dataclass(frozen=True)
class About:
    """What a recipe is to say of its origin, and how fitting is watched.

    Attributes:
        model: its name; the configuration's if None.
        revision: of the model, where it is known.
        calibration: what the calibration text is.
        on_step: told of the steps that are done and of all steps.
        journal: a file in which a search keeps what it measured, so that it goes on after an interruption; or None.
    """

    model: str | None = None
    revision: str | None = None
    calibration: str = "text of no name"
    on_step: Callable[[int, int], None] = field(default=lambda done, steps: None)
    journal: Path | None = None


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
    """

    family: ClassVar[str] = "sparsity"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.LAYERS})
    needs: ClassVar[tuple[Need, ...]] = (Need.RECIPE,)
    fitted_files: ClassVar[tuple[str, ...]] = (RECIPE_FILE, FACTORS_FILE)

    sparsity: float = 0.5
    prompt: float = 0.0
    compile: Literal["auto", "none", "reduce-overhead"] = "auto"
    only: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise MethodError(f"The setting sparsity of {self.name} must be in [0, 1), and {self.sparsity} is not.")
        if not 0 <= self.prompt <= 1:
            raise MethodError(f"The setting prompt of {self.name} must be from 0 to 1, and {self.prompt} is not.")

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
        return find_groups(model, self.only)

    def fit(self, model: Any, calibration: Sequence[torch.Tensor], about: About = About()) -> Recipe:
        """Fit thresholds and low-rank parts; the model is as it was afterwards.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            calibration: token ids, each of shape (1, length).
            about: what the recipe is to say, and who watches.

        Raises:
            MethodError: a model that this does not apply to, too little text, or activations that are not finite.
        """
        require_causal(model)
        texts = sorted(calibration, key=lambda text: int(text.shape[1]))  # those of one length are read together
        tokens = require_texts(texts)
        groups = self.groups(model)
        weights = fingerprint(groups)
        journal = Journal(about.journal, {"method": self.fitted_label, "weights": weights, "text": _hash(texts)})
        with torch.inference_mode():
            fitted, log = self.fit_layers(model, groups, texts, about, journal)
        return Recipe(
            method=self.fitted_label,
            model=about.model or _name(model),
            revision=about.revision or getattr(model.config, "_commit_hash", None),
            weights=weights,
            calibration=about.calibration,
            tokens=tokens,
            threshold_tokens=fitted_tokens(texts),
            modules={name: each.recipe for name, each in fitted.items()},
            factors={name: each.factors for name, each in fitted.items() if each.factors is not None},
            log=log,
        )

    @property
    def fitted_label(self) -> str:
        """The label without what does not matter to fitting."""
        return replace(self, prompt=0.0, compile="auto").label

    def read_fitted(self, folder: Path, model: Any) -> Recipe:
        """The recipe in a folder, which must be for this model and these settings."""
        recipe = load_recipe(folder)
        self._require(recipe, model)
        return recipe

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Leave out weights while the context lasts; only what layers do is replaced, and nothing that they hold."""
        if not isinstance(fitted, Recipe):
            raise MethodError(f"{self.name} needs a recipe that was fitted to the model: write {self.label}:FOLDER.")
        self._require(fitted, model)
        return self._attached(model, fitted)

    @contextmanager
    def _attached(self, model: Any, recipe: Recipe) -> Iterator[Attached]:
        with ExitStack() as contexts:
            passes = contexts.enter_context(passes_of(model))
            counts, reads = contexts.enter_context(self.applied(model, recipe, passes))
            contexts.enter_context(passes.ledger.counter(counts, reading(reads)))
            products = contexts.enter_context(implementations.products(model))
            untouched = weights_of_blocks(model) - sum(layer.dense for layer in reads)

            def figures(passes: Sequence[Pass]) -> dict[str, Any]:
                return {**({"products": products} if products else {}), **figures_of(passes, reads, untouched)}

            decoder = PlainDecoder(model, compile=self._compiled(model))
            yield Attached(passes, usual_decoder=decoder, figures=figures, prepare=_meet_one_token)

    def _compiled(self, model: Any) -> Compile:
        """How the step of a single token is compiled."""
        if self.compile == "auto":
            return "reduce-overhead" if model.device.type == "cuda" else "none"
        return self.compile

    @contextmanager
    def applied(
        self, model: Any, recipe: Recipe, passes: Passes | None = None
    ) -> Iterator[tuple[torch.Tensor, list[LayerReads]]]:
        """The sparse layers in a model, however it is then used.

        Args:
            model: of transformers.
            recipe: fitted to it.
            passes: of the model; None where nothing is verified.

        Yields:
            Kept channels of decoded tokens so far, int32, shape (layers,), and what each layer reads.

        Raises:
            MethodError: the recipe does not fit the model or these settings.
        """
        self._require(recipe, model)
        groups = self.groups(model)
        fitted = fitted_of(recipe)
        counts = torch.zeros(sum(len(group.names) for group in groups), dtype=torch.int32, device=model.device)
        sparse, reads, first = [], [], 0
        for group in groups:
            its_counts = counts[first : first + len(group.names)]
            sparse.append(SparseGroup(group, packed_group(group, fitted), its_counts, self.prompt, passes))
            first += len(group.names)
            reads += [
                LayerReads.of(name, module, recipe.modules[name].rank)
                for name, module in zip(group.names, group.modules, strict=True)
            ]
        with applied_groups(sparse):
            yield counts, reads

    def check_fitted(self, folder: Path) -> None:
        """See that a recipe is there, and was fitted with these settings."""
        self._require_settings_of(load_recipe(folder))

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
        copied: int = dtype.itemsize * sum(shapes(configuration).linears.values())
        return greedy_memory(configuration, prompt, answer, dtype) + copied


def fitted_of(recipe: Recipe) -> dict[str, Fitted]:
    """The layers of a recipe."""
    return {name: Fitted(module, recipe.factors.get(name)) for name, module in recipe.modules.items()}


def fit_in_order(
    model: Any,
    groups: Sequence[Group],
    texts: Sequence[torch.Tensor],
    choose: Callable[[LayerFit], Fitted],
    *,
    sequential: bool,
    on_step: Callable[[int, int], None],
) -> dict[str, Fitted]:
    """Fit layers one after the other, on the inputs that they meet.

    Args:
        model: with nothing applied.
        groups: its layers, in the order in which they are met.
        texts: token ids, each of shape (1, length).
        choose: fits one layer.
        sequential: whether layers meet what those before give once they are sparse; or what they gave before.
        on_step: told of the groups that are done and of all.

    Returns:
        Name of each layer → what was fitted.
    """
    fitted: dict[str, Fitted] = {}
    with ExitStack() as applied:
        for number, group in enumerate(groups):
            inputs = inputs_of(model, group, texts)
            for name, module in zip(group.names, group.modules, strict=True):
                fitted[name] = choose(LayerFit(name, module.weight, inputs))
            if sequential:
                applied.enter_context(uncounted_group(group, fitted).applied())
            on_step(number + 1, len(groups))
    return fitted


def fit_work(groups: Sequence[Group], texts: Sequence[torch.Tensor]) -> float:
    """How much `fit_in_order` has to do, about, in tokens that go through a model, half of it to each layer."""
    tokens: int = sum(text.shape[1] for text in texts)
    return len(groups) * tokens / 2


def weights_of_blocks(model: Any) -> int:
    """Of the seven linear layers of all blocks, whether a method applies to them or not."""
    return sum(int(module.weight.numel()) for group in find_groups(model) for module in group.modules)


def _meet_one_token(model: Any) -> None:
    """Let sparse layers try their kernels on what a token brings, so that no answer has to wait for that."""
    if model.device.type != "cpu":
        return  # graphs are captured in the warm-up, and kernels tried there
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def _hash(texts: Sequence[torch.Tensor]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text.cpu().to(torch.int64).numpy().tobytes() + b"|")
    return found.hexdigest()


def _name(model: Any) -> str:
    """The model's name on the hub, or of the folder that it was read from; its class for one that was made here."""
    named = getattr(model.config, "_name_or_path", "") or ""
    return (Path(named).name if Path(named).is_dir() else named) or type(model).__name__
