"""Writing or finding the rows of a run, its model, its judge and its judging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.machine.manifest import fingerprint, hardware, manifest
from vivace.models.base import AppliedMethod, ModelIdentity
from vivace.store import tables
from vivace.store.records import ensure
from vivace.store.visibility import THE_OPERATORS, Ownership
from vivace.tracks.base import Registered
from vivace.tracks.rows import ensure_model, ensure_run
from vivace_rubrics.judges import JudgeCard

TRACK = "audio-multichallenge"


@dataclass(frozen=True)
class Judges:
    """Who judges a run."""

    card: JudgeCard
    votes: int = 1
    """Votes on each criterion, those of all members together."""
    members: tuple[JudgeCard, ...] = ()
    """The judges of an ensemble; empty where one judges alone."""


def register_run(
    session: Session,
    *,
    dataset: tables.Dataset,
    identity: ModelIdentity,
    card: dict[str, Any],
    judge: Judges | None,
    repeats: int = 1,
    items: list[str],
    form: str,
    limited: bool,
    ownership: Ownership = THE_OPERATORS,
    force: bool = False,
    imported: bool = False,
    run_id: str | None = None,
    elsewhere: bool = False,
) -> Registered:
    """Write or find the rows of one run and its judging.

    Args:
        ownership: whose a new run is.
        force: a new run beside the one of the same identity.
        run_id: the run it must turn out to be, when it was submitted earlier.
        elsewhere: whether another machine will execute it.

    Raises:
        UsageError: the run was retracted, or is not the one that was submitted.
    """
    model = ensure_model(session, identity, card, owner=ownership.owner, run_id=run_id)
    machine = ensure(session, tables.Hardware, {"fingerprint": fingerprint(hardware())}, {"details": hardware()})
    method = identity.method
    decoded = None if method is None else [method.label, method.recipe_sha256]
    run_identity = fingerprint(
        [TRACK, dataset.fingerprint, items, identity.fingerprint, form, decoded, repeats, imported]
    )
    values = {
        "track": TRACK,
        "dataset_id": dataset.id,
        "model_id": model.id,
        "method": None if method is None else method.name,
        "input_form": form,
        "output_form": identity.parameters.get("output", "text"),
        "repeats": repeats,
        "items": items,
        "limited": limited,
        "imported": imported,
        "manifest": {**manifest(), **_method_manifest(method)},
    }
    place = {"hardware_id": None if elsewhere else machine.id}
    run = ensure_run(session, run_identity, values, place, ownership=ownership, force=force, run_id=run_id)
    return register_judging(session, run.id, judge) if judge else Registered(run.id, None)


def _method_manifest(method: AppliedMethod | None) -> dict[str, Any]:
    if method is None:
        return {}
    recipe = None if method.recipe is None else {"folder": str(method.recipe), "sha256": method.recipe_sha256}
    return {"method": {"label": method.label, "recipe": recipe}}


def register_judging(session: Session, run_id: str, judge: Judges) -> Registered:
    """Write or find the rows of a judge, of its members where it is an ensemble, and of its judging of a run.

    Raises:
        UsageError: that judging was retracted.
    """
    for member in judge.members:
        _ensure_judge(session, member)
    row = _ensure_judge(session, judge.card)
    several = f"x{judge.votes}" if judge.votes > 1 else ""
    judging = ensure(
        session,
        tables.Judging,
        {"run_id": run_id, "judge_id": row.id, "votes": judge.votes},
        {"id": f"{run_id}.{judge.card.fingerprint[:8]}{several}", "unofficial_reasons": []},
    )
    if judging.retracted_at is not None:
        raise UsageError(
            f"The judging {judging.id} by this very judge was retracted ({judging.retraction_reason}); bring it back "
            f"with `vivace retract --undo {judging.id}`, or take another judge or --votes."
        )
    return Registered(run_id, judging.id)


def _ensure_judge(session: Session, judge: JudgeCard) -> tables.Judge:
    return ensure(
        session,
        tables.Judge,
        {"fingerprint": judge.fingerprint},
        {
            "target": judge.target,
            "name": judge.name,
            "address": judge.address,
            "prompt_name": judge.prompt.name if judge.prompt else None,
            "prompt_sha256": judge.prompt.sha256 if judge.prompt else None,
            "prompt": judge.prompt.text if judge.prompt else None,
            "parameters": dict(judge.parameters),
            "parser_version": judge.parser_version,
        },
    )
