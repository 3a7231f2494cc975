"""What the platform and the process that measures say to each other: one message a line, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from vivace.tracks.efficiency.prompts import PlannedPrompt
from vivace_methods.diagnosis import Diagnosis


@dataclass(frozen=True)
class MeasuringJob:
    """What is to be measured: the only message to the process.

    Attributes:
        folder: with the model's weights; None for a random model.
        random: whose shapes a random model takes: a public model, or an architecture for a tiny one.
        layers: of a random model; None for all.
        family: of the methods, which is the track's name.
        arms: as they are written, under the names that trials bear.
        baseline: the name of the arm that the others are compared with; None for the fastest that is found.
        prompts: in the order in which they are asked.
        repeats: times that every arm answers every prompt.
        device: `cpu` or `cuda`.
        dtype: of the weights.
        threads: of the processor.
        seed: of random weights.
        zoo: where models of the zoo lie that were built on this machine.
        name: of the model, as recipes say it.
        tasks: of the run, as they are written; arms are fitted on the generated ones unless there is a calibration.
        calibration: what arms are fitted on that name no recipe.
        recipes: where recipes are kept.
        done: arm, prompt and repetition of trials that are recorded.
    """

    folder: str | None
    random: str | None
    layers: int | None
    family: str
    arms: dict[str, str]
    baseline: str | None
    prompts: tuple[PlannedPrompt, ...]
    repeats: int
    device: str
    dtype: str
    threads: int
    seed: int
    zoo: str
    name: str
    tasks: tuple[str, ...]
    calibration: str | None
    recipes: str
    done: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class ProcessFault:
    """The process ends, and this is why."""

    message: str
    is_expected: bool
    """Whether the request is at fault, and not the program."""
    kind: Literal["fault"] = "fault"


@dataclass(frozen=True)
class Remark:
    """Something that whoever reads the results should know."""

    sentence: str
    kind: Literal["said"] = "said"


@dataclass(frozen=True)
class StepsDone:
    """How far something is that takes long beside the trials: the fitting of an arm, or the audits."""

    what: str
    done: int
    steps: int
    kind: Literal["steps"] = "steps"


@dataclass(frozen=True)
class FittedRecipe:
    """The recipe of an arm, and the folder where it lies."""

    arm: str
    folder: str
    recipe: dict[str, Any]
    """What it was calibrated on."""
    diagnoses: tuple[Diagnosis, ...] = ()
    """What it says of each layer."""
    kind: Literal["recipe"] = "recipe"


@dataclass(frozen=True)
class ChosenBaseline:
    """The arm that was found to be the fastest."""

    arm: str
    sentence: str
    kind: Literal["baseline"] = "baseline"


@dataclass(frozen=True)
class ProbedFloor:
    """What the device did at its best so far, and which kernels of transformers the model has."""

    floor: dict[str, Any]
    kernels: dict[str, str]
    kind: Literal["floor"] = "floor"


@dataclass(frozen=True)
class LongestPrompt:
    """The prompt that with its answer takes the most memory."""

    prompt: tuple[int, ...]
    """Token ids."""
    most_tokens: int
    end_tokens: tuple[int, ...]
    kind: Literal["longest"] = "longest"


@dataclass(frozen=True)
class ScoredAnswer:
    """What an arm answered, as text, and how good that is, from 0 to 1; None where it is not scored."""

    answer: str
    quality: float | None
    slice: str = ""
    """Of the sample."""


@dataclass(frozen=True)
class Moved:
    """What a trial had to read and to compute at the least, beside a plain reading of its whole prompt."""

    prompt_tokens: int
    bytes: int | float
    flops: int | float
    full_prefill_bytes: int | float
    full_prefill_flops: int | float


@dataclass(frozen=True)
class TimedTrial:
    """One trial that has ended."""

    trial: dict[str, Any]
    """In the form of `Trial.as_json`."""
    answer: ScoredAnswer | None = None
    """None where the trial failed, or the model has no tokenizer."""
    moved: Moved | None = None
    """None where the trial failed, or the architecture's costs are not known."""
    diagnoses: tuple[Diagnosis, ...] = ()
    """What the arm did in each layer."""
    kind: Literal["trial"] = "trial"

    def measurements(self) -> dict[str, Any]:
        """All of it as the store keeps it."""
        parts = (part for part in (self.answer, self.moved) if part is not None)
        diagnosed = {"diagnoses": [list(vars(row).values()) for row in self.diagnoses]} if self.diagnoses else {}
        told = {name: value for part in parts for name, value in vars(part).items()}
        return {"trial": self.trial, **told, **diagnosed}


@dataclass(frozen=True)
class Predictions:
    """How an arm's predictions along the baseline's answer to a prompt compare, summed over tokens, in nats."""

    arm: str
    prompt: str
    compared: dict[str, Any]
    """`kl` over `kl_tokens`: from the baseline's predictions; `nats` over `nats_tokens`: of the reference."""
    kind: Literal["predictions"] = "predictions"


@dataclass(frozen=True)
class Audited:
    """The end: what the audits of the session found."""

    session: str
    findings: list[dict[str, Any]]
    kind: Literal["audited"] = "audited"


Told = (
    ProcessFault
    | Remark
    | StepsDone
    | FittedRecipe
    | ChosenBaseline
    | ProbedFloor
    | LongestPrompt
    | TimedTrial
    | Predictions
    | Audited
)
"""Whatever the process that measures says."""


def as_line(message: MeasuringJob | Told) -> str:
    """A message as one line, with its end."""
    return json.dumps(asdict(message)) + "\n"


def read_job(line: str) -> MeasuringJob:
    """The job in a line."""
    return TypeAdapter(MeasuringJob).validate_json(line)


def read_told(line: bytes) -> Told:
    """What the process that measures said in a line."""
    return _told().validate_json(line)


@cache
def _told() -> TypeAdapter[Told]:
    return TypeAdapter(Annotated[Told, Field(discriminator="kind")])
