"""What the operator lets strangers do: which sets they may submit to, which models they may ask for, how much."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vivace.errors import UsageError
from vivace.files.text import read_yaml
from vivace.spec import DialogueSpec, dialogue_spec

TRACK = "audio-multichallenge"


def _key(name: str) -> str:
    return name.replace("_", "-")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_key, populate_by_name=True)


class Limits(_Strict):
    """How much strangers may send and ask."""

    upload_mb: float = Field(default=16, gt=0, le=1024)
    """Of one upload, in MiB."""
    uploads_mb_per_owner: float = Field(default=256, gt=0, allow_inf_nan=False)
    """Of all uploads of one person together, in MiB."""
    recording_seconds: float = Field(default=300, gt=0, le=3600)
    """Of one recording of a reply."""
    open_submissions: int = Field(default=8, ge=1)
    """Of one person, queued or running at once."""
    requests_per_minute: float = Field(default=120, gt=0, allow_inf_nan=False)
    """Of one token, and of one address that has none."""
    refusals_per_minute: float = Field(default=20, gt=0, allow_inf_nan=False)
    """Of one address: tokens that open nothing."""


class Door(_Strict):
    """What is open to strangers; by default the demo set, and recorded replies alone."""

    sets: dict[str, dict[str, Any]] = Field(
        default={"demo": {"data": "demo", "judge": "checks", "audio": "transcript"}}, min_length=1
    )
    """Name → the spec of its runs but for what a submission says: data, judge, what calls may cost, …"""
    models: list[str] = []
    """Patterns of targets (`litellm:openai/*`) that may be submitted, to be asked with the operator's keys."""
    queue: str = "default"
    limits: Limits = Limits()

    def spec_of(self, name: str, submitted: dict[str, Any]) -> DialogueSpec:
        """The request for a run: what the operator says of a set, and what the submission adds.

        Raises:
            UsageError: the set is not open, or something in the two is wrong.
        """
        if name not in self.sets:
            raise UsageError(f"The set '{name:.100}' is not open; the sets are {', '.join(sorted(self.sets))}.")
        return dialogue_spec({"track": TRACK, **self.sets[name], **submitted}, f"the submission to '{name}'")

    def lets_ask(self, target: str) -> bool:
        """Whether strangers may have this model asked."""
        return any(fnmatchcase(target, pattern) for pattern in self.models)


SUBMITTED = frozenset({"track", "model", "card", "private"})
"""Keys that a set leaves to the submission."""


def read_door(path: Path | None) -> Door:
    """The operator's file, or what holds without one.

    Raises:
        UsageError: it cannot be read, or something in it is wrong.
    """
    if path is None:
        return Door()
    content = read_yaml(path, "configuration of the API")
    if not isinstance(content, dict):
        raise UsageError(f"The configuration of the API '{path}' must hold keys and values, for instance 'sets: …'.")
    try:
        door = Door.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise UsageError(f"'{place}' in the configuration of the API '{path}' is wrong: {fault['msg']}.") from error
    for name, values in door.sets.items():
        if left := sorted(SUBMITTED & {_key(str(key)) for key in values}):
            raise UsageError(f"The set '{name}' in '{path}' says '{left[0]}', which each submission says for itself.")
        door.spec_of(name, {"model": "replay:replies.jsonl"})
    return door
