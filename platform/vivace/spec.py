"""The run spec: what `vivace run` and `submit-model` ask for, validated, with the flags' names as keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vivace.errors import UsageError
from vivace.files.paths import with_homes
from vivace.files.text import parse_yaml, read_yaml, whole
from vivace.machine.offers import parse_need
from vivace.model_origins import ORIGINS
from vivace.models.client.providers.prices import parse_price
from vivace.named_paths import (
    ChangedPath,
    absolute_path,
    changed_fitted,
    changed_target,
    changed_task,
    changed_transcriber,
)
from vivace.output.secrets import is_named_like_secret, without_keys
from vivace_methods.families import FAMILIES
from vivace_methods.spelling import parse_sweep, split_list
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.json_text import parse_json


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse what YAML knows and JSON does not (dates, infinities, halves): it could neither be sent nor stored."""
    try:
        text = json.dumps(arguments, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError("it holds a value that JSON cannot") from error
    whole(text)
    return arguments


def split_lists(value: Any) -> Any:
    """What stands on one line as a list: cut at the commas outside of brackets and quotation marks."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return value
    return [part for text in value for part in (split_list(text) if isinstance(text, str) else [text])]


def _swept(value: Any) -> Any:
    """A sweep from its lines, `budget=8,16,32`, or as a mapping."""
    if not isinstance(value, list):
        return (
            {key: each if isinstance(each, list) else [each] for key, each in value.items()}
            if isinstance(value, dict)
            else value
        )
    swept: dict[str, list[Any]] = {}
    for text in value:
        setting, values = parse_sweep(str(text))
        swept.setdefault(setting, []).extend(values)
    return swept


def _homes(value: Any) -> Any:
    """A path, a target or a list of such, with home folders written out."""
    if isinstance(value, list):
        return [_homes(each) for each in value]
    return with_homes(value) if isinstance(value, str) else value


def _needs(needs: list[str]) -> list[str]:
    return [str(parse_need(need)) for need in needs]


def _price(text: str | None) -> str | None:
    parse_price(text)
    return text


@dataclass(frozen=True)
class Flag:
    """How a key of a spec is given on the command line, `--key`; `vivace run` makes its options from these.

    Attributes:
        help: what it is, for a person.
        default: what is shown where the field's default stands for something else; empty for the default itself.
        kind: what is written there, where that is not the field's type.
        is_pairs: whether it is given as `name=value`, once for each name, beside the names that a file gives.
    """

    help: str
    default: str = ""
    kind: type | None = None
    is_pairs: bool = False


RECORDED = "recorded:"
"""Before a run's id, as both the data and the model of a spec: nothing is asked for but another judging."""


def is_rejudging(model: str) -> bool:
    """Whether a spec's model is a recorded run, whose replies are to be judged again."""
    return model.startswith(RECORDED)


@dataclass(frozen=True)
class ExecutionSettings:
    """How a run is executed, which makes no difference to its result."""

    concurrency: int = 1
    """Calls at a time."""
    max_cost: float | None = None
    """US dollars that the run's calls may cost in all."""
    max_errors: int | None = None
    """Failed calls that stop an execution."""
    cache: bool = False
    """Whether answers given earlier may be taken."""


class RunSpec(BaseModel):
    """A request for one run. Keys in a file are the flags' names (`judge-prompt`, `api-base`, …)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_flag, populate_by_name=True, protected_namespaces=()
    )

    track: str
    model: Annotated[str, AfterValidator(_homes), Flag("The system under test, adapter:name.")] = Field(min_length=1)
    card: Annotated[str | None, AfterValidator(_homes), Flag("A YAML file that describes the model.", kind=Path)] = (
        None
    )
    """Its keys are those of `CARD_KEYS`."""
    private: Annotated[bool, Flag("Keep the run from all but its owner and the operator.")] = False
    needs: Annotated[
        list[str],
        BeforeValidator(split_lists),
        AfterValidator(_needs),
        Flag("What a worker must have: gpu, gpu=NAME, gpu-memory=GB, memory=GB, or a WORD it offers. Repeatable."),
    ] = []

    @property
    def execution(self) -> ExecutionSettings:
        """How it is to be executed."""
        return ExecutionSettings()

    @property
    def needed(self) -> list[str]:
        """What a worker must have: the needs that are written, and a GPU where the model is to run on one."""
        asks = str(self._device or "").startswith("cuda")
        has_said = any(parse_need(need).name in ("gpu", "gpu-memory") for need in self.needs)
        return [*self.needs, *(["gpu"] if asks and not has_said else [])]

    @property
    def _device(self) -> Any:
        """Where the model is to run, if that is said."""
        return None

    def as_json(self) -> dict[str, Any]:
        """The spec as it is stored and read back."""
        return self.model_dump(mode="json", by_alias=True)

    def with_absolute_paths(self) -> Self:
        """The same request, readable from any folder: a worker runs elsewhere than the one who submits."""
        return self.with_paths(lambda _key, path: absolute_path(path))

    def with_paths(self, changed: ChangedPath) -> Self:
        """The same request with every path in it changed.

        Args:
            changed: what stands for a path, by the key it stands under; what may be a name is asked for, too.
        """
        return self.model_copy(update=self._changed(changed))

    def _changed(self, changed: ChangedPath) -> dict[str, Any]:
        return {} if self.card is None else {"card": changed("card", self.card)}


class DialogueSpec(RunSpec):
    """A request to take a system through conversations."""

    data: Annotated[str, AfterValidator(_homes), Flag("demo, a file or folder, or hub-id@revision.")] = Field(
        min_length=1
    )
    judge: Annotated[str, Flag("adapter:name, or checks.")] = Field(default="litellm:openai/o4-mini", min_length=1)
    judge_prompt: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag("A prompt file in place of the dataset's own or Vivace's.", kind=Path),
    ] = None
    api_base: Annotated[str | None, Flag("Address of an OpenAI-compatible server.")] = None
    judge_api_base: Annotated[str | None, Flag("Address of the judge's OpenAI-compatible server.")] = None
    model_arg: Annotated[
        dict[str, Any], AfterValidator(_plain), Flag("A generation parameter, k=v. Repeatable.", is_pairs=True)
    ] = {}
    judge_arg: Annotated[
        dict[str, Any], AfterValidator(_plain), Flag("A parameter of the judge, k=v. Repeatable.", is_pairs=True)
    ] = {}
    method: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag("What a local: model answers with: claa(keep=0.2), or name(setting=value):RECIPE.", default="plainly"),
    ] = Field(default=None, min_length=1)
    audio: Annotated[Literal["16k", "original", "transcript"], Flag("What is sent of a user turn.")] = "16k"
    output: Annotated[
        Literal["text", "audio"] | None, Flag("What the model answers with.", default="the adapter's own way")
    ] = None
    """The adapter's own way is text, and speech over the realtime API."""
    voice: Annotated[str | None, Flag("The voice that speaks the answers, by its provider's name.")] = Field(
        default=None, min_length=1
    )
    transcriber: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag("Writes down spoken answers, adapter:name.", default="the API's own transcript"),
    ] = Field(default=None, min_length=1)
    ear: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag("What hears for a cascade: model, a transcriber, adapter:name.", default="none"),
    ] = Field(default=None, min_length=1)
    hear: Annotated[bool, Flag("Check first that audio is heard.")] = True
    digits: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag("Spoken digits for that check: a folder of DIGIT_SPEAKER_N.wav.", default="voiced ones", kind=Path),
    ] = Field(default=None, min_length=1)
    repeats: Annotated[int, Flag("Replies to each conversation.")] = Field(default=1, ge=1, le=100)
    votes: Annotated[int, Flag("Verdicts of each judge on each criterion; the majority decides.")] = Field(
        default=1, ge=1, le=99
    )
    items: Annotated[list[str] | None, Flag("Conversations by id: ID,ID,…", kind=str)] = Field(
        default=None, min_length=1
    )
    limit: Annotated[int | None, Flag("Only the first N conversations.")] = Field(default=None, ge=1)
    concurrency: Annotated[int, Flag("Calls at a time.")] = Field(default=8, ge=1, le=512)
    timeout: Annotated[float, Flag("Seconds for one try of a call.")] = Field(
        default=120.0, gt=0, allow_inf_nan=False
    )
    retries: Annotated[int, Flag("Further tries of a failed call.")] = Field(default=3, ge=0, le=100)
    requests_per_minute: Annotated[float | None, Flag("At most so many calls to the model.")] = Field(
        default=None, gt=0, allow_inf_nan=False
    )
    tokens_per_minute: Annotated[float | None, Flag("At most so many tokens to and from the model.")] = Field(
        default=None, gt=0, allow_inf_nan=False
    )
    judge_requests_per_minute: Annotated[float | None, Flag("At most so many calls to the judge.")] = Field(
        default=None, gt=0, allow_inf_nan=False
    )
    judge_tokens_per_minute: Annotated[float | None, Flag("At most so many tokens to and from the judge.")] = Field(
        default=None, gt=0, allow_inf_nan=False
    )
    price: Annotated[
        str | None,
        AfterValidator(_price),
        Flag("US dollars for a million of the model's tokens, IN,OUT.", default="litellm's list"),
    ] = None
    judge_price: Annotated[
        str | None, AfterValidator(_price), Flag("The same for the judge's tokens.", default="litellm's list")
    ] = None
    max_cost: Annotated[
        float | None,
        Flag("Stop, to be resumed, at so many US dollars in all; calls in flight still count."),
    ] = Field(default=None, ge=0, allow_inf_nan=False)
    max_errors: Annotated[
        int | None,
        Flag("Stop, to be resumed, after so many failed calls (after all tries); those in flight may add some."),
    ] = Field(default=None, ge=1)
    cache: Annotated[bool, Flag("Take answers given earlier to the same.")] = False

    @property
    def execution(self) -> ExecutionSettings:
        """How it is to be executed."""
        return ExecutionSettings(self.concurrency, self.max_cost, self.max_errors, self.cache)

    @property
    def _device(self) -> Any:
        return self.model_arg.get("device")

    def _changed(self, changed: ChangedPath) -> dict[str, Any]:
        changes = super()._changed(changed)
        changes["model"] = changed_target(self.model, changed)
        if self.method is not None:
            changes["method"] = changed_fitted(self.method, "method", changed)
        for key in ("transcriber", "ear"):
            if (named := getattr(self, key)) is not None:
                changes[key] = changed_transcriber(named, key, changed)
        for key in ("data", "judge_prompt", "digits"):
            if (value := getattr(self, key)) is not None:
                changes[key] = changed(key, value)
        return changes


JUDGING_FIELDS = (
    "judge", "judge_prompt", "judge_api_base", "judge_arg", "votes", "concurrency", "timeout", "retries",
)  # fmt: skip
"""What judging alone takes of a dialogue spec."""


class EfficiencySpec(RunSpec):
    """A request to measure inference methods against each other on one model.

    Arms, tasks and items are lists; on one line they are separated by commas outside of brackets.
    """

    model: Annotated[
        str,
        AfterValidator(_homes),
        Flag("zoo:NAME, packaged:NAME, local:FOLDER, local:FILE.gguf, local:HUB-ID@REVISION or random:HUB-NAME."),
    ] = Field(min_length=1)
    arms: Annotated[
        list[str],
        BeforeValidator(split_lists),
        AfterValidator(_homes),
        Flag("Methods, name(setting=value):FITTED, … Repeatable."),
    ] = []
    """The family's baseline is always one of them."""
    tasks: Annotated[
        list[str],
        BeforeValidator(split_lists),
        AfterValidator(_homes),
        Field(min_length=1),
        Flag("What is asked, name(setting=value), … Repeatable."),
    ]
    sweep: Annotated[
        dict[str, list[Any]],
        BeforeValidator(_swept),
        Flag("A setting's values, at each of which the arms that have it are measured: budget=8,16,32. Repeatable."),
    ] = {}
    baseline: Annotated[
        str | None, Flag("The arm that others are compared with.", default="the fastest plain one")
    ] = Field(default=None, min_length=1)
    calibration: Annotated[
        str | None,
        AfterValidator(_homes),
        Flag(
            "A text file, or generated tasks, to fit arms on that name no recipe.",
            default="the run's own generated tasks",
        ),
    ] = Field(default=None, min_length=1)
    """Of generated tasks, samples that the run never asks."""
    layers: Annotated[int | None, Flag("Fewer layers of a random: model.", default="as many as the real one has")] = (
        Field(default=None, ge=1)
    )
    limit: Annotated[int, Flag("Samples of each task.")] = Field(default=20, ge=1)
    repeats: Annotated[int, Flag("Trials of each arm on each prompt.")] = Field(default=3, ge=1, le=1000)
    most_tokens: Annotated[int | None, Flag("The longest answer, in tokens.", default="the task's own")] = Field(
        default=None, ge=1
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], Flag("auto is the GPU where there is one.")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Flag("Of the weights; auto is bfloat16 on a GPU and float32 elsewhere."),
    ] = "auto"
    threads: Annotated[int | None, Flag("Of the processor.", default="one a core; zoo: one")] = Field(
        default=None, ge=1
    )
    memory: Annotated[bool | None, Flag("Take each arm's peak memory.", default="but for the zoo")] = None
    """On a processor each arm's is taken in a process of its own."""
    seed: Annotated[int, Flag("Of samples and random weights.")] = Field(default=1, ge=0)
    margin: Annotated[float, Flag("The loss of quality that counts as none.")] = Field(default=0.05, gt=0, lt=1)

    @property
    def _device(self) -> Any:
        return self.device

    def _changed(self, changed: ChangedPath) -> dict[str, Any]:
        changes = super()._changed(changed)
        adapter, _, name = self.model.partition(":")
        if adapter in ORIGINS and ORIGINS[adapter].may_be_folder and name:
            changes["model"] = f"{adapter}:{changed('model', name)}"
        changes["arms"] = [changed_fitted(arm, "arms", changed) for arm in self.arms]
        if self.calibration is not None:
            changes["calibration"] = changed("calibration", self.calibration)
        changes["tasks"] = [changed_task(task, changed) for task in self.tasks]
        return changes


SPECS: dict[str, type[RunSpec]] = {
    "audio-multichallenge": DialogueSpec,
    **dict.fromkeys(FAMILIES, EfficiencySpec),
}
"""Track → what a request for it holds."""


def flags_of(spec: type[RunSpec]) -> dict[str, Flag]:
    """How the fields of a spec are given on the command line, by their names."""
    return {
        name: flag for name, field in spec.model_fields.items() for flag in field.metadata if isinstance(flag, Flag)
    }


def is_pairs(key: str) -> bool:
    """Whether a key is given as `name=value`, once for each name."""
    flags = [flags_of(spec).get(key.replace("-", "_")) for spec in SPECS.values()]
    return any(flag is not None and flag.is_pairs for flag in flags)


def parse_spec(values: dict[str, Any], source: str = "the command line") -> RunSpec:
    """A validated spec, of the kind that its track takes.

    Raises:
        UsageError: an unknown track or key, a missing one, or a value of the wrong kind; the first fault is named.
    """
    track = values.get("track")
    if isinstance(track, str):
        check_track_name(track)
        return _validated(SPECS[track], values, source)
    return dialogue_spec(values, source)


def dialogue_spec(values: dict[str, Any], source: str = "the command line") -> DialogueSpec:
    """A validated spec of a dialogue track, whatever its track is called.

    Raises:
        UsageError: as `parse_spec` says.
    """
    return _validated(DialogueSpec, values, source)


def check_track_name(name: str) -> None:
    """See that there is a track of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SPECS:
        raise UsageError(
            f"Unknown track '{name}'{did_you_mean(name, SPECS)}; the tracks are {', '.join(sorted(SPECS))}."
        )


Spec = TypeVar("Spec", bound=RunSpec)


def _validated(kind: type[Spec], values: dict[str, Any], source: str) -> Spec:
    normal = {str(key).replace("_", "-"): value for key, value in values.items()}
    if isinstance(normal.get("items"), str):
        normal["items"] = [item.strip() for item in normal["items"].split(",") if item.strip()]
    _refuse_secrets(normal, source)
    try:
        return kind.model_validate(normal)
    except ValidationError as error:
        raise UsageError(_first_fault(error, kind, source)) from error


def _refuse_secrets(value: Any, source: str, path: str = "") -> None:
    """See that a request, which is stored, holds no key or password.

    Raises:
        UsageError: it does; the place is named, and not what stands there.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            place = f"{path}.{key}".removeprefix(".")
            if is_named_like_secret(str(key)):
                raise UsageError(
                    f"'{place}' in {source} is named like a key or password, and would be stored; leave it out, and "
                    "set the provider's key in the environment or in .env, for instance as OPENAI_API_KEY."
                )
            _refuse_secrets(each, source, place)
    elif isinstance(value, list):
        for each in value:
            _refuse_secrets(each, source, path)
    elif isinstance(value, str) and without_keys(value) != value:
        raise UsageError(
            f"'{path}' in {source} holds a key that is set in the environment or in .env, and would be stored; leave "
            "it out: it is read from there."
        )


def _first_fault(error: ValidationError, kind: type[RunSpec], source: str) -> str:
    # A key that is misspelt is most often the one that is missing.
    fault = next((each for each in error.errors() if each["type"] == "extra_forbidden"), error.errors()[0])
    key = _flag(".".join(str(part) for part in fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = [_flag(name) for name in kind.model_fields]
        return f"Unknown key '{key}'{did_you_mean(key, known)} in {source}; the keys are {', '.join(known)}."
    missing = [_flag(str(each["loc"][0])) for each in error.errors() if each["type"] == "missing"]
    if fault["type"] == "missing":
        *most, last = [f"'{each}'" for each in missing]
        listed = f"{', '.join(most)} and {last}" if most else last
        return f"{listed} {'is' if len(missing) == 1 else 'are'} missing in {source}."
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


CARD_KEYS = ("name", "organisation", "size", "open_weights", "licence", "description")


def read_card(path: Path) -> dict[str, Any]:
    """A model's card: a YAML file with any of the keys `CARD_KEYS`.

    Raises:
        UsageError: it cannot be read, or holds another key.
    """
    card = read_yaml(path, "card")
    if not isinstance(card, dict):
        raise UsageError(f"The card '{path}' must hold keys and values.")
    unknown = sorted(set(map(str, card)) - set(CARD_KEYS))
    if unknown:
        meant = did_you_mean(unknown[0], CARD_KEYS)
        raise UsageError(
            f"The card '{path}' has the unknown key '{unknown[0]}'{meant}; it takes {', '.join(CARD_KEYS)}."
        )
    for key, value in card.items():
        wanted = {"open_weights": (bool,), "size": (str, int, float)}.get(key, (str,))
        if value is not None and not isinstance(value, wanted):
            kind = "true or false" if key == "open_weights" else "text"
            raise UsageError(f"The card '{path}' must give '{key}' as {kind}, not {value!r}.")
    return {key: card[key] for key in CARD_KEYS if card.get(key) is not None}


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
        value = parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"--set {assignment}: the value is not YAML ({error}).") from error
    place = values
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {assignment}: '{key}' has no keys of its own.")
    place[keys[-1]] = value


def parsed_argument(text: str) -> Any:
    """The value of a `--model-arg k=v`: JSON where it is JSON, else the text itself."""
    try:
        return parse_json(text)
    except ValueError:
        return text
