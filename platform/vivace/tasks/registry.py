"""The tasks by name, and tasks made from names and settings that a person wrote."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, cast, get_args, get_type_hints

from vivace.errors import UsageError
from vivace.tasks.base import Task
from vivace_methods.suggesting import did_you_mean

TASKS: dict[str, str] = {
    "sums": "vivace.tasks.generated.sums:Sums",
    "code": "vivace.tasks.generated.code:Code",
    "json": "vivace.tasks.generated.json_records:JsonRecords",
    "stories": "vivace.tasks.generated.stories:Stories",
    "needles": "vivace.tasks.generated.needles:Needles",
    "variables": "vivace.tasks.generated.variables:Variables",
    "word_counts": "vivace.tasks.generated.word_counts:WordCounts",
    "gsm8k": "vivace.tasks.published.gsm8k:Gsm8k",
    "math500": "vivace.tasks.published.math500:Math500",
    "humaneval": "vivace.tasks.published.humaneval:HumanEval",
    "cnn_dailymail": "vivace.tasks.published.cnn_dailymail:CnnDailyMail",
    "chat_prompts": "vivace.tasks.published.chat_prompts:ChatPrompts",
    "longbench": "vivace.tasks.published.longbench:LongBench",
    "ruler": "vivace.tasks.published.ruler:Ruler",
    "tokens": "vivace.tasks.generated.tokens:Tokens",
}
"""Name → `module:class`. A new task is one file and one line here."""


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in TASKS:
        raise UsageError(f"There is no task '{name}'{did_you_mean(name, TASKS)}; there are {', '.join(TASKS)}.")
    module, _, kind = TASKS[name].partition(":")
    return cast(type[Task], getattr(import_module(module), kind))


def parse_task(text: str) -> Task:
    """A task from the form in which a person writes it: `code`, `sums(operation=addition)`, `gsm8k(path=FOLDER)`.

    Raises:
        UsageError: not in that form, an unknown task or setting, or a value that the setting cannot take.
    """
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise UsageError(f"'{text}' is not written as name(setting=value,setting=value).")
    kind = task_class(name)
    types = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest[:-1].split(","))):
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"'{part}' in '{text}' is not written as setting=value.")
        if setting not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"The task {name} has no setting '{setting}'{did_you_mean(setting, known)}; {has}.")
        if setting in values:
            raise UsageError(f"'{text}' sets {setting} twice.")
        values[setting] = _value(name, setting, value, types[setting])
    return kind(**values)


def _value(task: str, setting: str, text: str, kind: Any) -> Any:
    choices = get_args(kind)
    if choices:
        if text not in choices:
            raise UsageError(
                f"The setting {setting} of {task} must be one of {', '.join(choices)}, not "
                f"'{text}'{did_you_mean(text, choices)}."
            )
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(f"The setting {setting} of {task} must be {kind.__name__}, and '{text}' is not.") from error
