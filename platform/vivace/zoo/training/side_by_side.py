"""Builds of several zoo models, some at the same time: each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vivace.errors import VivaceError
from vivace.zoo.registry import recipe_class
from vivace.zoo.training.model_build import build

OnModelStep = Callable[[str, int, float], None]
"""Called after each training step with the model's name, the step's number, from 1, and its loss."""


@dataclass(frozen=True)
class _Running:
    process: BaseProcess
    told: Connection


def build_several(
    names: Sequence[str],
    built: Path,
    on_step: OnModelStep,
    *,
    steps: int | None = None,
    seed: int = 0,
    outputs: Mapping[str, Path] | None = None,
    jobs: int = 1,
) -> Generator[tuple[str, Path]]:
    """Build zoo models, each after those among them that it needs, and give name and folder as each is done.

    Whoever breaks it off, or an error in one of them, ends all that are being built; nothing half-made is left.

    Args:
        names: of the zoo.
        built: the folder under which builds are kept.
        on_step: told of each training step.
        steps: of training; None for each recipe's own.
        seed: of the weights and of the training data.
        outputs: where to put models; those without go under `built`.
        jobs: models that are built at the same time. One is built in this process.

    Raises:
        UsageError: as `build` says.
        VivaceError: the weights could not be written, or a process was killed.
    """
    # What others need comes first, or all of them would wait for one at the end.
    waiting = sorted(names, key=lambda name: bool(recipe_class(name).needs))
    folders = dict[str, Path]()
    running: dict[str, _Running] = {}
    try:
        while waiting or running:
            for name in [each for each in waiting if not set(recipe_class(each).needs) & {*waiting, *running}]:
                asked = {
                    "steps": steps,
                    "seed": seed,
                    "given": {each: folders[each] for each in recipe_class(name).needs if each in folders},
                    "output": (outputs or {}).get(name),
                }
                if jobs == 1:
                    waiting.remove(name)
                    folders[name] = build(name, built, _named(on_step, name), **asked)  # type: ignore[arg-type]
                    yield name, folders[name]
                elif len(running) < jobs:
                    waiting.remove(name)
                    running[name] = _started(name, built, asked)
            told = wait([each.told for each in running.values()]) if running else []
            for name in [name for name, each in running.items() if each.told in told]:
                found = _next(name, running[name])
                if isinstance(found, Path):
                    running.pop(name).process.join()
                    folders[name] = found
                    yield name, found
                else:
                    on_step(name, *found)
    finally:
        for each in running.values():
            each.process.terminate()
        for each in running.values():
            each.process.join()


def _named(on_step: OnModelStep, name: str) -> Callable[[int, float], None]:
    return lambda step, loss: on_step(name, step, loss)


def _started(name: str, built: Path, asked: Mapping[str, Any]) -> _Running:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_build_and_tell, args=(theirs, name, built, asked), name=f"build {name}")
    process.start()
    theirs.close()
    return _Running(process, ours)


def _next(name: str, running: _Running) -> Path | tuple[int, float]:
    """What a process says next: a step, or where its model lies."""
    try:
        found = running.told.recv()
    except EOFError:
        running.process.join()
        raise VivaceError(
            f"The process that built {name} was ended (exit code {running.process.exitcode}), as happens where "
            "memory is short; build one after the other with --jobs 1."
        ) from None
    if isinstance(found, BaseException):
        raise found
    told: Path | tuple[int, float] = found
    return told


def _build_and_tell(told: Connection, name: str, built: Path, asked: Mapping[str, Any]) -> None:
    """In a process of its own. An interruption is the parent's to pass on: as a signal that lets it tidy up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        found: Path | BaseException = build(name, built, lambda step, loss: told.send((step, loss)), **asked)
    except Exception as error:
        found = error
    told.send(found)


def _interrupt(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
