"""What a stranger asks for, and the run that it becomes: the operator's spec, and of theirs what may be theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import func, select

from vivace.api.access import House
from vivace.api.contents import recordings_named
from vivace.api.faults import Refused
from vivace.engine.access.tokens import Bearer
from vivace.models.adapters.base import Capabilities
from vivace.models.registry import adapter_of
from vivace.output.secrets import masked
from vivace.spec import DialogueSpec
from vivace.store.artifacts import Artifacts
from vivace.store.tables import ENDED, Run, Submission, Upload
from vivace.store.trees import in_tree
from vivace_rubrics.texts import storable

_HUB_MODEL = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*@[0-9a-f]{40}")
_NAMED = re.compile(r"[a-z][a-z-]*:[\w-][\w.:@+-]*(/[\w-][\w.:@+-]*)*")
_BUSY_S = 60.0


def _plain(text: str) -> str:
    """Refuse what would command a terminal or fit in no database."""
    if not text.strip() or storable(text) != text or any(not (one.isprintable() or one == "\n") for one in text):
        raise ValueError("it holds no text, or control characters")
    if masked(text) != text:
        raise ValueError("it holds what looks like a key or password, and would be shown")
    return text


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]


class Card(BaseModel):
    """How the board describes a system."""

    model_config = ConfigDict(extra="forbid")

    name: Line
    organisation: Line | None = None
    size: Line | None = None
    open_weights: bool | None = None
    licence: Line | None = None
    description: Annotated[str, Field(max_length=2000), AfterValidator(_plain)] | None = None


class AskedSubmission(BaseModel):
    """A request to have outputs judged, or a model asked and judged."""

    model_config = ConfigDict(extra="forbid")

    set: Annotated[str, Field(min_length=1, max_length=100, description="One of those that `/v1/sets` lists.")]
    card: Card
    outputs: Annotated[
        str | None, Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 of an upload of yours.")
    ] = None
    model: Annotated[
        str | None, Field(max_length=200, description="A target, where the operator lets models be asked.")
    ] = None
    private: Annotated[bool, Field(description="Whether only you and the operator see the run.")] = False

    @model_validator(mode="after")
    def _one_of_both(self) -> AskedSubmission:
        if (self.outputs is None) == (self.model is None):
            raise ValueError("give either 'outputs' or 'model'")
        return self


def spec_of(asked: AskedSubmission, house: House, bearer: Bearer, artifacts: Artifacts) -> DialogueSpec:
    """The run that is asked for.

    Raises:
        Refused: it is not granted.
        UsageError: there is no such set.
    """
    house.door.spec_of(asked.set, {"model": "replay:outputs"})
    card = asked.card.model_dump(exclude_none=True)
    files = {"card.yaml": artifacts.put(json.dumps(card, ensure_ascii=False).encode())}
    submitted: dict[str, Any] = {"private": asked.private}
    if asked.outputs is not None:
        _check_upload(house, bearer, asked.outputs)
        files |= {"replies.jsonl": asked.outputs} | _recordings(house, bearer, artifacts.fetch(asked.outputs))
        submitted["model"] = f"replay:{in_tree(artifacts, files, 'replies.jsonl')}"
    else:
        submitted["model"] = _granted(str(asked.model), house)
    submitted["card"] = in_tree(artifacts, files, "card.yaml")
    return house.door.spec_of(asked.set, submitted)


def check_open(house: House, bearer: Bearer) -> None:
    """See that somebody has not too much in the queue.

    Raises:
        Refused: there is too much.
    """
    query = (
        select(func.count())
        .select_from(Submission)
        .join(Run, Submission.run_id == Run.id)
        .where(Run.owner == bearer.owner, Submission.status.not_in(ENDED))
    )
    with house.database.read() as session:
        count = session.scalar(query) or 0
    if count >= house.door.limits.open_submissions:
        raise Refused(429, f"{count} submissions of yours are open; wait until one has ended, or cancel it.", _BUSY_S)


def _check_upload(house: House, bearer: Bearer, sha256: str) -> None:
    mine = select(Upload.rows).where(Upload.owner == bearer.owner, Upload.sha256 == sha256)
    with house.database.read() as session:
        rows = session.scalar(mine)
    if rows is None:
        raise Refused(404, f"There is no upload {sha256[:12]} of yours; send the outputs to /v1/uploads first.")
    if not rows:
        raise Refused(422, f"The upload {sha256[:12]} is a recording; the outputs are replies that name theirs.")


def _recordings(house: House, bearer: Bearer, replies: Path) -> dict[str, str]:
    """The recordings that replies name, each a file beside them under its hash: no name of a stranger is a path.

    Raises:
        Refused: one was not sent by whoever asks.
    """
    named = recordings_named(replies)
    mine = select(Upload.sha256).where(Upload.owner == bearer.owner, Upload.rows == 0)
    with house.database.read() as session:
        missing = named.difference(session.scalars(mine)) if named else set()
    if missing:
        raise Refused(404, f"There is no recording {min(missing)[:12]} of yours; send it to /v1/uploads first.")
    return {sha256: sha256 for sha256 in named}


def _granted(model: str, house: House) -> str:
    """A model that strangers may have asked.

    A target names nothing of this machine and no address; what it may name is still what the operator lists.
    """
    adapter, name = adapter_of(model), model.partition(":")[2]
    known = Capabilities() if adapter is None else adapter.capabilities
    if not _NAMED.fullmatch(model) or ".." in model or known.is_recorded or known.asks_another:
        raise Refused(
            422,
            "A model is written ADAPTER:NAME, and names no file, folder, address or artifact; recorded replies are "
            "uploaded.",
        )
    if known.may_be_path and not _HUB_MODEL.fullmatch(name):
        raise Refused(422, "A local model is named by its hub and commit, local:OWNER/NAME@COMMIT.")
    if not house.door.lets_ask(model):
        raise Refused(403, "The operator does not let this model be asked; upload outputs instead.")
    return model
