"""Generated samples: right, the same whenever they are made again, and never among what is trained on."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from typing import Literal

import pytest

from vivace.errors import UsageError
from vivace.tasks.generated.base import GeneratedTask, is_held_out
from vivace.tasks.generated.code import Code
from vivace.tasks.generated.json_records import JsonRecords
from vivace.tasks.generated.needles import Needles
from vivace.tasks.generated.several_needles import SeveralNeedles
from vivace.tasks.generated.stories import Stories
from vivace.tasks.generated.sums import Sums
from vivace.tasks.generated.variables import Variables
from vivace.tasks.generated.word_counts import WordCounts
from vivace.tasks.registry import parse_task
from vivace.tasks.scores.metrics import score
from vivace.zoo.training.tokenizer import pieces

TASKS: list[GeneratedTask] = [
    Sums(), Sums("addition"), Sums("subtraction"), Code(), JsonRecords(), Stories(), Needles(64), Needles(64, 3, 2),
    Variables(64), Variables(96, 3, 4, "names"),
    Variables(64, ask="trace"), WordCounts(64), WordCounts(64, 6, "most", 3),
    WordCounts(64, 8, "count"),
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


@pytest.mark.parametrize("settings", [(200, 6, 1, 3), (200, 2, 4, 1), (512, 32, 1, 1), (64, 3, 2, 2)])
def test_several_needles_are_found_by_their_keys_in_the_order_that_is_asked_for(settings: tuple[int, ...]) -> None:
    task = SeveralNeedles(*settings)
    for sample in task.samples(20, seed=0):
        body, _, question = sample.prompt.partition(" ask : ")
        notes = re.findall(r"note : (\w+) (\w+ \w+) \.", body)
        assert len(notes) == task.keys * task.values and len(question.split()) == task.asked
        wanted = [pair for key in question.split() for name, pair in notes if name == key]
        assert sample.references == ("".join(f" {pair} ." for pair in wanted),)
        assert len(sample.prompt.split()) == task.length and len(sample.evidence) == len(wanted)
        assert all(sample.prompt[span.start : span.end].startswith("note : ") for span in sample.evidence)
        assert not is_held_out(task.sample(0, 0, held_out=False).prompt)
        assert len(pieces(sample.references[0])) <= task.most_tokens
    samples = task.samples(9, seed=3)
    assert task.samples(4, seed=3) == samples[:4] and len({sample.prompt for sample in samples}) == 9
    assert score(samples[0].references[0], task.metric, samples[0]) == 1.0


@pytest.mark.parametrize("settings", ["keys=33", "values=0", "asked=5", "keys=4,values=5,asked=3", "length=20"])
def test_several_needles_that_fit_nowhere_are_refused(settings: str) -> None:
    with pytest.raises(UsageError, match="several_needles"):
        parse_task(f"several_needles({settings})")


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


@pytest.mark.parametrize(
    ("task", "most"),
    [
        (Needles(512, 16, 2), 256),
        (Variables(512, 8, 4), 160),
        (Variables(512, 8, 4, "names"), 160),
        (WordCounts(512, 64), 72),
        (WordCounts(512, 8, "count"), 80),
    ],
)
def test_every_word_is_a_token_of_a_small_closed_vocabulary(task: GeneratedTask, most: int) -> None:
    known: set[str] = set()
    for index in range(300):
        sample = task.sample(7, index, held_out=False)
        known.update(pieces(sample.prompt + sample.references[0]))
    assert len(known) < most
    for sample in task.samples(20, seed=0):
        asked, answer = pieces(sample.prompt), pieces(sample.references[0])
        assert len(asked) == task.settings["length"] and {*asked, *answer} <= known
        assert pieces(sample.prompt + sample.references[0]) == [*asked, *answer]


def test_needles_lie_anywhere() -> None:
    slices = Counter(sample.slice for sample in Needles().samples(200, seed=0))
    assert len(slices) == 4 and min(slices.values()) > 20


@pytest.mark.parametrize("hops", [1, 4])
@pytest.mark.parametrize("ask", ["value", "trace", "names"])
def test_variables_hold_what_running_the_assignments_gives(
    hops: int, ask: Literal["value", "trace", "names"]
) -> None:
    for sample in Variables(length=200, chains=3, hops=hops, ask=ask).samples(50, seed=0):
        held: dict[str, str] = {}
        lines: dict[str, str] = {}
        for line, name, value in re.findall(r"(let (\w+) = (\w+|\d \d) \.)", sample.prompt):
            assert name not in held
            held[name] = value if value[0].isdigit() else held[value]
            lines[name] = line
        assert len(held) == 3 * (hops + 1) and len(set(held.values())) == 3
        asked = sample.prompt.rpartition(" : ")[2]
        value = asked if ask == "names" else held[asked]
        names = [name for name in held if held[name] == value]
        answer = {"value": value, "trace": " ".join([*names[-2::-1], value]), "names": " ".join(names)}[ask]
        assert sample.references[0] == f" {answer} ."
        assert ask == "names" or asked == names[-1]
        assert [sample.prompt[span.start : span.end] for span in sample.evidence] == [lines[name] for name in names]


@pytest.mark.parametrize("top", [1, 3])
def test_the_commonest_words_are_named_in_their_order_and_leave_no_doubt(top: int) -> None:
    for sample in WordCounts(length=100, words=10, top=top).samples(50, seed=0):
        counts = Counter(sample.prompt.removeprefix("text : ").removesuffix(" most :").split())
        assert counts.total() == 96
        answer = sample.references[0].split()[:-1]
        assert len(answer) == top
        others = max(count for word, count in counts.items() if word not in answer)
        numbers = [*(counts[word] for word in answer), others]
        assert numbers == sorted(set(numbers), reverse=True)
        shown = [sample.prompt[span.start : span.end] for span in sample.evidence]
        assert Counter(shown) == {word: counts[word] for word in answer}


def test_an_occurrence_is_counted_where_the_evidence_shows_it() -> None:
    for sample in WordCounts(length=200, words=5, ask="count").samples(50, seed=0):
        text, _, asked = sample.prompt.removeprefix("text : ").partition(" count : ")
        assert (
            int("".join(sample.references[0].split()[:-1])) == text.split().count(asked) == len(sample.evidence) > 0
        )
        assert {sample.prompt[span.start : span.end] for span in sample.evidence} == {asked}
