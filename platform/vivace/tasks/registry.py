"""The tasks by name, and tasks made from names and settings that a person wrote."""

from __future__ import annotations

from vivace.errors import UsageError
from vivace.tasks.base import Task
from vivace_methods.plugins import PluginError, Registry, fault_of_subclass
from vivace_methods.spelling import SpellingError, parse_one, read_settings

TASKS: Registry[type[Task]] = Registry(
    "task",
    "vivace.tasks",
    {
        "sums": "vivace.tasks.generated.sums:Sums",
        "code": "vivace.tasks.generated.code:Code",
        "json": "vivace.tasks.generated.json_records:JsonRecords",
        "stories": "vivace.tasks.generated.stories:Stories",
        "needles": "vivace.tasks.generated.needles:Needles",
        "several_needles": "vivace.tasks.generated.several_needles:SeveralNeedles",
        "variables": "vivace.tasks.generated.variables:Variables",
        "word_counts": "vivace.tasks.generated.word_counts:WordCounts",
        "gsm8k": "vivace.tasks.published.gsm8k:Gsm8k",
        "math500": "vivace.tasks.published.math500:Math500",
        "humaneval": "vivace.tasks.published.humaneval:HumanEval",
        "cnn_dailymail": "vivace.tasks.published.cnn_dailymail:CnnDailyMail",
        "chat_prompts": "vivace.tasks.published.chat_prompts:ChatPrompts",
        "longbench": "vivace.tasks.published.longbench:LongBench",
        "ruler": "vivace.tasks.published.ruler:Ruler",
        "ruler_synth": "vivace.tasks.fitted.ruler_synth:RulerSynth",
        "haystack": "vivace.tasks.fitted.haystack:Haystack",
        "tokens": "vivace.tasks.generated.tokens:Tokens",
    },
    lambda name, made: fault_of_subclass(name, made, Task),
)
"""Name → class. A new task is one file and one line here, or a package with an entry point."""


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        UsageError: there is none of that name, or it cannot be imported.
    """
    try:
        return TASKS[name]
    except PluginError as error:
        raise UsageError(str(error)) from error


def parse_task(text: str) -> Task:
    """A task from the form in which a person writes it: `code`, `sums(operation=addition)`, `gsm8k(path=FOLDER)`.

    Raises:
        UsageError: not in that form, an unknown task or setting, or a value that the setting cannot take.
    """
    try:
        part = parse_one(text)
        kind = task_class(part.name)
        settings = read_settings(kind, part, "task")
    except SpellingError as error:
        raise UsageError(str(error)) from error
    return kind(**settings)
