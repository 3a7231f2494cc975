"""Executing a prepared run under its lease: bounded calls side by side, every result committed as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from vivace.engine.claims.leases import Lease
from vivace.engine.claims.quotas import SharedQuotas
from vivace.engine.shards import locked, open_run
from vivace.errors import IncompleteError, LeaseLostError
from vivace.models.client.cache import ResponseCache
from vivace.models.client.calls import CallRecord
from vivace.models.client.pacing import rates_are_shared, waits_end_by
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.tracks.base import PreparedRun, Registered, StoppedError, finish_all

Result = TypeVar("Result")


class StopSignal:
    """A wish to stop, from a signal handler or another thread: first gently, then at once.

    Plain flags and no lock: a signal handler may interrupt the very code that holds one.
    """

    def __init__(self, parent: StopSignal | None = None) -> None:
        self._requested = False
        self._abort: Callable[[], None] | None = None
        self._parent = parent
        self._aborted = False

    @property
    def requested(self) -> bool:
        """Whether no new call may start."""
        return self._requested or (self._parent is not None and self._parent.requested)

    @property
    def is_working(self) -> bool:
        """Whether something is in flight that would be finished or dropped."""
        return self._abort is not None

    def request(self) -> None:
        """Finish what is in flight, and start nothing new."""
        self._requested = True

    def abort(self) -> None:
        """Drop what is in flight, too."""
        self._requested = True
        self._aborted = True
        if self._abort is not None:
            self._abort()

    def on_abort(self, action: Callable[[], None] | None) -> None:
        """What drops the work in flight."""
        self._abort = action
        if self._parent is not None:
            self._parent.on_abort(action)
        if self._aborted and action is not None:
            action()

    def follower(self) -> StopSignal:
        """A signal for one piece of work: it follows this one, but its own stop does not reach this one."""
        return StopSignal(self)


@dataclass
class RunLimits:
    """What one execution may cost and how often its calls may fail, and how much of that is used up."""

    max_cost: float | None = None
    """US dollars, of all of the run's calls, those of earlier executions too."""
    max_errors: int | None = None
    """Calls that fail in this execution, after all their tries."""
    cost: float = 0.0
    errors: int = 0

    def note(self, calls: Sequence[CallRecord]) -> None:
        """Count what calls took: every try costs, and what the last one brought is how it ended."""
        self.cost += sum(call.cost_usd or 0.0 for call in calls)
        self.errors += bool(calls) and calls[-1].error is not None

    @property
    def reached(self) -> str | None:
        """The limit that is used up, in a sentence; None while there is room."""
        if self.max_cost is not None and self.cost >= self.max_cost:
            return (
                f"Stopped at the cost cap: the run's calls have cost ${self.cost:.4f} of ${self.max_cost:g}; what is "
                "recorded stays, and the same command with a higher --max-cost goes on."
            )
        if self.max_errors is not None and self.errors >= self.max_errors:
            return (
                f"Stopped after {self.errors} failed calls (--max-errors {self.max_errors}); `vivace logs` has them. "
                "What is recorded stays, and the same command goes on; --retry-errors also tries the failed ones "
                "again."
            )
        return None


class Bench:
    """The workbench of one execution: call slots, fenced writes in one thread, and the limits."""

    def __init__(
        self,
        lease: Lease,
        artifacts: Artifacts,
        concurrency: int,
        stop: StopSignal,
        limits: RunLimits,
        say: Callable[[str], None],
        cache: ResponseCache | None = None,
        shared: SharedQuotas | None = None,
    ) -> None:
        self._shared = shared
        self._has_failed = False
        self.artifacts = artifacts
        self.cache = cache
        self.say = say
        self._limits = limits
        self._lease = lease
        self._stop = stop
        self._slots = asyncio.Semaphore(concurrency)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    @asynccontextmanager
    async def call_slot(self) -> AsyncIterator[None]:
        """Leave for one call, while the run goes on and is ours."""
        async with self._slots:
            self.check_stop()
            if not self._lease.is_fresh and not await self._in_writer(self._lease.still_held):
                raise LeaseLostError(f"Run {self._lease.run_id} was taken over by another process.")
            await self._keep_limits_of_all()
            yield

    async def _keep_limits_of_all(self) -> None:
        """Wait until another call is within the limits that hold over all workers of the run together.

        Raises:
            StoppedError: a limit is reached.
        """
        shared, limits = self._shared, self._limits
        if shared is None:
            return
        if limits.max_errors is not None and self._has_failed:
            self._has_failed = False
            limits.errors = await shared.errors_of(self._lease.submission_id)
        if limits.max_cost is not None:
            while wait_s := await shared.take_budget(limits.max_cost):
                self.check_stop()
                await asyncio.sleep(wait_s)
            if wait_s is None:
                limits.cost = max(limits.cost, limits.max_cost)
        if limits.reached:
            self._stop.request()
        self.check_stop()

    def check_stop(self) -> None:
        """See whether the run goes on.

        Raises:
            StoppedError: it does not.
        """
        if self._lease.cancel_requested:
            self._stop.request()
        if self._stop.requested:
            raise StoppedError

    def note(self, calls: Sequence[CallRecord]) -> None:
        """Count calls; at a limit nothing new starts."""
        self._limits.note(calls)
        if self._shared is not None:
            self._shared.spend(sum(call.cost_usd or 0.0 for call in calls))
            self._has_failed = self._has_failed or any(call.error is not None for call in calls)
        if self._limits.reached:
            self._stop.request()

    async def write(
        self, change: Callable[[Session], Result], *, after: Callable[[Session], object] = lambda session: None
    ) -> Result:
        """One fenced transaction, off the event loop; `after` locks what is locked before the shard."""

        def transaction() -> Result:
            with self._lease.write(after=after) as session:
                return change(session)

        return await self._in_writer(transaction)

    async def _in_writer(self, work: Callable[[], Result]) -> Result:
        # Shielded: a write that has begun is finished even when the work around it is dropped.
        future = asyncio.get_running_loop().run_in_executor(self._writer, work)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Wait for the last write."""
        self._writer.shutdown(wait=True)


async def execute(
    run: PreparedRun,
    registered: Registered,
    database: Database,
    artifacts: Artifacts,
    lease: Lease,
    *,
    part: slice | None = None,
    is_opened: bool = False,
    concurrency: int,
    retry_errors: bool,
    stop: StopSignal,
    limits: RunLimits | None = None,
    say: Callable[[str], None] = lambda message: None,
    cache: ResponseCache | None = None,
    shared: SharedQuotas | None = None,
) -> bool:
    """Execute what a run, or a part of it, lacks.

    The first item goes alone, and before it whatever comes once for a run: a wrong key or model name is found out for
    the price of one call. Only then may other parts begin.

    Args:
        run: as it was prepared.
        registered: its rows.
        database: of the results.
        artifacts: files by hash.
        lease: that writes need.
        part: of the run's items; None for all.
        is_opened: whether the first item has gone well, in this part or another.
        concurrency: calls at a time.
        retry_errors: try again what is recorded as unscored.
        stop: ends it.
        limits: of cost and failures.
        say: told what whoever watches should know.
        cache: of answers given earlier.
        shared: quotas that hold over all workers of the run together; None where there is one worker.

    Returns:
        Whether every planned item is recorded.

    Raises:
        UsageError, UnreachableError: no further call can succeed; what is in flight is finished first.
        IncompleteError: a limit is reached.
        LeaseLostError: another process has taken the run over.
    """
    stop = stop.follower()  # the first failure stops this run, and only this run
    # What opens a run may be any of its items; the part itself is planned once that is recorded.
    plan = list(run.plan(database, registered, retry_errors=retry_errors, part=part if is_opened else None))
    limits = limits or RunLimits()
    with database.read() as session:
        limits.cost += run.spent(session, registered)
    if plan and limits.reached:
        raise IncompleteError(limits.reached)
    bench = Bench(lease, artifacts, concurrency, stop, limits, say, cache, shared)
    working = asyncio.Semaphore(concurrency)
    stop.on_abort(_what_drops_this_task())
    try:
        if not plan and part is None and await bench.write(lambda session: run.is_scored(session, registered)):
            return True
        if not is_opened:
            # Killed between here and the score, the run would otherwise show figures of before.
            await bench.write(lambda session: run.reopen(session, registered))
        # A pause that a provider asks for holds up no stop.
        with waits_end_by(bench.check_stop, bench.say), rates_are_shared(shared):
            if not is_opened:
                await run.begin(plan, bench)
                await finish_all(_one(run, item, bench, working, stop) for item in plan[:1])
                submission_id = lease.submission_id
                await bench.write(
                    lambda session: open_run(session, submission_id),
                    after=lambda session: locked(session, submission_id),
                )
                rest = plan[1:]
                if part is not None:
                    rest = list(run.plan(database, registered, retry_errors=retry_errors, part=part))
                plan = rest
            await finish_all(_one(run, item, bench, working, stop) for item in plan)
    except StoppedError:
        if limits.reached:
            raise IncompleteError(limits.reached) from None
        return False
    finally:
        stop.on_abort(None)
        bench.close()
    return True


def _what_drops_this_task() -> Callable[[], None]:
    """A function that cancels the task that is under way now, from whichever thread it is called."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def drop_everything() -> None:
        loop.call_soon_threadsafe(task.cancel)

    return drop_everything


async def _one(run: PreparedRun, item: Any, bench: Bench, working: asyncio.Semaphore, stop: StopSignal) -> None:
    """Execute one item when its turn has come; its failure stops the others."""
    async with working:
        if stop.requested:
            raise StoppedError
        try:
            await run.execute(item, bench)
        except StoppedError:
            raise
        except BaseException:
            stop.request()
            raise
