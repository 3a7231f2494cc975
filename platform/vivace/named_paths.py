"""The files and folders that are named in targets, transcribers, arms and tasks, changed where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vivace_methods.spelling import Part, SpellingError, parse, write

ChangedPath = Callable[[str, str], str]
"""A spec's key, or `replies` for a model that is a file of them, and a path that stands there → what shall."""


def changed_target(target: str, changed: ChangedPath) -> str:
    """A model with its file or folder, if it is named by one, changed."""
    from vivace.models.registry import adapter_of  # what an adapter can is known where it is

    adapter, _, name = target.partition(":")
    found = adapter_of(adapter)
    if found is None or not name:
        return target
    if found.capabilities.asks_another:
        return f"{adapter}:{changed_target(name, changed)}"
    key = "replies" if found.capabilities.is_recorded else "model"
    return f"{adapter}:{changed(key, name)}" if found.capabilities.may_be_path else target


def changed_transcriber(target: str, key: str, changed: ChangedPath) -> str:
    """A transcriber with its folder, if it is named by one, changed."""
    from vivace.models.adapters.transcription import transcriber_kind

    adapter, _, name = target.partition(":")
    kind = transcriber_kind(target)
    return f"{adapter}:{changed(key, name)}" if name and kind is not None and kind.may_be_path else target


def changed_fitted(arm: str, key: str, changed: ChangedPath) -> str:
    """An arm with the folders of what was fitted for it, if it names any, changed."""
    return _with_paths(arm, lambda part: replace(part, folder=part.folder and changed(key, part.folder)))


def changed_task(task: str, changed: ChangedPath) -> str:
    """A task with the path of its data, if it names one, changed."""

    def with_data(part: Part) -> Part:
        return replace(part, settings={
            setting: changed("tasks", value) if setting == "path" and isinstance(value, str) else value
            for setting, value in part.settings.items()
        })  # fmt: skip

    return _with_paths(task, with_data)


def _with_paths(text: str, changed: Callable[[Part], Part]) -> str:
    try:
        parts = parse(text)
    except SpellingError:
        return text  # whoever looks up its name says what is wrong with it
    found = tuple(map(changed, parts))
    return text if found == parts else write(found)


def absolute_path(path: str) -> str:
    """A path as it is found from anywhere; what is none stays as it is."""
    return str(Path(path).absolute()) if Path(path).exists() else path
