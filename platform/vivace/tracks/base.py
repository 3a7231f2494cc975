"""What a track is: it prepares a run from its spec, and the run plans, executes and scores its items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from vivace.models.client.cache import ResponseCache
from vivace.models.client.calls import CallRecord
from vivace.spec import RunSpec
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.visibility import THE_OPERATORS, Ownership

Result = TypeVar("Result")


@dataclass(frozen=True)
class Registered:
    """A run's rows in the store."""

    run_id: str
    judging_id: str | None


@dataclass(frozen=True)
class Ending:
    """How a run stands once all that was planned is recorded."""

    message: str
    """In a clause: `every criterion is scored`."""
    unscored: int = 0
    """Criteria or trials without a result."""
    complete: bool = True
    """Whether nothing is left that another try could bring."""


class Workbench(Protocol):
    """What an item needs while it is executed; the engine provides it."""

    @property
    def artifacts(self) -> Artifacts:
        """Files by hash."""
        ...

    @property
    def cache(self) -> ResponseCache | None:
        """Answers given earlier, where they may be taken."""
        ...

    def check_stop(self) -> None:
        """See whether the run goes on.

        Raises:
            StoppedError: it does not.
        """
        ...

    def call_slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for leave to make one call. Record its result before leaving the slot.

        So never more than one result for each slot is unrecorded, and lost when the process is killed.

        Raises:
            StoppedError: the run is being stopped; no new call may start.
        """
        ...

    def note(self, calls: Sequence[CallRecord]) -> None:
        """Count recorded calls against what the run may cost, and against the failures it may see.

        When a limit is reached, no new call starts.
        """
        ...

    def say(self, message: str) -> None:
        """Tell whoever watches the run."""
        ...

    async def write(self, change: Callable[[Session], Result]) -> Result:
        """Make one change in one transaction, if the run is still this process's own.

        Raises:
            LeaseLostError: another process has taken the run over.
        """
        ...


class StoppedError(Exception):
    """An item ended early because the run is being stopped; it stays planned."""


async def finish_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it side by side and to the end, also when one part fails; then raise the first failure.

    What is in flight when something fails or stops is finished and recorded, never thrown away.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in sorted(failures, key=lambda failure: isinstance(failure, StoppedError)):
        raise failure


class Import(Protocol):
    """A run made elsewhere, checked and ready to be recorded."""

    def record(self, database: Database, ownership: Ownership = THE_OPERATORS) -> Registered:
        """Write it; a second time changes nothing."""
        ...


class PreparedRun(Protocol):
    """One run of a track, with its model and judge at hand."""

    def describe(self) -> dict[str, Any]:
        """What the run takes (items, calls, tokens, minutes of audio, cost), for `--dry-run`."""
        ...

    def check_keys(self) -> None:
        """See that model and judge have the keys that they need; nothing is asked.

        Raises:
            UsageError: one is missing.
        """
        ...

    async def preflight(self) -> None:
        """See that model and judge can answer, before anything is written.

        Raises:
            UsageError: a key is missing or refused.
            UnreachableError: nothing answers.
        """
        ...

    def check(self, database: Database | None) -> None:
        """Check what reading the text did not: that the audio of every planned item decodes.

        Raises:
            UsageError: something does not; the item is named.
        """
        ...

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
        """Write the run's own rows, or find them. Doing it twice changes nothing.

        Args:
            ownership: whose a new run is.
            force: a new run beside the one of the same identity.
            run_id: the run it must turn out to be, when it was submitted earlier.
            elsewhere: whether a worker will execute it, on a machine that is not known yet.
        """
        ...

    def plan(
        self, database: Database, registered: Registered, *, retry_errors: bool, part: slice | None = None
    ) -> Sequence[Any]:
        """The work items that are not recorded yet, in a fixed order.

        Args:
            database: of the results.
            registered: the run's rows.
            retry_errors: whether what is recorded as unscored counts as lacking.
            part: of the run's items; None for all.
        """
        ...

    def is_scored(self, session: Session, registered: Registered) -> bool:
        """Whether the summary rows stand for what is recorded."""
        ...

    def reopen(self, session: Session, registered: Registered) -> None:
        """Mark the summary rows as no longer final: something is about to be recorded."""
        ...

    async def begin(self, items: Sequence[Any], bench: Workbench) -> None:
        """Do what comes before the first of these items, and record it."""
        ...

    def spent(self, session: Session, registered: Registered) -> float:
        """US dollars that the run's recorded calls have cost, as far as prices are known."""
        ...

    async def execute(self, item: Any, bench: Workbench) -> None:
        """Do one item, and record each part of it as it ends."""
        ...

    def score(self, session: Session, registered: Registered) -> None:
        """Compute the summary rows from the recorded rows and nothing else."""
        ...

    def ending(self, session: Session, registered: Registered) -> Ending:
        """How the run stands, once all that was planned is recorded."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Track(Protocol):
    """Something that can be measured."""

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        ...

    @property
    def takes_machine_alone(self) -> bool:
        """Whether what it measures are times, which nothing beside it may disturb; such runs are never divided."""
        ...

    def prepare(self, spec: RunSpec, home: Path) -> PreparedRun:
        """Read the data and open model and judge; nothing is written.

        Args:
            spec: what is asked for.
            home: the folder of everything local.

        Raises:
            UsageError: the spec names something that is not there or is wrong.
        """
        ...

    def files_beside(self, key: str, path: Path) -> Sequence[Path]:
        """The files that are read with the one that a spec names under some key, if it is to be read elsewhere."""
        ...

    def prepare_import(
        self, data: str, results: Path, model: str | None, judge_name: str | None, card: Path | None
    ) -> Import:
        """Read and check a run made elsewhere; nothing is written.

        Raises:
            UsageError: the results do not fit the data.
        """
        ...
