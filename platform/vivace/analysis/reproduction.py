"""From a recorded run to the commands that make it again, and to what has changed since it was made."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from vivace.errors import UsageError, VivaceError
from vivace.machine.manifest import hardware, manifest
from vivace.models.client.calls import ChatOptions
from vivace.models.local.method import read_method
from vivace.models.registry import open_system
from vivace.spec import JUDGING_FIELDS, DialogueSpec, is_rejudging, parse_spec
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.identifiers import find, submitted
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.judging.judges import open_judge
from vivace.tracks.rows import model_fingerprint


@dataclass(frozen=True)
class Discrepancy:
    """Something that is not now as it was when the run was made."""

    what: str
    then: str
    now: str


@dataclass(frozen=True)
class Reproduction:
    """How to make a run again, and what would be different."""

    run: str
    judging: str | None
    commands: list[str]
    """Lines of a shell script; those that begin with # say what no command can do."""
    changes: list[Discrepancy]

    def as_json(self) -> dict[str, Any]:
        """All of it as data."""
        return {**vars(self), "changes": [vars(change) for change in self.changes]}


@dataclass(frozen=True)
class _Record:
    """What the store holds of how a run and a judging were made."""

    run: tables.Run
    dataset: tables.Dataset
    model: tables.Model
    machine: tables.Hardware | None
    spec: DialogueSpec
    judging: tables.Judging | None
    judge: tables.Judge | None
    judging_spec: DialogueSpec
    """The spec of the judging: the run's own, or that of judging it again."""

    @property
    def is_rejudged(self) -> bool:
        """Whether the judging was made from the store, after the run."""
        return is_rejudging(self.judging_spec.model)


def reproduction(database: Database, identifier: str) -> Reproduction:
    """How to make a run again, and one of its judgings.

    Args:
        identifier: a run, a submission, or a judging; without one named, it is the judging the run was made with.

    Raises:
        UsageError: there is none, or it was not made by a command: it was imported.
    """
    record = _record(database, identifier)
    return Reproduction(
        run=record.run.id,
        judging=record.judging.id if record.judging else None,
        commands=[*_environment(record), *_data(record), *_runs(record)],
        changes=list(_changes(record)),
    )


def _record(database: Database, identifier: str) -> _Record:
    with database.read() as session:
        meant = find(session, identifier)
        if meant is None:
            raise UsageError(
                f"There is no run '{identifier}'; `vivace leaderboard --format json` and `vivace status` "
                "show the ids."
            )
        run = session.get_one(tables.Run, meant.run)
        query = select(tables.Submission).where(tables.Submission.run_id == run.id)
        query = query.order_by(tables.Submission.created_at.desc())
        made = [one for one in session.scalars(query) if not _is_rejudging(one)]
        if run.imported or not made:
            why = "was imported" if run.imported else "has no submission on record"
            raise UsageError(f"Run {run.id} {why}, so that no command of Vivace's reproduces it.")
        wanted = session.scalars(query.where(submitted(meant))).all()
        if not wanted:
            raise UsageError(
                f"Judging {meant.judging} has no submission on record, so that no command reproduces it."
            )
        asked = wanted[0] if meant.judging or meant.submission else made[0]
        judging = session.get(tables.Judging, asked.judging_id) if asked.judging_id else None
        return _Record(
            run=run,
            dataset=session.get_one(tables.Dataset, run.dataset_id),
            model=session.get_one(tables.Model, run.model_id),
            machine=session.get(tables.Hardware, run.hardware_id) if run.hardware_id else None,
            # The same run is often judged by several: the command has to be the one with the judge that is meant.
            spec=_spec(made[0] if _is_rejudging(asked) else asked, run.id),
            judging=judging,
            judge=session.get(tables.Judge, judging.judge_id) if judging else None,
            judging_spec=_spec(asked, run.id),
        )


def _is_rejudging(submission: tables.Submission) -> bool:
    return is_rejudging(str(submission.spec.get("model")))


def _spec(submission: tables.Submission, run_id: str) -> DialogueSpec:
    spec = parse_spec(submission.spec, f"the record of run {run_id}")
    if not isinstance(spec, DialogueSpec):
        raise UsageError(
            f"Run {run_id} is of the track {spec.track}, whose times no command brings back; its spec is what "
            "`vivace run --config` takes, and `vivace leaderboard --format json` shows arms and settings."
        )
    return spec


# Commands


def _environment(record: _Record) -> Iterator[str]:
    """Python, code and packages as they were."""
    kept = record.run.manifest
    code = kept.get("code")
    packages = {name: version for name, version in kept.get("packages", {}).items() if name != "vivace"}
    pinned = [f"{name}=={version}" for name, version in packages.items()]
    yield f"# Python {kept.get('python')}"
    if code is None:
        yield shlex.join(["pip", "install", f"vivace=={kept.get('vivace')}", *pinned])
        return
    if code.get("dirty"):
        yield "# The code had changes that were not committed; they are not recorded."
    yield f"git checkout {code['commit']}"
    yield shlex.join(["pip", "install", "--editable", ".", *pinned])


def _data(record: _Record) -> Iterator[str]:
    if _is_on_hub(record):
        yield shlex.join(["vivace", "data", "fetch", f"{record.dataset.name}@{record.dataset.revision}"])
    elif record.spec.data != "demo":
        yield f"# The data: {record.spec.data}, SHA-256 {record.dataset.revision}"


def _is_on_hub(record: _Record) -> bool:
    """A hub revision is a commit's 40 digits; a file's is the 64 of a SHA-256."""
    return re.fullmatch("[0-9a-f]{40}", record.dataset.revision) is not None


def _runs(record: _Record) -> Iterator[str]:
    spec = record.spec.as_json() | {"items": record.spec.items and ",".join(record.spec.items)}
    if _is_on_hub(record):
        spec["data"] = f"{record.dataset.name}@{record.dataset.revision}"
    yield shlex.join(["vivace", "run", spec.pop("track"), *_flags(spec)])
    if record.is_rejudged:
        again = {
            key: value
            for key, value in record.judging_spec.as_json().items()
            if key.replace("-", "_") in JUDGING_FIELDS
        }
        yield shlex.join(["vivace", "judge", "run", record.run.id, *_flags(again)])


def _flags(spec: dict[str, Any]) -> Iterator[str]:
    """A spec's values as the flags of the same names."""
    for key, value in spec.items():
        if isinstance(value, bool):
            yield f"--{key}" if value else f"--no-{key}"
        elif isinstance(value, dict):
            for name, argument in value.items():
                yield from (f"--{key}", f"{name}={_argument(argument)}")
        elif value is not None:
            yield from (f"--{key}", str(value))


def _argument(value: Any) -> str:
    """Text that is read back as this value: JSON, or the text itself where that is no JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False)


# Changes


def _changes(record: _Record) -> Iterator[Discrepancy]:
    yield from _code_changes(record.run.manifest)
    machine = record.machine.details if record.machine else {}
    now = hardware()
    for key in sorted(machine.keys() | now.keys()) if machine else ():
        yield from _change(f"hardware: {key}", machine.get(key), now.get(key))
    yield from _content_changes(record)


def _code_changes(then: dict[str, Any]) -> Iterator[Discrepancy]:
    now = manifest()
    for key in ("vivace", "python"):
        yield from _change(key, then.get(key), now[key])
    codes = [(kept.get("code") or {}) for kept in (then, now)]
    yield from _change("code", *(code.get("commit", "an installed package") for code in codes))
    yield from _change("uncommitted changes", *("yes" if code.get("dirty") else "no" for code in codes))
    before, today = then.get("packages", {}), now["packages"]
    for name in sorted((before.keys() | today.keys()) - {"vivace"}):
        yield from _change(f"package {name}", before.get(name), today.get(name))


def _content_changes(record: _Record) -> Iterator[Discrepancy]:
    """What the files and instruments named in the specs are now; nothing is fetched."""
    own_prompt = record.judge.prompt if record.judge and record.judge.prompt_name == "dataset" else None
    if not _is_on_hub(record):
        try:
            conversations = open_conversations(record.spec.data)
            own_prompt = conversations.judge_prompt
            yield from _change("data", record.dataset.revision, conversations.revision)
        except VivaceError as error:
            yield Discrepancy("data", record.dataset.revision, f"not to be had: {error}")
    if record.model.recorded:
        try:
            identity = open_system(record.spec.model, {}, ChatOptions()).identity
            if record.model.fingerprint not in (identity.fingerprint, model_fingerprint(identity, record.run.owner)):
                yield from _change("recorded replies", record.model.fingerprint, identity.fingerprint)
        except VivaceError as error:
            yield Discrepancy("recorded replies", record.model.fingerprint, f"not to be had: {error}")
    if record.spec.method is not None:
        try:
            yield from _change("method", record.run.method, read_method(record.spec.method).name)
        except VivaceError as error:
            yield Discrepancy("method", str(record.run.method), f"not to be had: {error}")
    if record.judge is not None:
        try:
            card = open_judge(record.judging_spec, own_prompt).card
            yield from _change("judge", record.judge.fingerprint, card.fingerprint)
        except VivaceError as error:
            yield Discrepancy("judge", record.judge.fingerprint, f"not to be had: {error}")


def _change(what: str, then: object, now: object) -> Iterator[Discrepancy]:
    if then != now:
        yield Discrepancy(what, *("none" if value is None else str(value) for value in (then, now)))
