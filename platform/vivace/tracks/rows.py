"""Rows that the runs of every track have: the model, and the run itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.machine.manifest import fingerprint
from vivace.models.base import ModelIdentity
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.records import ensure, run_ordinal
from vivace.store.visibility import Ownership


def model_fingerprint(identity: ModelIdentity, owner: str | None) -> str:
    """By which a model's row is known: one for each who describes it, so that nobody's card is changed by another's.

    Args:
        identity: of the model.
        owner: whose the run is; None for the operator.
    """
    return identity.fingerprint if owner is None else fingerprint([identity.fingerprint, owner])


def ensure_model(
    session: Session, identity: ModelIdentity, card: dict[str, Any], *, owner: str | None, run_id: str | None
) -> tables.Model:
    """The row of a model, with what its card says now.

    Args:
        session: of the store.
        identity: of the model.
        card: column → value.
        owner: whose the run is that is made; None for the operator.
        run_id: the run that was submitted earlier, whose model has its card since.
    """
    if run_id is not None and (run := session.get(tables.Run, run_id)) is not None:
        return session.get_one(tables.Model, run.model_id)
    model = ensure(
        session,
        tables.Model,
        {"fingerprint": model_fingerprint(identity, owner)},
        {
            "target": identity.target,
            "adapter": identity.adapter,
            "name": identity.name,
            "address": identity.address,
            "parameters": identity.parameters,
            "recorded": identity.is_recorded,
        },
    )
    for key, value in card.items():
        setattr(model, key, str(value) if key == "size" else value)
    return model


def ensure_run(
    session: Session,
    identity: str,
    values: dict[str, Any],
    place: dict[str, Any] | None = None,
    *,
    ownership: Ownership,
    force: bool,
    run_id: str | None,
) -> tables.Run:
    """The row of a run, with the id that its identity gives it.

    Args:
        session: of the store.
        identity: the hash of what makes its result.
        values: column → value of a new one.
        place: column → value, of what depends on the machine that executes it: written when the first does.
        ownership: whose it is; one that was public becomes private where that is asked for, and never the reverse.
        force: a new run beside the one of the same identity.
        run_id: the run it must turn out to be, when it was submitted earlier.

    Raises:
        UsageError: the run was retracted, or is not the one that was submitted.
    """
    owner = ownership.owner
    while True:
        ordinal = run_ordinal(session, identity, owner, force, run_id)
        key = {"identity": identity, "ordinal": ordinal}
        name = identity[:12] + (f"-{ordinal + 1}" if ordinal else "")
        run = ensure(session, tables.Run, key, {"id": name, "owner": owner, **values, **(place or {})})
        if run_id is not None or run.owner == owner:
            break
        # Somebody else's was written in between: the next one is ours.
    if run.hardware_id is None:
        for column, value in (place or {}).items():
            setattr(run, column, value)
    if ownership.private and run_id is None and run.private_since is None:
        run.private_since = now()
    if run.retracted_at is not None:
        raise UsageError(
            f"The run {run.id} of this very configuration was retracted ({run.retraction_reason}); use --force for a "
            f"new run, or bring it back with `vivace retract --undo {run.id}`."
        )
    return run
