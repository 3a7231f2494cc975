"""What the arms of an efficiency run answer: the samples of its tasks, as prompts with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vivace.machine.manifest import fingerprint
from vivace.tasks.base import Sample, Task
from vivace.tasks.published.files import FileTask
from vivace.tasks.registry import parse_task


@dataclass(frozen=True)
class PlannedPrompt:
    """One sample of one task.

    Attributes:
        name: unique in a run, as trials refer to it.
        task: as it was written.
        metric: by which answers are scored; empty where they are not.
        most_tokens: the longest answer.
        sample: the question with its references.
    """

    name: str
    task: str
    metric: str
    most_tokens: int
    sample: Sample


@dataclass(frozen=True)
class PlannedTasks:
    """The tasks of a run with their prompts.

    Attributes:
        prompts: in the order in which they are asked: the tasks take turns, so that a run that is stopped has some
            of each.
        name: as the board shows them.
        revision: what makes them the same.
    """

    prompts: tuple[PlannedPrompt, ...]
    name: str
    revision: str

    def named(self, names: Sequence[str]) -> PlannedTasks:
        """The same prompts under the names that an earlier run of them gave, which may have found them elsewhere."""
        renamed = (replace(prompt, name=name) for prompt, name in zip(self.prompts, names, strict=True))
        return replace(self, prompts=tuple(renamed))


def plan_tasks(texts: Sequence[str], limit: int, seed: int, most_tokens: int | None) -> PlannedTasks:
    """The samples of some tasks.

    Args:
        texts: tasks as a person writes them.
        limit: samples of each; fewer where there are no more.
        seed: chooses the samples.
        most_tokens: the longest answer; None is each task's own.

    Raises:
        UsageError: an unknown task or setting, the same task twice, data that are missing.
    """
    names = list(dict.fromkeys(text.strip() for text in texts))
    tasks = [parse_task(name) for name in names]
    columns = [
        [
            PlannedPrompt(f"{name}/{sample.id}", name, task.metric, most_tokens or task.most_tokens, sample)
            for sample in _samples(task, limit, seed)
        ]
        for name, task in zip(names, tasks, strict=True)
    ]
    longest = max(map(len, columns))
    prompts = tuple(column[place] for place in range(longest) for column in columns if place < len(column))
    return PlannedTasks(prompts, ", ".join(names), fingerprint(_revisions(tasks, limit, seed, most_tokens)))


def _samples(task: Task, limit: int, seed: int) -> list[Sample]:
    """Of files, as many as there are; generators make as many as they are asked for."""
    return task.samples(None, seed)[:limit] if isinstance(task, FileTask) else task.samples(limit, seed)


def _revisions(tasks: Sequence[Task], limit: int, seed: int, most_tokens: int | None) -> list[Any]:
    return [[task.name, _settings(task), task.revision, limit, seed, most_tokens] for task in tasks]


def _settings(task: Task) -> dict[str, Any]:
    """What counts of a task's settings: not where files lie, for the revision holds what is in them."""
    settings = task.settings
    if isinstance(task, FileTask):
        del settings["path"]
    return settings
