"""What an inference method is: one file with its settings, what it does to a model, and how it then generates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from vivace_methods.spelling import Part, write

if TYPE_CHECKING:
    from vivace_methods.models.cost import Cost

Family = Literal["speculation", "prefill", "sparsity"]

Emit = Callable[[Sequence[int]], None]
"""Called with the tokens of each step as soon as they are known. Whoever times a generation stamps these calls:
a method never reports times of its own."""


class MethodError(ValueError):
    """A method cannot do what it is asked: wrong settings, a model it does not fit, a missing drafter."""


@dataclass(frozen=True)
class Request:
    """One prompt and how far to answer it, always greedily.

    Attributes:
        prompt: token ids, shape (1, prompt length), on the model's device.
        most_tokens: the most tokens to generate; all of them where `end_tokens` is empty.
        end_tokens: ids after which to stop; the last token of the answer is one of them.
    """

    prompt: torch.Tensor
    most_tokens: int
    end_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Trace:
    """What one generation did, besides its tokens and times.

    Attributes:
        figures: what the family wants to show of it: acceptance lengths, kept tokens, realised sparsity.
    """

    figures: dict[str, Any]


class Generator(ABC):
    """A model with a method applied to it."""

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
            the method does not tell. A method that gives the model's own tokens need not.
        """
        return None


@dataclass(frozen=True)
class Method(ABC):
    """An inference method with its settings, which are the dataclass's fields.

    A subclass's docstring says what it is, names the paper, and explains each setting.
    """

    name: ClassVar[str]
    """As `--arms` and the leaderboard write it."""
    family: ClassVar[Family]
    paper: ClassVar[str]
    """Title and arXiv number, or where else it comes from."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What it cannot do without: a `drafter`, or a `recipe` fitted to the model."""
    fitted_files: ClassVar[tuple[str, ...]] = ("**/*",)
    """Patterns of the files that `read_fitted` reads: what is in them makes two arms the same, wherever they lie."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, as the leaderboard shows them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
            field.name: str(getattr(self, field.name))
            for field in fields(self)
            if field.name in settings or getattr(self, field.name) != field.default
        }
        return Part(self.name, told)

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

    def cost(
        self,
        configuration: Any,
        dtype: torch.dtype,
        prompt: int,
        step_tokens: Sequence[int],
        figures: Mapping[str, Any],
    ) -> Cost:
        """The least that one generation moved and computed, from which its floor follows.

        A method that moves less, or more, than plain greedy decoding says here how much.

        Args:
            configuration: of the model.
            dtype: of weights and cache.
            prompt: tokens of the prompt.
            step_tokens: tokens of each step that was emitted.
            figures: of the generation's trace.

        Raises:
            MethodError: an architecture whose costs are not known.
        """
        from vivace_methods.models.cost import greedy_cost  # it knows this module's errors

        return greedy_cost(configuration, prompt, sum(step_tokens), dtype)

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
        from vivace_methods.models.cost import greedy_memory  # it knows this module's errors

        return greedy_memory(configuration, prompt, answer, dtype)

    @abstractmethod
    def apply(self, model: torch.nn.Module, fitted: Any = None) -> AbstractContextManager[Generator]:
        """Apply the method to a model while the context lasts, and then restore the model exactly.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            fitted: what `fit` or `read_fitted` gave for this model; a drafter, for a method that needs one.

        Raises:
            MethodError: the method does not fit the model, or lacks what it needs.
        """
