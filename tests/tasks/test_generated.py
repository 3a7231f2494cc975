"""Generated samples: right, the same whenever they are made again, and never among what is trained on."""

from __future__ import annotations

import ast
import json
import re

import pytest

from vivace.errors import UsageError
from vivace.tasks.code import Code
from vivace.tasks.generated import GeneratedTask, is_held_out
from vivace.tasks.json_records import JsonRecords
from vivace.tasks.stories import Stories
from vivace.tasks.sums import Sums

TASKS: list[GeneratedTask] = [Sums(), Sums("addition"), Sums("subtraction"), Code(), JsonRecords(), Stories()]
EACH = pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{getattr(task, 'operation', '')}")


@EACH
def test_more_samples_begin_with_the_fewer(task: GeneratedTask) -> None:
    assert task.samples(20, seed=3)[:5] == task.samples(5, seed=3)
    assert task.samples(5, seed=3) != task.samples(5, seed=4)


@EACH
def test_what_is_asked_is_never_trained_on(task: GeneratedTask) -> None:
    asked = {sample.prompt for sample in task.samples(200, seed=0)}
    trained = {task.sample(0, index, held_out=False).prompt for index in range(2000)}
    assert not asked & trained
    assert all(map(is_held_out, asked))


@EACH
def test_samples_are_distinguishable_and_fit(task: GeneratedTask) -> None:
    samples = task.samples(200, seed=0)
    assert len({sample.id for sample in samples}) == 200
    assert len({sample.prompt for sample in samples}) > 190


def test_a_count_is_needed() -> None:
    with pytest.raises(UsageError, match="how many"):
        Sums().samples(None, seed=0)


def test_sums_are_right_line_by_line() -> None:
    for sample in Sums().samples(300, seed=0):
        (span,) = sample.evidence
        first, sign, second = sample.prompt[span.start : span.end].split()
        result = int(first) + int(second) if sign == "+" else int(first) - int(second)
        *columns, last = sample.references[0].splitlines()
        assert int(last.partition(": ")[2]) == result
        assert len(columns) == 3
        for place, column in enumerate(columns):
            equation = re.findall(r"[0-9 +-]+ = [0-9]+", column)
            assert len(equation) == 1
            left, _, right = equation[0].partition(" = ")
            assert sum(int(part.replace(" ", "")) for part in re.findall(r"[+-]? ?[0-9]+", left)) == int(right)
            assert result // 10**place % 10 == int(right) % 10
            assert (" < 0" in column) == ("borrow" in column)


def test_code_is_python_with_the_names_of_its_prompt() -> None:
    for sample in Code().samples(200, seed=0):
        (function,) = ast.parse(sample.references[0]).body
        assert isinstance(function, ast.FunctionDef)
        assert f" {function.name} " in sample.prompt
        assert function.args.args[0].arg in sample.prompt
        assert isinstance(function.body[-1], ast.Return)


def test_json_holds_what_the_prompt_lists() -> None:
    for sample in JsonRecords().samples(200, seed=0):
        record = json.loads(sample.references[0])
        assert 3 <= len(record) <= 5
        listed = sample.prompt.partition(": ")[2].rstrip(".\n").split(", ")
        for entry, (field, value) in zip(listed, record.items(), strict=True):
            spoken = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            assert entry == f"{field} {spoken}"


def test_a_storys_evidence_is_its_persons_last_move() -> None:
    for sample in Stories(sentences=12, people=4).samples(200, seed=0):
        (span,) = sample.evidence
        answer = re.fullmatch(r"(\w+) is in the (\w+)\.", sample.references[0])
        assert answer
        person, place = answer.groups()
        evidence = sample.prompt[span.start : span.end]
        assert evidence.startswith(person) and evidence.endswith(f"to the {place}.")
        assert person not in sample.prompt[span.end :].partition("\n")[0]
        assert f"Where is {person}?" in sample.prompt
