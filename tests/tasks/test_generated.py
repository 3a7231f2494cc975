"""Generated samples: right, the same whenever they are made again, and never among what is trained on."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter

import pytest

from vivace.errors import UsageError
from vivace.tasks.code import Code
from vivace.tasks.generated import GeneratedTask, is_held_out
from vivace.tasks.json_records import JsonRecords
from vivace.tasks.metrics import score
from vivace.tasks.needles import Needles
from vivace.tasks.stories import Stories
from vivace.tasks.sums import Sums
from vivace.zoo.tokenizer import pieces

TASKS: list[GeneratedTask] = [
    Sums(), Sums("addition"), Sums("subtraction"), Code(), JsonRecords(), Stories(), Needles(64), Needles(64, 3, 2),
]  # fmt: skip
EACH = pytest.mark.parametrize(
    "task", TASKS, ids=lambda task: "-".join(map(str, [task.name, *task.settings.values()]))
)


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


@EACH
def test_the_reference_is_right_by_the_tasks_metric(task: GeneratedTask) -> None:
    for sample in task.samples(20, seed=0):
        assert score(" ".join(sample.references), task.metric, sample) == 1.0
        assert score("", task.metric, sample) == 0.0


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


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_needles_are_found_by_following_the_statements(hops: int) -> None:
    for sample in Needles(length=200, keys=5, hops=hops).samples(50, seed=0):
        notes = {
            key: values for key, *values in map(str.split, re.findall(r"note : (\w+ \w+ \w+) \.", sample.prompt))
        }
        sets = dict(re.findall(r"set : (\w+) (\w+) \.", sample.prompt))
        assert len(notes) == 5 and len(sets) == 5 * (hops - 1)
        key = sample.prompt.rpartition("ask : ")[2]
        evidence, answer = [], []
        while key in sets:
            evidence.append(f"set : {key} {sets[key]} .")
            key = sets[key]
            answer.append(key)
        evidence.append(f"note : {key} {' '.join(notes[key])} .")
        assert sample.references[0].split() == [*answer, *notes[key], "."]
        assert [sample.prompt[span.start : span.end] for span in sample.evidence] == evidence


def test_needles_are_words_of_a_closed_vocabulary_each_a_token_of_the_zoo() -> None:
    known: set[str] = set()
    for index in range(300):
        sample = Needles(length=300, keys=16, hops=2).sample(7, index, held_out=False)
        known.update(pieces(sample.prompt + sample.references[0]))
    assert len(known) < 256
    for task in (Needles(512, 16), Needles(1024, 16, 2)):
        for sample in task.samples(20, seed=0):
            asked, answer = pieces(sample.prompt), pieces(sample.references[0])
            assert len(asked) == task.length and {*asked, *answer} <= known
            assert pieces(sample.prompt + sample.references[0]) == [*asked, *answer]


def test_needles_lie_anywhere() -> None:
    slices = Counter(sample.slice for sample in Needles().samples(200, seed=0))
    assert len(slices) == 4 and min(slices.values()) > 20
