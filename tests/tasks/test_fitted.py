"""Samples that fill a length: right by their metric, evidence where it is said to be, and never longer."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Span
from vivace.tasks.fitted.base import FittedTask, largest_that_fits, words_and_signs
from vivace.tasks.fitted.english import MOST_THINGS, things
from vivace.tasks.fitted.haystack import Haystack
from vivace.tasks.fitted.ruler_synth import RulerSynth
from vivace.tasks.registry import parse_task
from vivace.tasks.scores.metrics import score
from vivace.tracks.efficiency.prompts import plan_tasks
from vivace.tracks.efficiency.session.token_prompts import evidence_tokens, fitted_prompts, sample_ids
from vivace_methods.protocol import MethodError

SUBSETS = (
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
    "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2",
)  # fmt: skip
EACH = pytest.mark.parametrize("subset", SUBSETS)
LENGTH = 600


def characters(sample: Sample) -> int:
    """A tokenizer that sees every four characters as one token."""
    return len(sample.prompt + sample.begun) // 4


@EACH
def test_samples_fill_the_length_and_never_more(subset: str) -> None:
    task = RulerSynth(subset, LENGTH)
    for drawn in task.samples(3, seed=1):
        assert words_and_signs(drawn) + task.most_tokens <= LENGTH
        fitted = task.fitted(drawn, characters)
        assert 0.9 * LENGTH < characters(fitted) + task.most_tokens <= LENGTH
        assert fitted.id == drawn.id


@EACH
def test_a_sample_depends_on_its_place_alone(subset: str) -> None:
    task = RulerSynth(subset, LENGTH)
    random.seed(0)
    samples = task.samples(4, seed=3)
    random.seed(1)
    assert task.samples(2, seed=3) == samples[:2]
    assert task.fitted(samples[1], characters) == task.fitted(task.samples(2, seed=3)[1], characters)
    assert len({sample.prompt for sample in samples}) == 4
    assert task.samples(1, seed=4)[0].prompt != samples[0].prompt


@EACH
def test_the_references_are_right_by_the_metric_and_lie_in_the_evidence(subset: str) -> None:
    task = RulerSynth(subset, LENGTH)
    for sample in task.samples(3, seed=0):
        assert score(f"They are {', '.join(sample.references)}.", task.metric, sample) == 1.0
        assert score("", task.metric, sample) == 0.0
        told = " ".join(sample.prompt[span.start : span.end] for span in sample.evidence)
        assert all(reference in told for reference in sample.references)
        assert sample.begun and not any(reference in sample.begun for reference in sample.references)
        assert list(sample.evidence) == sorted(sample.evidence, key=lambda span: span.start)


@pytest.mark.parametrize(("subset", "statements", "asked"), [
    ("niah_single_1", 1, 1), ("niah_multikey_1", 4, 1), ("niah_multivalue", 4, 4), ("niah_multiquery", 4, 4),
])  # fmt: skip
def test_codes_are_found_by_reading_the_statements(subset: str, statements: int, asked: int) -> None:
    (sample,) = RulerSynth(subset, LENGTH).samples(1, seed=5)
    body, _, question = sample.prompt.rstrip().rpartition("\n\n")
    told = re.findall(r"(?:The code|One of the codes) of the ([\w ]+) is (\w+)\.", body)
    assert len(told) == statements
    assert [code for name, code in told if f"the {name}" in question] and len(sample.references) == asked
    assert sorted(code for name, code in told if f"the {name}" in question) == sorted(sample.references)


def test_a_haystack_of_needles_tells_nothing_else_and_every_thing_once() -> None:
    (sample,) = RulerSynth("niah_multikey_2", 2000).samples(1, seed=0)
    told = re.findall(r"The code of the ([\w ]+) is (\d{7})\.", sample.prompt)
    assert len(told) > 100 and len(set(told)) == len(dict(told)) == len(told)
    codes = dict(told)
    assert [codes[name] for name in codes if f"What is the code of the {name}?" in sample.prompt] == [
        *sample.references
    ]


def test_more_things_than_there_are_names_get_a_second_adjective() -> None:
    many = things(random.Random(0), 20_000)
    assert len(set(many)) == 20_000 < MOST_THINGS and all(len(name.split()) == 3 for name in many)


def test_words_that_are_asked_for_are_more_often_in_the_list_than_any_other() -> None:
    for length in (360, 4000):
        (sample,) = RulerSynth("cwe", length).samples(1, seed=0)
        listed = sample.prompt.split("\n\n")[2]
        counts = Counter(re.findall(r"\d+\. (\S+)", listed))
        common = counts.most_common()
        assert {word for word, _ in common[:10]} == set(sample.references)
        assert common[9][1] >= 6 * common[10][1]


@pytest.mark.parametrize("length", [180, 300, 3000])
def test_made_up_words_have_an_order_that_no_luck_decides(length: int) -> None:
    (sample,) = RulerSynth("fwe", length).samples(1, seed=0)
    counts = Counter(sample.prompt.split("\n\n")[1].split()).most_common()
    assert counts[0][0] == "..." and tuple(word for word, _ in counts[1:4]) == sample.references
    assert len({count for _, count in counts[:5]}) == 5


def test_chains_lead_from_the_value_to_each_variable_in_the_order_of_the_text() -> None:
    for sample in RulerSynth("vt", LENGTH).samples(3, seed=0):
        statements = [sample.prompt[span.start : span.end] for span in sample.evidence]
        value = re.search(r"have the value (\d+)\?\n$", sample.prompt)
        assert value
        known = {value[1]}
        for statement in statements:
            found = re.fullmatch(r"Let (\w+) be (\w+)\.", statement)
            assert found and found[2] in known
            known.add(found[1])
        assert known == {value[1], *sample.references}


def test_a_length_that_holds_no_sample_is_refused_with_the_least_that_does() -> None:
    with pytest.raises(UsageError, match=r"takes \d+ tokens with its longest answer of 32, and the length is 40"):
        RulerSynth("niah_single_2", 40).samples(1, seed=0)
    drawn = RulerSynth("niah_single_2", LENGTH).samples(1, seed=0)[0]
    with pytest.raises(UsageError, match="ask for a greater length"):
        RulerSynth("niah_single_2", LENGTH).fitted(drawn, lambda sample: 100 * len(sample.prompt))


@pytest.mark.parametrize("count", [
    lambda size: size, lambda size: 3 * size + 7, lambda size: size**2, lambda size: min(size, 30),
    lambda size: size + 40 * (size % 7 == 0), lambda size: 5,
])  # fmt: skip
def test_the_search_ends_and_what_it_finds_fits(count: Any) -> None:
    tried: list[int] = []

    def write(size: int) -> Sample:
        tried.append(size)
        return Sample(str(size), "", ())

    for room in (5, 6, 99, 1000):
        tried.clear()
        found = largest_that_fits(write, lambda sample: count(int(sample.id)), room)
        assert len(tried) <= 25 and max(tried) <= max(room, 2)
        assert (found is None) == (count(1) > room)
        if found is not None:
            assert count(int(found.id)) <= room
            grows = count(100) == 100 or count(2) == 13
            assert not grows or count(int(found.id) + 1) > room or int(found.id) >= room


def test_needles_go_through_every_depth_of_every_length() -> None:
    task = Haystack(shortest=300, longest=500, lengths=3, depths=5)
    samples = task.samples(15, seed=0)
    assert len({sample.slice for sample in samples}) == 15
    for sample in samples:
        length, depth = map(int, re.findall(r"\d+", sample.slice))
        assert words_and_signs(sample) <= length - task.most_tokens
        (span,) = sample.evidence
        head, _, rest = sample.prompt.partition("\n\n")
        place = (span.start - len(head)) / len(rest)
        assert abs(place - depth / 100) < 0.12


@pytest.mark.parametrize(("text", "said"), [
    ("ruler_synth(subset=niah)", "no subset 'niah': there are niah_single_1"),
    ("ruler_synth(length=0)", "at least 1"),
    ("haystack(depths=0)", "depths of haystack is 1 to"),
    ("haystack(shortest=900,longest=800)", "900 to 800 does not"),
    ("haystack(shortest=800,longest=801,lengths=9)", "no 9 lengths"),
])  # fmt: skip
def test_settings_that_make_no_samples_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_task(text)


@pytest.fixture(scope="module")
def chatting() -> Any:
    """A tokenizer of bytes with a chat template that cuts white space off, as Llama's does."""
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_pairs = Tokenizer(models.BPE(letters, []))
    byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_pairs)
    tokenizer.chat_template = "<user>{{ messages[0]['content'] | trim }}</user><model>"
    return tokenizer


@pytest.mark.parametrize("plain", [False, True])
def test_tokens_of_the_evidence_are_found_behind_a_template(chatting: Any, plain: bool) -> None:
    text = "  Naïve words.\nThe code is 123.\nWhat is it?\n"
    start = text.index("The code")
    sample = Sample("1", text, ("123",), (Span(start, start + 16),), plain=plain, begun="It is")
    ids = sample_ids(sample, chatting)
    found = chatting.convert_ids_to_tokens([ids[place] for place in evidence_tokens(sample, chatting)])
    assert "".join(found).replace("Ġ", " ") == "The code is 123."
    assert "".join(chatting.convert_ids_to_tokens(ids)[-5:]).replace("Ġ", " ") == "It is"


def test_a_template_that_changes_the_text_hides_where_evidence_is(chatting: Any) -> None:
    chatting.chat_template, before = "{{ messages[0]['content'] | upper }}", chatting.chat_template
    with pytest.raises(MethodError, match="cannot be told which tokens hold the evidence"):
        evidence_tokens(Sample("1", "The code is 1.", (), (Span(0, 3),)), chatting)
    chatting.chat_template = before


def test_planned_prompts_are_fitted_once_the_tokenizer_is_known(chatting: Any) -> None:
    planned = plan_tasks(["haystack(shortest=900,longest=1500,lengths=2,depths=2)", "sums"], 2, 0, None).prompts
    fitted = fitted_prompts(planned, chatting)
    assert [prompt.name for prompt in fitted] == [prompt.name for prompt in planned]
    for before, after in zip(planned, fitted, strict=True):
        if before.task == "sums":
            assert after == before
            continue
        length = int(before.sample.slice.split()[0].replace(",", ""))
        assert 0.8 * length < len(sample_ids(after.sample, chatting)) + after.most_tokens <= length
        assert len(after.sample.prompt) < len(before.sample.prompt), "bytes are more than words"
    assert fitted_prompts(planned, None) == planned


def test_every_fitted_task_is_one_of_the_registry() -> None:
    for name in ("ruler_synth", "haystack"):
        assert isinstance(parse_task(name), FittedTask)
