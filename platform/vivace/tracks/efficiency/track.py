"""The efficiency tracks: every arm answers the same prompts in one process, and each trial is recorded as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError, VivaceError
from vivace.files.content_hash import folder_sha256
from vivace.machine.manifest import fingerprint, hardware, manifest
from vivace.spec import EfficiencySpec, RunSpec, read_card
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.records import add_event, ensure, insert, run_ordinal
from vivace.tracks.base import Ending, Import, Registered, Workbench
from vivace.tracks.efficiency.child import Job
from vivace.tracks.efficiency.fitting_texts import find_calibration
from vivace.tracks.efficiency.planned_arms import BASELINES, plan_arms
from vivace.tracks.efficiency.prompts import PlannedTasks, plan_tasks
from vivace.tracks.efficiency.recipes import needs_recipe
from vivace.tracks.efficiency.scoring import score_run
from vivace.tracks.efficiency.targets import Target, find_target, folder_of_fitted
from vivace_methods.arms import Arm
from vivace_methods.models.random import TINY_SHAPES
from vivace_methods.registry import parse_arm
from vivace_methods.timing.floor import Device, Floor
from vivace_methods.timing.memory import generate_command

LONGEST_LINE = 2**26
"""Bytes of what is told of one trial: an answer of many thousand tokens with its times."""
LOOKS_EVERY_S = 0.5
"""How often a wish to stop is looked for while the model is loaded and warmed up."""


@dataclass(frozen=True)
class Measuring:
    """What is left of a run: one session in one process, for pairs are only formed inside of one."""

    done: tuple[tuple[str, str, int], ...]
    """Arm, prompt and repetition of trials that stay."""


@dataclass(frozen=True)
class Machine:
    """Where and how the model runs."""

    device: str
    dtype: str
    threads: int
    details: dict[str, Any]
    """What makes two machines the same for these times."""


class EfficiencyTrack:
    """One of the families of inference methods, which are measured alike."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, spec: RunSpec, home: Path) -> EfficiencyRun:
        """Find model, arms and tasks; nothing is loaded."""
        assert isinstance(spec, EfficiencySpec)
        zoo = home / "zoo"
        target = find_target(spec.model, spec.layers, zoo)
        # How long a small model takes says nothing, nor which baseline is the fastest on it.
        baseline = BASELINES[self.name] if spec.baseline is None and target.adapter == "zoo" else spec.baseline
        arms = plan_arms(self.name, spec.arms, spec.sweep, baseline)
        contents = [_content(name, arm, zoo) for name, arm in arms.items()]
        calibration = None
        if any(map(needs_recipe, arms.values())):
            found = find_calibration(spec.calibration, spec.tasks)
            calibration = found.identity if spec.calibration is not None else None
        planned = plan_tasks(spec.tasks, spec.limit, spec.seed, spec.most_tokens)
        card = read_card(Path(spec.card)) if spec.card else {}
        named = None if baseline is None else next(iter(arms))
        asked = [contents, None if named is None else contents[0][0], *([] if calibration is None else [calibration])]
        return EfficiencyRun(self.name, spec, target, arms, named, asked, planned, _machine(spec), card, home)

    def prepare_import(
        self, data: str, results: Path, model: str, judge_name: str | None, card: Path | None
    ) -> Import:
        """Refuse: times that were taken elsewhere cannot be paired with any of ours."""
        raise UsageError(f"The track {self.name} takes no results from elsewhere: its times are measured here.")


class EfficiencyRun:
    """Arms against each other on one model."""

    def __init__(
        self,
        track: str,
        spec: EfficiencySpec,
        target: Target,
        arms: dict[str, Arm],
        baseline: str | None,
        asked: Any,
        planned: PlannedTasks,
        machine: Machine,
        card: dict[str, Any],
        home: Path,
    ) -> None:
        self._track, self._spec, self._target = track, spec, target
        self._arms, self._baseline, self._planned = arms, baseline, planned
        self._machine, self._card = machine, card
        self._zoo, self._recipes = home / "zoo", home / "recipes"
        self._found: dict[str, Path] = {}
        self._asked = asked
        self._registered: Registered | None = None
        self._arm_ids: dict[str, int] = {}

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
        """Nothing has to be asked: the model is loaded by the process that measures."""

    def check(self, database: Database | None) -> None:
        """Nothing is left to check."""

    def register(
        self, database: Database, artifacts: Artifacts, *, force: bool = False, run_id: str | None = None
    ) -> Registered:
        """Write or find model, tasks, machine, run and arms."""
        identity = self._target.identity({"dtype": self._machine.dtype})
        with database.write() as session:
            model = ensure(
                session,
                tables.Model,
                {"fingerprint": identity.fingerprint},
                {
                    "target": identity.target,
                    "adapter": identity.adapter,
                    "name": identity.name,
                    "address": None,
                    "parameters": identity.parameters,
                },
            )
            for key, value in self._card.items():
                setattr(model, key, str(value) if key == "size" else value)
            dataset = ensure(
                session,
                tables.Dataset,
                {"fingerprint": fingerprint(["tasks", self._planned.revision])},
                {"name": self._planned.name, "revision": self._planned.revision, "has_audio": False},
            )
            machine = ensure(
                session,
                tables.Hardware,
                {"fingerprint": fingerprint(self._machine.details)},
                {"details": self._machine.details},
            )
            run_identity = fingerprint(
                [self._track, dataset.fingerprint, identity.fingerprint, machine.fingerprint, self._asked,
                 self._spec.repeats, self._spec.margin]
            )  # fmt: skip
            ordinal = run_ordinal(session, run_identity, force, run_id)
            run = ensure(
                session,
                tables.Run,
                {"identity": run_identity, "ordinal": ordinal},
                {
                    "id": run_identity[:12] + (f"-{ordinal + 1}" if ordinal else ""),
                    "track": self._track,
                    "dataset_id": dataset.id,
                    "model_id": model.id,
                    "hardware_id": machine.id,
                    "method": self._baseline,
                    "input_form": "text",
                    "repeats": self._spec.repeats,
                    "items": [prompt.name for prompt in self._planned.prompts],
                    "limited": True,
                    "manifest": {**manifest(), "seed": self._spec.seed, "margin": self._spec.margin},
                },
            )
            if run.retracted_at is not None:
                raise UsageError(
                    f"The run {run.id} of this very configuration was retracted ({run.retraction_reason}); use "
                    f"--force for a new run, or bring it back with `vivace retract --undo {run.id}`."
                )
            first = int(self._baseline is None)
            self._take_names(session, run, first)
            self._arm_ids = {
                name: self._arm_row(session, run.id, place, name, arm).id
                for place, (name, arm) in enumerate(self._arms.items(), first)
            }
            self._registered = Registered(run.id, None)
            if self._baseline is None:
                found = session.scalars(select(tables.Arm).filter_by(run_id=run.id, baseline=True)).one_or_none()
                if found is not None:
                    self._adopt(found.name, found.id)
        return self._registered

    def _take_names(self, session: Session, run: tables.Run, first: int) -> None:
        """Call fitted arms and prompts as the run does that was recorded: it may have found them in other places."""
        rows = session.scalars(select(tables.Arm).where(tables.Arm.run_id == run.id))
        recorded = {arm.position: arm.name for arm in rows}
        self._arms = {
            name if arm.fitted is None else recorded.get(place, name): arm
            for place, (name, arm) in enumerate(self._arms.items(), first)
        }
        if self._baseline is not None:
            self._baseline = next(iter(self._arms))
        self._planned = self._planned.named(run.items)

    def _adopt(self, name: str, row_id: int) -> None:
        """Take an arm for the baseline: one that was found to be the fastest, now or before an interruption."""
        self._baseline = name
        self._arms = {name: parse_arm(name), **self._arms}
        self._arm_ids[name] = row_id

    def _arm_row(self, session: Session, run_id: str, place: int, name: str, arm: Arm) -> tables.Arm:
        return ensure(
            session,
            tables.Arm,
            {"run_id": run_id, "name": name},
            {
                "method": arm.method.name,
                "settings": arm.method.settings,
                "fitted": arm.fitted,
                "position": place,
                "baseline": name == self._baseline,
            },
        )

    def plan(self, database: Database, registered: Registered, *, retry_errors: bool) -> Sequence[Measuring]:
        """One session for all that is missing; empty where nothing is.

        A round of a prompt in which some arm is missing is timed again as a whole, for its trials are only compared
        with each other.
        """
        if self._baseline is None:
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
            [(name, prompt.name, repetition) for name in self._arms]
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
        command = [sys.executable, "-m", "vivace.tracks.efficiency.child"]
        async with self._started(command) as (process, errors):
            longest = await self._recorded(process, item, bench, errors)
        wanted = self._target.adapter != "zoo" if self._spec.memory is None else self._spec.memory
        if wanted and self._machine.device == "cpu" and longest is not None:
            for name, arm in self._arms.items():
                await self._take_memory(name, arm, longest, bench)

    async def _take_memory(self, name: str, arm: Arm, longest: dict[str, Any], bench: Workbench) -> None:
        """The peak memory of one arm at the longest prompt, in a process of its own."""
        checkpoint = self._target.checkpoint
        if checkpoint is not None:
            model = ["--model", str(checkpoint.fetched().absolute())]
        else:
            layers = [] if self._target.layers is None else ["--layers", str(self._target.layers)]
            kind = "--random" if self._target.name in TINY_SHAPES else "--like"
            model = [kind, self._target.name, *layers]
        written = arm.method.label
        if name in self._found:
            written += f":{self._found[name]}"
        elif arm.fitted is not None:
            written += f":{folder_of_fitted(self._zoo)(arm.fitted).absolute()}"
        command = generate_command(
            written, model, most_tokens=longest["most_tokens"], end_tokens=longest["end_tokens"],
            dtype=self._machine.dtype, threads=self._machine.threads, seed=self._spec.seed,
        )  # fmt: skip
        async with self._started(command) as (process, errors):
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(ConnectionError):
                process.stdin.write(",".join(map(str, longest["prompt"])).encode() + b"\n")
                await process.stdin.drain()
            line = await self._line(process.stdout, bench, timing=False)
            if not line:
                bench.say(f"The peak memory of {name} is not known: {await self._death(process, errors)}")
                return
        peak = json.loads(line)["peak_bytes"]
        await bench.write(lambda session: self._record(session, {"kind": "memory", "arm": name, "peak_bytes": peak}))

    @contextlib.asynccontextmanager
    async def _started(self, command: list[str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, IO[bytes]]]:
        """A process with a pipe to and from it and a file for its errors; it ends with the context."""
        with tempfile.TemporaryFile() as errors:
            process = await self._process(command, errors)
            try:
                yield process, errors
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _process(self, command: list[str], errors: IO[bytes]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
            # Ctrl-C goes to a whole group of processes, but the first one shall let the trial be finished.
            start_new_session=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(self._machine.threads),
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )

    def _job(self, item: Measuring) -> Job:
        checkpoint = self._target.checkpoint
        return Job(
            folder=None if checkpoint is None else str(checkpoint.fetched().absolute()),
            random=self._target.name if checkpoint is None else None,
            layers=self._target.layers,
            family=self._track,
            arms={name: arm.label for name, arm in self._arms.items()},
            baseline=self._baseline,
            tasks=self._spec.tasks,
            limit=self._spec.limit,
            repeats=self._spec.repeats,
            most_tokens=self._spec.most_tokens,
            device=self._machine.device,
            dtype=self._machine.dtype,
            threads=self._machine.threads,
            seed=self._spec.seed,
            zoo=str(self._zoo.absolute()),
            name=self._target.name,
            calibration=self._spec.calibration,
            recipes=str(self._recipes.absolute()),
            done=list(item.done),
            prompts=[prompt.name for prompt in self._planned.prompts],
        )

    async def _recorded(
        self, process: asyncio.subprocess.Process, item: Measuring, bench: Workbench, errors: IO[bytes]
    ) -> dict[str, Any] | None:
        """Record all that the process tells until it has audited; what the longest prompt is."""
        longest: dict[str, Any] | None = None
        assert process.stdin is not None and process.stdout is not None
        job = await asyncio.to_thread(self._job, item)
        with contextlib.suppress(ConnectionError):  # if it has died, reading says so
            process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
            await process.stdin.drain()
        recorded, timing = len(item.done), False
        while True:
            line = await self._line(process.stdout, bench, timing)
            if not line:
                raise VivaceError(await self._death(process, errors))
            told: dict[str, Any] = json.loads(line)
            if told["kind"] == "fault":
                raise (UsageError if told["expected"] else VivaceError)(_sentence(told["message"]))
            if told["kind"] == "longest":
                longest = told
                continue
            if told["kind"] == "fitting":
                bench.say(f"fitting {told['arm']}: {told['done']} of {told['steps']} steps")
                bench.check_stop()
                continue
            if told["kind"] == "recipe":
                self._found[told["arm"]] = Path(told["folder"])
            await bench.write(lambda session, told=told: self._record(session, told))  # type: ignore[misc]
            if told["kind"] == "audited":
                return longest
            if told["kind"] in ("baseline", "said"):
                bench.say(told["sentence"])
            recorded += told["kind"] == "trial"
            planned = len(self._arms) * len(self._planned.prompts) * self._spec.repeats
            timing = told["kind"] == "trial" and recorded < planned
            bench.check_stop()

    async def _line(self, stream: asyncio.StreamReader, bench: Workbench, timing: bool) -> bytes:
        """The next line; a wish to stop is heard at once while no trial is under way."""
        reading = asyncio.ensure_future(stream.readline())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=LOOKS_EVERY_S)
                if done:
                    return reading.result()
                if not timing:
                    bench.check_stop()
        finally:
            reading.cancel()

    async def _death(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> str:
        status = await process.wait()
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - 4000))
        lines = [line.strip() for line in errors.read().decode("utf-8", "replace").split("\n") if line.strip()]
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit code {status}"
        words = f" ({lines[-1][:300]})" if lines else ""
        hint = ", perhaps for want of memory" if status == -9 else ""
        return (
            f"The process that measured {how}{hint}{words}; what is recorded stays, and the same command goes on "
            "where it stopped."
        )

    def _record(self, session: Session, told: dict[str, Any]) -> None:
        assert self._registered is not None
        if told["kind"] == "trial":
            self._record_trial(session, told)
            return
        if told["kind"] == "said":
            add_event(session, told["sentence"], run_id=self._registered.run_id)
            return
        if told["kind"] == "predictions":
            key = {"arm_id": self._arm_ids[told["arm"]], "prompt": told["prompt"], "repetition": 0}
            trial = session.scalars(select(tables.Trial).filter_by(**key)).one()
            found = {name: value for name, value in told.items() if name not in ("kind", "arm", "prompt")}
            trial.measurements = {**trial.measurements, **found}
            return
        run = session.get_one(tables.Run, self._registered.run_id)
        if told["kind"] == "baseline":
            run.method = told["arm"]
            row = self._arm_row(session, run.id, 0, told["arm"], parse_arm(told["arm"]))
            row.baseline, row.position = True, 0  # it may have been asked for as an arm
            self._adopt(row.name, row.id)
            add_event(session, told["sentence"], run_id=run.id)
            return
        measured = dict(run.measured or {"sessions": []})
        if told["kind"] == "floor":
            measured["floor"] = best_floor(measured.get("floor"), told["floor"])
            measured["kernels"] = told["kernels"]
        elif told["kind"] == "recipe":
            measured["recipes"] = {**measured.get("recipes", {}), told["arm"]: told["recipe"]}
        elif told["kind"] == "memory":
            measured["memory"] = {**measured.get("memory", {}), told["arm"]: told["peak_bytes"]}
        else:
            found = {"session": told["session"], "findings": told["findings"]}
            measured["sessions"] = [*measured["sessions"], found]
            for finding in told["findings"]:
                message = f"{finding['arm']}: {finding['fault']}: {finding['sentence']}"
                add_event(session, message, run_id=run.id, level="warning")
        run.measured = measured

    def _record_trial(self, session: Session, told: dict[str, Any]) -> None:
        trial = told["trial"]
        key = {"arm_id": self._arm_ids[trial["arm"]], "prompt": trial["prompt"], "repetition": trial["repetition"]}
        values = {
            "ttft_s": trial["emitted_s"][0] if trial["emitted_s"] else None,
            "total_s": trial["total_s"],
            "output_tokens": len(trial["tokens"]),
            "measurements": {name: value for name, value in told.items() if name != "kind"},
            "unscored_reason": trial["failure"],
            "created_at": tables.now(),
        }
        statement = insert(session, tables.Trial).values(**key, **values)
        session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))

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


def _content(name: str, arm: Arm, zoo: Path) -> list[str]:
    """What makes it the same arm: the method with its settings, and the content of what was fitted.

    Raises:
        UsageError: what was fitted is not there or cannot be read.
    """
    if arm.fitted is None:
        return [name, arm.label]
    folder = folder_of_fitted(zoo)(arm.fitted)
    try:
        return [arm.method.label, folder_sha256(folder, arm.method.fitted_files)]
    except OSError as error:
        raise UsageError(f"What was fitted in '{folder}' cannot be read ({error.strerror}).") from error


def best_floor(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """What a device did at its best, in this session or in one before: a floor is a lower bound."""
    if before is None:
        return found
    rates = (Floor(**{**each, "device": Device(**each["device"])}) for each in (found, before))
    best = next(rates).best_with(next(rates))
    return {**dataclasses.asdict(best), "flops_per_s": dict(best.flops_per_s)}


def _machine(spec: EfficiencySpec) -> Machine:
    """Where the model will run.

    Raises:
        UsageError: there is no such device, or its kernels do not know the type of number.
    """
    import torch

    cuda = torch.cuda.is_available()
    if spec.device == "cuda" and not cuda:
        raise UsageError("There is no CUDA device on this machine: use --device cpu.")
    device = ("cuda" if cuda else "cpu") if spec.device == "auto" else spec.device
    dtype = ("bfloat16" if device == "cuda" else "float32") if spec.dtype == "auto" else spec.dtype
    if device == "cpu" and dtype == "float16":
        raise UsageError("float16 is not measured on a processor: use --dtype bfloat16 or float32.")
    # Work of microseconds is only delayed by handing it out, and many times so where the machine has other work.
    threads = spec.threads or (1 if spec.model.startswith("zoo:") else os.cpu_count()) or 1
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return Machine(device, dtype, threads, {**hardware(), "device": cast(str, where), "threads": threads})
