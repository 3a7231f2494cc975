"""On which machine a run is measured: on this one, or on whichever takes it and has what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.machine.manifest import fingerprint
from vivace.models.base import ModelIdentity
from vivace.spec import EfficiencySpec
from vivace.store import tables
from vivace.store.records import ensure
from vivace.tracks.efficiency.machine import MachineSetup
from vivace.tracks.efficiency.measured_models import MeasuredModel


@dataclass(frozen=True)
class Placement:
    """A run's identity, with the machine and the form of the model that it has there."""

    identity: str
    model: ModelIdentity
    hardware_id: int | None
    """None until a machine takes it."""
    begins_here: bool
    """Whether it was sent to any machine, and this is the one."""


def place(
    session: Session,
    target: MeasuredModel,
    spec: EfficiencySpec,
    machine: MachineSetup | None,
    run_id: str | None,
    identity_of: Callable[[ModelIdentity, str], str],
) -> Placement:
    """Where a run is measured, by which it is known.

    Args:
        session: of the store.
        target: the model.
        spec: what is asked for.
        machine: this one; None where a worker will execute the run.
        run_id: the run it must turn out to be, when it was submitted earlier.
        identity_of: the identity of a run of a model on a machine, by what stands for the machine.

    Raises:
        UsageError: trials of another machine are recorded already.
    """
    asked = target.identity({"dtype": spec.dtype})
    any_machine = identity_of(asked, fingerprint(["any", spec.device, spec.threads, sorted(spec.needs)]))
    if machine is None:
        return Placement(any_machine, asked, None, False)
    details = machine.details
    row = ensure(session, tables.Hardware, {"fingerprint": fingerprint(details)}, {"details": details})
    model = target.identity({"dtype": machine.dtype})
    sent = None if run_id is None else session.get(tables.Run, run_id)
    if sent is None or sent.identity != any_machine:
        return Placement(identity_of(model, row.fingerprint), model, row.id, False)
    if sent.hardware_id not in (None, row.id):
        trials = select(tables.Trial.id).join(tables.Arm).where(tables.Arm.run_id == sent.id).limit(1)
        if session.scalar(trials) is not None:
            raise UsageError(
                "Its trials were begun on another machine, and times of two machines cannot be compared: let a "
                "worker of that one go on (`needs` can name it), or submit it again with --force."
            )
        sent.hardware_id = None
    return Placement(any_machine, model, row.id, sent.hardware_id is None)
