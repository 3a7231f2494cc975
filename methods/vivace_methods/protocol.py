"""What an inference method is: settings that can be read without torch, and what it puts on a model.

A method attaches hooks to a model, a reader of prompts, a decoder, or several of these. `decoding.loop` joins them
and generates; what attaches hooks alone works under any other loop too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.cache_needs import NOTHING, CacheKind, CacheNeed, Compile
from vivace_methods.errors import MethodError
from vivace_methods.requests import GREEDY, Embedded, Request, Sampling
from vivace_methods.spelling import Part, write

if TYPE_CHECKING:
    import torch

    from vivace_methods.decoding.generation import Generation
    from vivace_methods.diagnosis import Diagnosis, Evidence
    from vivace_methods.models.ledger import Ledger, Pass
    from vivace_methods.models.passes import Passes

__all__ = [
    "GREEDY",
    "Attached",
    "CacheKind",
    "CacheNeed",
    "Compile",
    "Decoder",
    "Embedded",
    "Emit",
    "ExpertsImplementation",
    "Generator",
    "Method",
    "MethodError",
    "Need",
    "Read",
    "Reader",
    "Request",
    "Role",
    "Sampling",
    "Trace",
]

ExpertsImplementation = Literal["auto", "eager", "grouped_mm", "batched_mm", "vivace"]

Emit = Callable[[Sequence[int]], None]
"""Called with the tokens of each step as soon as they are known. Whoever times a generation stamps these calls:
a method never reports times of its own."""


class Trace:
    """What one generation did, besides its tokens and times; worked out when it is asked for, which is on no clock.

    Args:
        figures: gives what the family wants to show of it, from the passes: acceptance lengths, realised sparsity.
        ledger: of this generation alone.
    """

    def __init__(
        self, figures: Callable[[Sequence[Pass]], dict[str, Any]] = lambda passes: {}, ledger: Ledger | None = None
    ) -> None:
        self._figures, self._ledger = figures, ledger

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The forward passes, in order; none where the architecture is not known."""
        return () if self._ledger is None else self._ledger.passes

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What the family wants to show of the generation."""
        return self._figures(self.passes)


class Generator(ABC):
    """A model that answers: with methods on it, or one that generates in a way of its own."""

    @abstractmethod
    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt, and hand on each step's tokens as soon as they are known.

        Nothing of one request may be kept for the next: a prompt seen before takes as long as a new one.
        """

    def logits(self, request: Request, answer: Sequence[int]) -> torch.Tensor | None:
        """What is thought at each token of a given answer, with prompt and answer read as `generate` would read them.

        It is asked for on no clock, for perplexity and for the divergence from the baseline.

        Args:
            request: the prompt.
            answer: token ids, at least one.

        Returns:
            Logits from which each token of the answer would have been chosen, shape (tokens, vocabulary); None where
            that is not known.
        """
        return None


@dataclass(frozen=True)
class Read:
    """What is known once a prompt was read.

    Attributes:
        logits: of the token that follows it, shape (1, vocabulary).
        ids: of the positions whose features are given, shape (1, positions).
        features: layer → its input at these positions, shape (1, positions, hidden), of the layers that the decoder
            asked for.
        kept: positions of the prompt in each layer's cache, where they are not all.
    """

    logits: torch.Tensor
    ids: torch.Tensor
    features: Mapping[int, torch.Tensor] = field(default_factory=dict)
    kept: tuple[int, ...] | None = None


class Reader(ABC):
    """Reads a request's prompt into the cache."""

    needs: frozenset[CacheNeed] = NOTHING

    @abstractmethod
    def read(self, run: Generation) -> Read:
        """Read the prompt of `run.request` through `run.forward`."""


class Decoder(ABC):
    """Goes on from a prompt that was read, a step at a time."""

    needs: frozenset[CacheNeed] = NOTHING
    features: tuple[int, ...] = ()
    """Layers whose inputs it wants of every pass of the model."""

    @abstractmethod
    def steps(self, run: Generation, read: Read, first: torch.Tensor) -> Iterator[list[int]]:
        """The tokens of each step after the first token; at least one, for ever.

        Whoever asks stops asking where the answer ends, and then closes the iterator.

        Args:
            run: the generation under way.
            read: what the reader said.
            first: the first token, shape (1, 1), which is emitted already.
        """

    def figures(self, given: Sequence[int]) -> dict[str, Any]:
        """What to show of the latest generation.

        Args:
            given: tokens of each step that were emitted, the first token not among them.
        """
        return {}


@dataclass
class Attached:
    """What a method has put on a model while its context lasts.

    Attributes:
        passes: what the model's passes are for, and the ledger in which they are recorded.
        reader: of prompts; None leaves it to another method, or reads them whole.
        decoder: None leaves it to another method.
        usual_decoder: decodes where no method brings a decoder, with the kernels that suit what is attached; None for
            one token a pass.
        prepare: called with the model by the loop before the first generation, for kernels that are tried out on a
            token; under other loops the first tokens try them.
        generator: generates in a way of its own, in place of reader, decoder and loop; for foreign engines.
        figures: gives what to show of a generation, from its passes.
    """

    passes: Passes
    reader: Reader | None = None
    decoder: Decoder | None = None
    usual_decoder: Decoder | None = None
    prepare: Callable[[Any], None] = field(default=lambda model: None)
    generator: Generator | None = None
    figures: Callable[[Sequence[Pass]], dict[str, Any]] = field(default=lambda passes: {})

    @property
    def ledger(self) -> Ledger:
        """Every pass of the model since it was cleared, whoever called the model."""
        return self.passes.ledger


class Need(StrEnum):
    """What a method cannot do without."""

    DRAFTER = "drafter"
    RECIPE = "recipe"


class Role(StrEnum):
    """What a method takes over; an arm of several methods has each role once at most."""

    READER = "reads prompts"
    DECODER = "decodes"
    LAYERS = "replaces linear layers"


@dataclass(frozen=True)
class Method(ABC):
    """An inference method with its settings, which are the dataclass's fields.

    A subclass's docstring says what it is, names the paper, and explains each setting.
    """

    name: ClassVar[str]
    """As `--arms` and the leaderboard write it."""
    family: ClassVar[str]
    """One of `families.FAMILIES`, whose track measures it."""
    paper: ClassVar[str]
    """Title and arXiv number, or where else it comes from."""
    roles: ClassVar[frozenset[Role]] = frozenset()
    exact: ClassVar[bool] = False
    """Whether a model writes the same tokens with it as without it, but for roundings."""
    needs: ClassVar[tuple[Need, ...]] = ()
    fitted_files: ClassVar[tuple[str, ...]] = ("**/*",)
    """Patterns of the files that `read_fitted` reads: what is in them makes two arms the same, wherever they lie."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, as the leaderboard shows them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def label(self) -> str:
        """The name with the settings that are not at their defaults: `r-sparse(sparsity=0.5)`."""
        return self.label_showing(())

    def label_showing(self, settings: Collection[str]) -> str:
        """The label with these settings in it also where they are at their defaults.

        Args:
            settings: names; those that the method lacks count for nothing.
        """
        return write([self.part_showing(settings)])

    def part_showing(self, settings: Collection[str]) -> Part:
        """What the label of `label_showing` is written from."""
        told = {
            each.name: str(getattr(self, each.name))
            for each in fields(self)
            if each.name in settings or getattr(self, each.name) != each.default
        }
        return Part(self.name, told)

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """What the reader or the decoder that it attaches asks of the cache, so that an arm whose methods cannot go
        together is refused before anything is loaded.
        """
        return NOTHING

    def fit(self, model: torch.nn.Module, calibration: Sequence[torch.Tensor]) -> Any:
        """What the method learns of a model beforehand (thresholds, factors); None where there is nothing.

        Args:
            model: a causal language model of transformers.
            calibration: token ids, each of shape (1, length).
        """
        return None

    def read_fitted(self, folder: Path, model: torch.nn.Module) -> Any:
        """What was fitted earlier for this model: a drafter, a recipe.

        Raises:
            MethodError: it is not there, is damaged, or belongs to another model; or the method takes nothing fitted.
        """
        raise MethodError(f"{self.name} takes nothing fitted, and was given {folder}.")

    def check_fitted(  # noqa: B027 (most methods see nothing without the model)
        self, folder: Path, configuration: Any = None
    ) -> None:
        """See, before a model is loaded, that what was fitted is there and fits these settings, as far as that goes.

        Args:
            folder: of what was fitted.
            configuration: of the model that it is for; None where that is not known.

        Raises:
            MethodError: it is not, or does not.
        """

    def positions(self, folder: Path) -> int | None:
        """The most tokens of a prompt and its answer that what was fitted holds; None for as many as the model does.

        Args:
            folder: of what was fitted.
        """
        return None

    def knows(self, architecture: str) -> bool:
        """Whether `check_model` has nothing to refuse in models of an architecture, so that it need not be asked.

        Args:
            architecture: the `model_type` of transformers.
        """
        return type(self).check_model is Method.check_model

    def check_model(self, configuration: Any) -> None:  # noqa: B027 (most methods see nothing without the model)
        """See, before a run is recorded, that the method fits a model, as far as its configuration tells.

        Args:
            configuration: of the model.

        Raises:
            MethodError: it does not.
        """

    def check_device(self, device: str) -> None:  # noqa: B027 (most methods run wherever the model does)
        """See, before a run is recorded, that a kind of device can do what the settings ask.

        Args:
            device: `cpu` or `cuda`.

        Raises:
            MethodError: it cannot.
        """

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """About how many bytes an answer takes, beside the model's weights and what was fitted.

        A method that keeps more, or less, than plain greedy decoding says here how much.

        Args:
            configuration: of the model.
            dtype: of weights and cache.
            prompt: tokens of the prompt.
            answer: tokens of the answer.

        Raises:
            MethodError: an architecture whose shapes are not known.
        """
        from vivace_methods.models.cost import greedy_memory

        return greedy_memory(configuration, prompt, answer, dtype)

    def diagnose(
        self, model: torch.nn.Module, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterable[Diagnosis]:
        """What the method did in each layer during one generation; nothing, where it has nothing to show.

        It is asked for on no clock, after each timed generation, so it may run the model, but not for long.

        Args:
            model: with nothing attached.
            request: that was answered.
            evidence: what was seen of the generation.
            answer: its token ids.
        """
        return ()

    def diagnose_drafts(
        self, model: torch.nn.Module, request: Request, drafts: Mapping[str, tuple[Method, Callable[[], Any]]]
    ) -> Iterable[Diagnosis]:
        """How methods that have a model of their own compare with this one; nothing, where they are not compared.

        Asked for where `diagnose` is, after it.

        Args:
            model: with nothing attached.
            request: that was answered.
            drafts: name of an arm beside this one → its method, and what reads the model that this was given.
        """
        return ()

    @abstractmethod
    def attach(self, model: torch.nn.Module, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Put the method on a model while the context lasts, and then restore the model exactly.

        Nothing runs yet. What it gives holds the `Passes` of `models.passing.passes_of(model)`.

        Args:
            model: a model of transformers with a text decoder, in evaluation mode.
            fitted: what `fit` or `read_fitted` gave for this model; a drafter, for a method that needs one.

        Raises:
            MethodError: the method does not fit the model, or lacks what it needs.
        """
