"""Writes what the process that measures told: trials, predictions, the floor, recipes, audits, peaks of memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.store import tables
from vivace.store.columns import now
from vivace.store.records import add_event, ensure, insert
from vivace.tracks.efficiency.session.messages import (
    Audited,
    ChosenBaseline,
    FittedRecipe,
    Predictions,
    ProbedFloor,
    Remark,
    TimedTrial,
    Told,
)
from vivace_methods.arms import Arm
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.registry import parse_arm
from vivace_methods.timing.limits import Device, Floor


class ArmRecords:
    """The arms of a registered run by their names, the baseline first, and the rows of what they do.

    Args:
        run_id: the run.
        arms: name → arm.
        baseline: the name of the arm that the others are compared with; None until it is found.
    """

    def __init__(self, run_id: str, arms: dict[str, Arm], baseline: str | None) -> None:
        self._run_id = run_id
        self._arms, self._baseline = arms, baseline
        self._row_ids: dict[str, int] = {}

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms by the names that their trials bear."""
        return self._arms

    @property
    def baseline(self) -> str | None:
        """The name of the arm that the others are compared with; None until it is found."""
        return self._baseline

    def register(self, session: Session) -> None:
        """Write or find the rows of the arms. One that is fitted keeps the name under which it was recorded.

        What was fitted may have been found in another place then.
        """
        rows = session.scalars(select(tables.Arm).where(tables.Arm.run_id == self._run_id)).all()
        recorded = {arm.position: arm.name for arm in rows}
        first = int(self._baseline is None)
        self._arms = {
            name if arm.fitted is None else recorded.get(place, name): arm
            for place, (name, arm) in enumerate(self._arms.items(), first)
        }
        if self._baseline is not None:
            self._baseline = next(iter(self._arms))
        self._row_ids = {
            name: self._row(session, place, name, arm).id
            for place, (name, arm) in enumerate(self._arms.items(), first)
        }
        earlier = next((arm for arm in rows if arm.baseline), None)
        if self._baseline is None and earlier is not None:
            self._adopt(earlier.name, earlier.id)

    def _row(self, session: Session, place: int, name: str, arm: Arm) -> tables.Arm:
        return ensure(
            session,
            tables.Arm,
            {"run_id": self._run_id, "name": name},
            {
                "method": arm.name,
                "settings": arm.settings,
                "fitted": arm.fitted,
                "position": place,
                "baseline": name == self._baseline,
            },
        )

    def _adopt(self, name: str, row_id: int) -> None:
        """Take an arm for the baseline: one that was found to be the fastest, now or before an interruption."""
        self._baseline = name
        self._arms = {name: parse_arm(name), **self._arms}
        self._row_ids[name] = row_id

    def record(self, session: Session, told: Told) -> None:
        """Write one message; those that tell of nothing lasting leave nothing."""
        match told:
            case TimedTrial():
                self._record_trial(session, told)
            case Predictions():
                self._record_predictions(session, told)
            case ChosenBaseline():
                self._record_baseline(session, told)
            case Remark():
                add_event(session, told.sentence, run_id=self._run_id)
            case ProbedFloor():
                measured = self._measured(session)
                floor = best_floor(measured.get("floor"), told.floor)
                self._set(session, {**measured, "floor": floor, "kernels": told.kernels})
            case FittedRecipe():
                self._add(session, "recipes", told.arm, told.recipe)
                record_diagnoses(session, self._row_ids[told.arm], told.diagnoses)
            case Audited():
                self._record_audits(session, told)

    def record_peak(self, session: Session, arm: str, peak_bytes: int) -> None:
        """Write the most memory that an arm took."""
        self._add(session, "memory", arm, peak_bytes)

    def _record_trial(self, session: Session, told: TimedTrial) -> None:
        trial = told.trial
        key = {
            "arm_id": self._row_ids[trial["arm"]],
            "prompt": trial["prompt"],
            "repetition": trial["repetition"],
        }
        values = {
            "ttft_s": trial["emitted_s"][0] if trial["emitted_s"] else None,
            "total_s": trial["total_s"],
            "output_tokens": len(trial["tokens"]),
            "measurements": told.measurements(),
            "unscored_reason": trial["failure"],
            "created_at": now(),
        }
        statement = insert(session, tables.Trial).values(**key, **values)
        session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))

    def _record_predictions(self, session: Session, told: Predictions) -> None:
        key = {"arm_id": self._row_ids[told.arm], "prompt": told.prompt, "repetition": 0}
        trial = session.scalars(select(tables.Trial).filter_by(**key)).one()
        trial.measurements = {**trial.measurements, **told.compared}

    def _record_baseline(self, session: Session, told: ChosenBaseline) -> None:
        session.get_one(tables.Run, self._run_id).method = told.arm
        row = self._row(session, 0, told.arm, parse_arm(told.arm))
        row.baseline, row.position = True, 0  # it may have been asked for as an arm
        self._adopt(row.name, row.id)
        add_event(session, told.sentence, run_id=self._run_id)

    def _record_audits(self, session: Session, told: Audited) -> None:
        measured = self._measured(session)
        audits = {"session": told.session, "findings": told.findings}
        self._set(session, {**measured, "sessions": [*measured["sessions"], audits]})
        for finding in told.findings:
            message = f"{finding['arm']}: {finding['fault']}: {finding['sentence']}"
            add_event(session, message, run_id=self._run_id, level="warning")

    def _measured(self, session: Session) -> dict[str, Any]:
        """What is known of the run as a whole."""
        return dict(session.get_one(tables.Run, self._run_id).measured or {"sessions": []})

    def _set(self, session: Session, measured: dict[str, Any]) -> None:
        session.get_one(tables.Run, self._run_id).measured = measured

    def _add(self, session: Session, part: str, arm: str, value: Any) -> None:
        """Note something of one arm in a part of what is known of the run."""
        measured = self._measured(session)
        self._set(session, {**measured, part: {**measured.get(part, {}), arm: value}})


def record_diagnoses(session: Session, arm_id: int, rows: Iterable[Diagnosis]) -> None:
    """Write what an arm does in each layer, in place of what was written of the same figures."""
    values = [{"arm_id": arm_id, **vars(row)} for row in rows]
    statement = insert(session, tables.Diagnosis)
    told = {name: statement.excluded[name] for name in ("value", "n")}
    if values:
        key = ["arm_id", "kind", "layer", "setting"]
        session.connection().execute(statement.on_conflict_do_update(index_elements=key, set_=told), values)


def best_floor(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """What a device did at its best, in this session or in one before: a floor is a lower bound."""
    if before is None:
        return found
    rates = (Floor(**{**each, "device": Device(**each["device"])}) for each in (found, before))
    best = next(rates).best_with(next(rates))
    return {**dataclasses.asdict(best), "flops_per_s": dict(best.flops_per_s)}
