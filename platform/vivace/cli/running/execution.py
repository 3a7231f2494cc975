"""Executing a run from the command line: the spec from flags, progress, Ctrl-C, and the result."""

from __future__ import annotations

import asyncio
import copy
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from vivace.cli.common import Format, print_rows, say
from vivace.cli.tables.arm_table import print_arms
from vivace.cli.tables.board_table import board_table
from vivace.engine.claims.leases import Heartbeat, register_worker
from vivace.engine.execution import StopSignal
from vivace.engine.shards import settle_dead
from vivace.engine.submissions import prepare_run, submit
from vivace.engine.work import execute_submission
from vivace.errors import UsageError, VivaceError
from vivace.machine.memory import give_memory_back
from vivace.output.printable import printable
from vivace.settings import Settings, load_settings
from vivace.spec import RunSpec, assign, is_pairs, parse_spec, parsed_argument, read_spec_file
from vivace.store.artifacts import open_artifacts
from vivace.store.database import Database, DatabaseUnavailableError, redacted
from vivace.store.migrate import open_for_reading, open_for_writing
from vivace.store.queries.board import board
from vivace.store.queries.efficiency import arm_board
from vivace.store.queries.submissions import SubmissionView, submissions
from vivace.store.visibility import Ownership

_FINISHING = b"\nfinishing the calls in flight; press Ctrl-C again to drop them\n"
EXIT_CODES = {"complete": 0, "incomplete": 3, "cancelled": 3, "interrupted": 130}


@dataclass(frozen=True)
class Result:
    """How a run executed here has ended."""

    run_id: str
    judging_id: str | None
    track: str
    exit_code: int
    message: str


def specs_from(config: Path | None, flags: Mapping[str, Any], assignments: list[str] | None) -> list[RunSpec]:
    """The spec of a file, or each spec of a suite, with the flags given laid over it.

    A suite has a list `runs`, each with keys of its own; the keys beside the list are common to all of them.

    Raises:
        UsageError: something in it is wrong.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values = {str(key).replace("_", "-"): value for key, value in read_spec_file(config).items()}
    runs = values.pop("runs", None)
    source = f"'{config}' and the flags" if config else "the command line"
    if runs is None:
        return [spec_from(values, flags, assignments, source)]
    if not isinstance(runs, list) or not runs or not all(isinstance(each, dict) for each in runs):
        raise UsageError(f"'runs' in '{config}' must be a list of specs, each with keys and values.")
    return [
        spec_from(
            {**values, **{str(key).replace("_", "-"): value for key, value in each.items()}},
            flags,
            assignments,
            source,
        )
        for each in runs
    ]


def spec_from(
    values: Mapping[str, Any],
    flags: Mapping[str, Any],
    assignments: list[str] | None = None,
    source: str = "the command line",
) -> RunSpec:
    """The spec of keys and values with flags laid over them; those that are None are not given.

    Raises:
        UsageError: something in it is wrong.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    pairs = {key: given.pop(key) for key in list(given) if is_pairs(key)}
    # Assignments go into mappings that other specs of the suite share.
    laid_over = copy.deepcopy({**values, **given})
    for key, written in pairs.items():
        for pair in written:
            name, equals, text = pair.partition("=")
            if not equals or not name:
                raise UsageError(f"--{key} {pair} is not of the form name=value.")
            laid_over[key] = {**laid_over.get(key, {}), name: parsed_argument(text)}
    for assignment in assignments or []:
        assign(laid_over, assignment)
    return parse_spec(laid_over, source)


def recorded(spec: RunSpec, settings: Settings) -> Result | None:
    """A run that is recorded whole, as it stands; None where something is left to do. No model is asked or loaded."""
    run = prepare_run(spec.with_absolute_paths(), settings)
    database = open_for_writing(settings)
    try:
        ownership = Ownership(private=spec.private)
        registered = run.register(database, open_artifacts(settings), ownership=ownership)
        with database.read() as session:
            is_whole = run.is_scored(session, registered)
        left = run.plan(database, registered, retry_errors=False)
    finally:
        asyncio.run(run.close())
        database.close()
    if left or not is_whole:
        return None
    return Result(registered.run_id, registered.judging_id, spec.track, 0, f"Run {registered.run_id} is recorded.")


def run_here(spec: RunSpec, settings: Settings, *, retry_errors: bool, force: bool) -> Result:
    """Submit a run and execute it in this process, with progress and Ctrl-C."""
    give_memory_back()
    database, run, submission_id = submit(spec, settings, queue=None, force=force)
    settle_dead(database, None)
    worker_id = register_worker(database, [], settings.lease_seconds)
    try:
        with (
            Heartbeat(database, worker_id, settings.lease_seconds) as heartbeat,
            stop_on_ctrl_c() as stop,
            _progress(database, submission_id),
        ):
            outcome = execute_submission(
                submission_id,
                database,
                settings,
                heartbeat,
                stop,
                run=run,
                retry_errors=retry_errors,
                say=say,
            )
    except VivaceError:
        run_id = submissions(database, submission_id)[0].run
        say(f"Run {run_id} has stopped; `vivace logs {run_id}{same_place(settings)}` has its log.")
        raise
    view = submissions(database, submission_id)[0]
    database.close()
    message = f"Run {view.run} {outcome.status}: {outcome.message}."
    return Result(view.run, view.judging, view.track, EXIT_CODES[outcome.status], message)


def print_result(result: Result, settings: Settings, format: Format) -> None:
    """Print the board's row of an ended judging, or those of a run's arms; nothing where it has not ended."""
    database = open_for_reading(settings)
    assert database is not None
    if result.judging_id is None:
        arms = [row.as_json() for row in arm_board(database, run=result.run_id, include_retracted=True)]
        if arms:
            print_arms(arms, format)
        database.close()
        return
    rows = [row.as_json() for row in board(database, include_retracted=True) if row.judging == result.judging_id]
    if rows:
        print_rows(rows, format, board_table(rows))
    database.close()


def say_where(result: Result, settings: Settings) -> None:
    """Say a run's id, and how to look at it."""
    at = same_place(settings)
    if result.exit_code:
        say(f"{result.message} `vivace logs {result.run_id}{at}` has its log.")
        return
    parts = f"breakdown {result.judging_id}" if result.judging_id else f"export {result.run_id}"
    say(
        f"Run {result.run_id} is recorded; look at it with `vivace leaderboard {result.track}{at}`, "
        f"`vivace {parts}{at}`, or `vivace serve{at}` in the browser."
    )


def same_place(settings: Settings) -> str:
    """The flags that another command takes to find the same database; none where they are not needed."""
    usual = load_settings()
    flags = ["--home", str(settings.home)] if settings.home != usual.home else []
    if settings.database is not None and settings.database != usual.database:
        flags += ["--database", redacted(settings.database)]
    return "".join(f" {shlex.quote(flag)}" for flag in flags)


def show_plans(specs: Sequence[RunSpec], settings: Settings, format: Format) -> None:
    """Print what runs would do, without doing or writing anything.

    Raises:
        UsageError: a run cannot be made, or, once all are printed, lacks a key.
    """
    runs = [prepare_run(spec.with_absolute_paths(), settings) for spec in specs]
    plans = [run.describe() for run in runs]
    for rows in [plans] if format in (Format.JSON, Format.CSV) else [[plan] for plan in plans]:
        print_rows(rows, format, {key: lambda row, key=key: str(row[key]) for key in rows[0]})  # type: ignore[misc]
    for run in runs:
        run.check_keys()


@contextmanager
def stop_on_ctrl_c() -> Iterator[StopSignal]:
    """The first Ctrl-C (or SIGTERM) finishes what is in flight, the second aborts."""
    stop = StopSignal()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            stop.abort()
        else:
            # Not through `sys.stderr`: this handler may have interrupted a write to it.
            os.write(2, _FINISHING if stop.is_working else b"\nstopping\n")
            stop.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(database: Database, submission_id: str) -> Iterator[None]:
    """A bar on a terminal, a line every ten seconds elsewhere; both read the store, as `vivace status` does."""
    done = threading.Event()
    watch = _watch_with_bar if sys.stderr.isatty() else _watch_with_lines
    thread = threading.Thread(target=watch, args=(database, submission_id, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch_with_lines(database: Database, submission_id: str, done: threading.Event) -> None:
    while not done.wait(10.0):
        view = _seen(database, submission_id)
        if view is None:
            continue
        if view.unit == "trials":
            say(f"{view.items_done} of {view.items_planned} trials{_failed_trials(view)}{time_left(view)}")
            continue
        say(
            f"{view.items_done} of {view.items_planned} replies, {view.verdicts_done} of "
            f"{view.verdicts_planned} verdicts, {view.errors} failed calls{time_left(view)}"
        )


def _seen(database: Database, submission_id: str) -> SubmissionView | None:
    """How far it is; None while the database is away, which is the run itself to say."""
    try:
        return submissions(database, submission_id)[0]
    except DatabaseUnavailableError:
        return None


def _failed_trials(view: SubmissionView) -> str:
    return f", {view.errors} without a result" if view.errors else ""


def _note(view: SubmissionView) -> str:
    """What stands beside the bar."""
    if view.unit == "trials":
        return f"{view.items_done}/{view.items_planned} trials{_failed_trials(view)}{time_left(view)}"
    return f"{view.verdicts_done}/{view.verdicts_planned} verdicts, {view.errors} failed calls{time_left(view)}"


def _watch_with_bar(database: Database, submission_id: str, done: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True), transient=True,
    ) as progress:  # fmt: skip
        first = _seen(database, submission_id)
        task = progress.add_task(printable(first.model if first is not None else ""), total=None, note="")
        while not done.wait(0.5):
            view = _seen(database, submission_id)
            if view is None:
                continue
            progress.update(
                task,
                total=view.items_planned + view.verdicts_planned,
                completed=view.items_done + view.verdicts_done,
                note=_note(view),
            )


def time_left(view: SubmissionView) -> str:
    """How long a submission will still take, as a clause; empty where that is not known."""
    if (view.items_done, view.verdicts_done) == (view.items_planned, view.verdicts_planned):
        return ", finishing"
    if view.seconds_left is None:
        return ""
    minutes, rest = divmod(round(view.seconds_left), 60)
    return f", about {minutes} min {rest} s left" if minutes else f", about {rest} s left"
