"""A run of an efficiency track: planned as one session of one process, driven, recorded and scored."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError, VivaceError
from vivace.machine.manifest import fingerprint, manifest
from vivace.models.base import ModelIdentity
from vivace.spec import EfficiencySpec
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.records import ensure
from vivace.store.visibility import THE_OPERATORS, Ownership
from vivace.tracks.base import Ending, Registered, Workbench
from vivace.tracks.efficiency.machine import MachineSetup, machine_for
from vivace.tracks.efficiency.measured_models import MeasuredModel, folder_of_fitted
from vivace.tracks.efficiency.placement import place
from vivace.tracks.efficiency.planned_arms import check_arms
from vivace.tracks.efficiency.prompts import PlannedTasks
from vivace.tracks.efficiency.records import ArmRecords
from vivace.tracks.efficiency.scores import score_run
from vivace.tracks.efficiency.session.messages import (
    Audited,
    ChosenBaseline,
    FittedRecipe,
    LongestPrompt,
    MeasuringJob,
    ProcessFault,
    Remark,
    StepsDone,
    TimedTrial,
    as_line,
    read_told,
)
from vivace.tracks.efficiency.session.process import MeasuringProcess, started
from vivace.tracks.rows import ensure_model, ensure_run
from vivace_methods.arms import Arm
from vivace_methods.models.shapes import TINY_SHAPES
from vivace_methods.timing.process.memory import generate_command


@dataclass(frozen=True)
class Measuring:
    """What is left of a run: one session in one process, for pairs are only formed inside of one."""

    done: tuple[tuple[str, str, int], ...]
    """Arm, prompt and repetition of trials that stay."""


class EfficiencyRun:
    """Arms against each other on one model."""

    def __init__(
        self,
        track: str,
        spec: EfficiencySpec,
        target: MeasuredModel,
        arms: dict[str, Arm],
        baseline: str | None,
        asked: Any,
        planned: PlannedTasks,
        card: dict[str, Any],
        home: Path,
    ) -> None:
        self._track, self._spec, self._target = track, spec, target
        self._arms, self._baseline, self._planned = arms, baseline, planned
        self._card = card
        self._zoo, self._recipes = home / "zoo", home / "recipes"
        self._recipe_folders: dict[str, Path] = {}
        """Arm → where its recipe lies, of those that were fitted here."""
        self._asked = asked
        self._records: ArmRecords  # from its registration on

    @cached_property
    def _machine(self) -> MachineSetup:
        """This machine, which executes it; only a request that is sent to another one never asks.

        Raises:
            UsageError: it lacks the device, or the device's kernels do not know the type of number.
        """
        return machine_for(self._spec, self._target.origin)

    def describe(self) -> dict[str, Any]:
        """What the run takes, for `--dry-run`."""
        arms = len(self._arms) + (self._baseline is None)
        trials = arms * len(self._planned.prompts) * self._spec.repeats
        most = sum(prompt.most_tokens for prompt in self._planned.prompts) * arms * self._spec.repeats
        return {
            "model": self._target.name,
            "arms": ", ".join(self._arms),
            "baseline": self._baseline or "the fastest",
            "tasks": self._planned.name,
            "prompts": len(self._planned.prompts),
            "repeats": self._spec.repeats,
            "trials": trials,
            "most tokens": most,
            "device": self._machine.device,
            "dtype": self._machine.dtype,
        }

    def check_keys(self) -> None:
        """None is needed: the model is on this machine."""

    async def preflight(self) -> None:
        """Fetch a model, or turn it out of GGUF, and see that arms and prompts fit it, as far as configurations tell.

        Raises:
            UsageError: one does not, or what was fitted for it does not, or this machine has no such device.
            UnreachableError: it is on the hub, which does not answer.
        """
        _ = self._machine
        if (checkpoint := self._target.checkpoint) is not None:
            await asyncio.to_thread(checkpoint.fetched)
        folder_of, prompts = folder_of_fitted(self._zoo), self._planned.prompts
        await asyncio.to_thread(check_arms, self._arms, self._target, self._machine.device, prompts, folder_of)

    def check(self, database: Database | None) -> None:
        """Nothing is left to check."""

    def register(
        self,
        database: Database,
        artifacts: Artifacts,
        *,
        ownership: Ownership = THE_OPERATORS,
        force: bool = False,
        run_id: str | None = None,
        elsewhere: bool = False,
    ) -> Registered:
        """Write or find model, tasks, machine, run and arms.

        A run that was sent to whatever machine has what it needs is known by that, and gets its machine when one
        begins it.

        Raises:
            UsageError: trials of another machine are recorded already, with which none of this one can be compared.
        """
        planned, spec = self._planned, self._spec
        with database.write() as session:
            dataset = ensure(
                session,
                tables.Dataset,
                {"fingerprint": fingerprint(["tasks", planned.revision])},
                {"name": planned.name, "revision": planned.revision, "has_audio": False},
            )

            def identity_of(model: ModelIdentity, machine: str) -> str:
                asked = [self._asked, spec.repeats, spec.margin]
                return fingerprint([self._track, dataset.fingerprint, model.fingerprint, machine, *asked])

            machine = None if elsewhere else self._machine
            found = place(session, self._target, spec, machine, run_id, identity_of)
            known = None if found.begins_here else run_id
            model = ensure_model(session, found.model, self._card, owner=ownership.owner, run_id=known)
            values = {
                "track": self._track,
                "dataset_id": dataset.id,
                "method": self._baseline,
                "input_form": "text",
                "repeats": spec.repeats,
                "items": [prompt.name for prompt in planned.prompts],
                "limited": True,
            }
            here = {
                "hardware_id": found.hardware_id,
                "model_id": model.id,
                "manifest": {**manifest(), "seed": spec.seed, "margin": spec.margin},
            }
            run = ensure_run(session, found.identity, values, here, ownership=ownership, force=force, run_id=run_id)
            self._records = ArmRecords(run.id, self._arms, self._baseline)
            self._records.register(session)
            self._planned = planned.named(run.items)
            return Registered(run.id, None)

    def plan(
        self, database: Database, registered: Registered, *, retry_errors: bool, part: slice | None = None
    ) -> Sequence[Measuring]:
        """One session for all that is missing; empty where nothing is.

        A round of a prompt in which some arm is missing is timed again as a whole, for its trials are only compared
        with each other.
        """
        if self._records.baseline is None:
            return [Measuring(())]
        with database.read() as session:
            query = (
                select(tables.Arm.name, tables.Trial.prompt, tables.Trial.repetition)
                .join(tables.Arm)
                .where(tables.Arm.run_id == registered.run_id)
            )
            if retry_errors:
                query = query.where(tables.Trial.unscored_reason.is_(None))
            found = {(name, prompt, repetition) for name, prompt, repetition in session.execute(query)}
        rounds = [
            [(name, prompt.name, repetition) for name in self._records.arms]
            for repetition in range(self._spec.repeats)
            for prompt in self._planned.prompts
        ]
        whole = [trials for trials in rounds if all(trial in found for trial in trials)]
        if len(whole) == len(rounds):
            return []
        return [Measuring(tuple(trial for trials in whole for trial in trials))]

    def is_scored(self, session: Session, registered: Registered) -> bool:
        """Whether every arm has its scores."""
        ended = select(tables.Arm.ended_at).where(tables.Arm.run_id == registered.run_id)
        return all(moment is not None for moment in session.scalars(ended))

    def reopen(self, session: Session, registered: Registered) -> None:
        """Take the arms off the board until they are scored again."""
        for arm in session.scalars(select(tables.Arm).where(tables.Arm.run_id == registered.run_id)):
            arm.ended_at = None

    async def begin(self, items: Sequence[Measuring], bench: Workbench) -> None:
        """Nothing comes before the trials."""

    def spent(self, session: Session, registered: Registered) -> float:
        """Nothing: no call is made."""
        return 0.0

    async def execute(self, item: Measuring, bench: Workbench) -> None:
        """Start the process that measures, and record what it tells."""
        command = [sys.executable, "-m", "vivace.tracks.efficiency.session.child"]
        async with started(command, self._machine.threads) as process:
            job = await asyncio.to_thread(self._job, item)
            await process.send(as_line(job))
            longest = await self._recorded(process, len(item.done), bench)
        wanted = self._target.origin.are_times_real if self._spec.memory is None else self._spec.memory
        if wanted and self._machine.device == "cpu" and longest is not None:
            for name, arm in self._records.arms.items():
                await self._take_memory(name, arm, longest, bench)

    async def _take_memory(self, name: str, arm: Arm, longest: LongestPrompt, bench: Workbench) -> None:
        """The peak memory of one arm at the longest prompt, in a process of its own."""
        checkpoint = self._target.checkpoint
        if checkpoint is not None:
            model = ["--model", str(checkpoint.fetched().absolute())]
        else:
            layers = [] if self._target.layers is None else ["--layers", str(self._target.layers)]
            kind = "--random" if self._target.name in TINY_SHAPES else "--like"
            model = [kind, self._target.name, *layers]
        if name in self._recipe_folders:
            arm = arm.with_recipe(str(self._recipe_folders[name]))
        written = arm.found_by(folder_of_fitted(self._zoo)).label
        command = generate_command(
            written, model, most_tokens=longest.most_tokens, end_tokens=longest.end_tokens,
            dtype=self._machine.dtype, threads=self._machine.threads, seed=self._spec.seed,
        )  # fmt: skip
        async with started(command, self._machine.threads) as process:
            await process.send(",".join(map(str, longest.prompt)) + "\n")
            line = await process.line(bench, may_stop=True)
            if not line:
                bench.say(f"The peak memory of {name} is not known: {await process.death()}")
                return
        peak = json.loads(line)["peak_bytes"]
        await bench.write(lambda session: self._records.record_peak(session, name, peak))

    def _job(self, item: Measuring) -> MeasuringJob:
        checkpoint = self._target.checkpoint
        return MeasuringJob(
            folder=None if checkpoint is None else str(checkpoint.fetched().absolute()),
            random=self._target.name if checkpoint is None else None,
            layers=self._target.layers,
            family=self._track,
            arms={name: arm.label for name, arm in self._records.arms.items()},
            baseline=self._records.baseline,
            prompts=self._planned.prompts,
            repeats=self._spec.repeats,
            device=self._machine.device,
            dtype=self._machine.dtype,
            threads=self._machine.threads,
            seed=self._spec.seed,
            zoo=str(self._zoo.absolute()),
            name=self._target.name,
            tasks=tuple(self._spec.tasks),
            calibration=self._spec.calibration,
            recipes=str(self._recipes.absolute()),
            done=item.done,
        )

    async def _recorded(self, process: MeasuringProcess, recorded: int, bench: Workbench) -> LongestPrompt | None:
        """Record all that the process tells until it has audited; gives its longest prompt.

        Args:
            process: that has its job.
            recorded: trials that are there already.
            bench: of the run.
        """
        longest: LongestPrompt | None = None
        is_timing = False
        while True:
            line = await process.line(bench, may_stop=not is_timing)
            if not line:
                raise VivaceError(await process.death())
            told = read_told(line)
            match told:
                case ProcessFault():
                    raise (UsageError if told.is_expected else VivaceError)(_sentence(told.message))
                case LongestPrompt():
                    longest = told
                    continue
                case StepsDone():
                    bench.say(f"{told.what}: {told.done} of {told.steps} steps")
                    bench.check_stop()
                    continue
                case FittedRecipe():
                    self._recipe_folders[told.arm] = Path(told.folder)
            await bench.write(lambda session, told=told: self._records.record(session, told))  # type: ignore[misc]
            if isinstance(told, Audited):
                return longest
            if isinstance(told, ChosenBaseline | Remark):
                bench.say(told.sentence)
            recorded += isinstance(told, TimedTrial)
            planned = len(self._records.arms) * len(self._planned.prompts) * self._spec.repeats
            is_timing = isinstance(told, TimedTrial) and recorded < planned
            bench.check_stop()

    def score(self, session: Session, registered: Registered) -> None:
        """Compute every arm's scores from the recorded trials."""
        score_run(session, registered.run_id, self._spec.margin)

    def ending(self, session: Session, registered: Registered) -> Ending:
        """Which trials have no result, and why."""
        reason = tables.Trial.unscored_reason
        query = (
            select(tables.Arm.name, reason, func.count())
            .join(tables.Arm, tables.Trial.arm_id == tables.Arm.id)
            .where(tables.Arm.run_id == registered.run_id, reason.is_not(None))
            .group_by(tables.Arm.name, reason)
            .order_by(tables.Arm.name)
        )
        failed = [(str(name), str(why), int(count)) for name, why, count in session.execute(query)]
        if not failed:
            return Ending("every trial is recorded")
        unscored = sum(count for _, _, count in failed)
        listed = "; ".join(f"{count} of {name}: {why}" for name, why, count in failed)
        return Ending(
            f"{unscored} trials have no result ({listed}); the same command with --retry-errors tries them again",
            unscored,
            complete=False,
        )

    async def close(self) -> None:
        """Nothing stays open between sessions."""


def _sentence(message: str) -> str:
    return message if message.endswith((".", "!", "?")) else f"{message}."
