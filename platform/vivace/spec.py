"""The run spec: what `vivace run` and `submit-model` ask for, validated, with the flags' names as keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from vivace.errors import UsageError
from vivace.models.prices import parse_price


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse what YAML knows and JSON does not (dates, infinities): it could neither be sent nor stored."""
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError("it holds a value that JSON cannot") from error
    return arguments


def _price(text: str | None) -> str | None:
    parse_price(text)
    return text


RECORDED = "recorded:"
"""Before a run's id, as both the data and the model of a spec: nothing is asked for but another judging."""


def is_rejudging(model: str) -> bool:
    """Whether a spec's model is a recorded run, whose replies are to be judged again."""
    return model.startswith(RECORDED)


class RunSpec(BaseModel):
    """A request for one run. Keys in a file are the flags' names (`judge-prompt`, `api-base`, …)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_flag, populate_by_name=True, protected_namespaces=()
    )

    track: str
    data: str = Field(min_length=1)
    """`demo`, a file or folder, or `hub-id@revision`."""
    model: str = Field(min_length=1)
    judge: str = Field(default="litellm:openai/o4-mini", min_length=1)
    judge_prompt: str | None = None
    api_base: str | None = None
    judge_api_base: str | None = None
    model_arg: Annotated[dict[str, Any], AfterValidator(_plain)] = {}
    judge_arg: Annotated[dict[str, Any], AfterValidator(_plain)] = {}
    card: str | None = None
    """A YAML file that describes the model: name, organisation, size, open_weights, licence, description."""
    audio: Literal["16k", "original", "transcript"] = "16k"
    output: Literal["text", "audio"] | None = None
    """What the model answers with; None is the adapter's own way (text, and speech over the realtime API)."""
    voice: str | None = Field(default=None, min_length=1)
    """The provider's name of the voice that speaks the answer."""
    transcriber: str | None = Field(default=None, min_length=1)
    """What writes down spoken answers, `adapter:name`; None is the API's own transcript."""
    hear: bool = True
    """Whether an audio run begins with the hearing check."""
    digits: str | None = Field(default=None, min_length=1)
    """A folder of spoken digits for the hearing check, in place of the voiced ones."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Replies generated to each conversation."""
    votes: int = Field(default=1, ge=1, le=99)
    """Times that each judge is asked about each criterion; the majority decides."""
    items: list[str] | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=8, ge=1, le=512)
    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds for one try of one call."""
    retries: int = Field(default=3, ge=0, le=100)
    requests_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """At most so many calls to the model in a minute."""
    tokens_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    judge_requests_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    judge_tokens_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    price: Annotated[str | None, AfterValidator(_price)] = None
    """What the model's tokens cost, `IN,OUT` in US dollars a million, in place of litellm's price list."""
    judge_price: Annotated[str | None, AfterValidator(_price)] = None
    max_cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """US dollars that the run's calls may cost in all; reaching it stops the run, to be resumed."""
    max_errors: int | None = Field(default=None, ge=1)
    """Failed calls (after all tries) that stop this execution, to be resumed."""
    cache: bool = False
    """Whether answers given earlier to the same request are taken from the response cache."""

    def as_json(self) -> dict[str, Any]:
        """The spec as it is stored and read back."""
        return self.model_dump(mode="json", by_alias=True)

    def with_absolute_paths(self) -> RunSpec:
        """The same request, readable from any folder: a worker runs elsewhere than the one who submits."""
        changes: dict[str, Any] = {}
        if Path(self.data).exists():
            changes["data"] = str(Path(self.data).absolute())
        adapter, _, name = self.model.partition(":")
        if name and (adapter == "replay" or (adapter == "local" and Path(name).exists())):
            changes["model"] = f"{adapter}:{Path(name).absolute()}"
        for key in ("judge_prompt", "card", "digits"):
            value = getattr(self, key)
            if value is not None:
                changes[key] = str(Path(value).absolute())
        return self.model_copy(update=changes)


def parse_spec(values: dict[str, Any], source: str = "the command line") -> RunSpec:
    """A validated spec.

    Raises:
        UsageError: an unknown key, a missing one, or a value of the wrong kind; the first fault is named.
    """
    normal = {str(key).replace("_", "-"): value for key, value in values.items()}
    if isinstance(normal.get("items"), str):
        normal["items"] = [item.strip() for item in normal["items"].split(",") if item.strip()]
    try:
        return RunSpec.model_validate(normal)
    except ValidationError as error:
        raise UsageError(_first_fault(error, source)) from error


def _first_fault(error: ValidationError, source: str) -> str:
    fault = error.errors()[0]
    key = _flag(".".join(str(part) for part in fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_flag(name) for name in RunSpec.model_fields)
        return f"Unknown key '{key}' in {source}; the keys are {known}."
    if fault["type"] == "missing":
        return f"'{key}' is missing in {source}."
    return f"'{key}' in {source} cannot be {repr(fault['input'])[:200]}: {fault['msg']}."


def read_spec_file(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML (or JSON) spec file, not yet validated.

    Raises:
        UsageError: it cannot be read, or is not a mapping.
    """
    values = read_yaml(path, "spec")
    if not isinstance(values, dict):
        raise UsageError(f"The spec '{path}' must hold keys and values, for instance 'track: …'.")
    return values


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises:
        UsageError: it is missing, unreadable, empty or not YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The {what} '{path}' cannot be read ({reason}).") from error
    except yaml.YAMLError as error:
        raise UsageError(f"The {what} '{path}' is not YAML ({' '.join(str(error).split())}).") from error
    if content is None:
        raise UsageError(f"The {what} '{path}' is empty.")
    return content


def assign(values: dict[str, Any], assignment: str) -> None:
    """Lay `a.b=c` over a spec's values; the value is read as YAML.

    Raises:
        UsageError: it is not of that form.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {assignment} is not of the form key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {assignment}: the value is not YAML.") from error
    place = values
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {assignment}: '{key}' has no keys of its own.")
    place[keys[-1]] = value
