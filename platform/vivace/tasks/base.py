"""What a task is: samples with their references, and the metric that an answer is scored by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Span:
    """A stretch of a prompt: characters from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        id: unique inside the task, and the same wherever the same sample is made or read again.
        prompt: the text that is put to the model.
        references: answers, of which any is right; empty where only speed and agreement are measured.
        evidence: the parts of the prompt that hold what the answer needs; empty where that is not known.
        choices: of a multiple-choice question, in their order; empty elsewhere.
        slice: what kind of sample it is inside its task (`subtraction`, `two hops`); empty where all are of one kind.
        plain: whether it is a text to be gone on with, which is put as it stands also to models that have a chat
            template.
        cuttable: whether its middle may be left out for a model that does not hold all of it.
        begun: how the answer begins, which is put behind the prompt and its chat template; the model goes on from
            there.
    """

    id: str
    prompt: str
    references: tuple[str, ...]
    evidence: tuple[Span, ...] = ()
    choices: tuple[str, ...] = ()
    slice: str = ""
    plain: bool = False
    cuttable: bool = False
    begun: str = ""


CountTokens = Callable[[Sample], int]
"""How many tokens a sample's prompt takes as it is put to a model, with the beginning of its answer."""


@dataclass(frozen=True)
class Task(ABC):
    """Samples and how their answers are scored; its settings are the dataclass's fields.

    A subclass's docstring says what is asked, names the source, and explains each setting.
    """

    name: ClassVar[str]
    """As `--tasks` writes it."""
    metric: ClassVar[str]
    """The metric of `vivace.tasks.scores.metrics` that decides; empty where answers are not scored."""
    most_tokens: ClassVar[int]
    """The longest answer that is let through, in tokens."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    @abstractmethod
    def revision(self) -> str:
        """What makes the samples: a generator's version, a hub commit, or the SHA-256 of the files."""

    def fitted(self, sample: Sample, tokens: CountTokens) -> Sample:
        """The sample as this task asks it of a model with a tokenizer; most tasks ask every model the same.

        Args:
            sample: one of this task's.
            tokens: counts them as the model does.

        Raises:
            UsageError: it cannot be asked in as few tokens as the task's settings say.
        """
        return sample

    @abstractmethod
    def samples(self, count: int | None, seed: int) -> list[Sample]:
        """Samples in a fixed order.

        Args:
            count: how many; None for all that there are. A generator has no end, and takes a number.
            seed: chooses which; the same seed gives the same samples, and more of them begin with the fewer.

        Raises:
            UsageError: the data are missing or damaged, or there are fewer.
        """
