"""Tasks are read from files in the public datasets' columns and in EAGLE's form, and damage is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from vivace.errors import UsageError
from vivace.tasks.registry import TASKS, parse_task, task_class
from vivace.tasks.scores.metrics import METRICS, find_metric

SHARED = Path(__file__).parents[3] / "shared" / "data" / "prompts"

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "2 and 3?", "answer": "2+3=5\n#### 5"},
    "math500": {"problem": "Half of 1?", "answer": "\\frac{1}{2}", "subject": "Algebra"},
    "humaneval": {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n"},
    "cnn_dailymail": {"article": "It rained.", "highlights": "Rain ."},
    "chat_prompts": {"prompt": ["Write a poem.", "Again."], "category": "writing"},
    "ruler": {"index": 0, "input": "x = 1 ...", "outputs": ["a", "b"], "length": 4},
}


def lines(path: Path, *rows: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ROWS)
def test_the_public_columns_are_read_from_lines_and_parquet(name: str, tmp_path: Path) -> None:
    lines(tmp_path / "test.jsonl", ROWS[name])
    parquet.write_table(pa.Table.from_pylist([ROWS[name]]), tmp_path / "test.parquet")
    (from_lines,) = parse_task(f"{name}(path={tmp_path / 'test.jsonl'})").samples(None, 0)
    (from_parquet,) = parse_task(f"{name}(path={tmp_path / 'test.parquet'})").samples(None, 0)
    assert from_lines == from_parquet and from_lines.prompt
    metric = task_class(name).metric
    assert bool(metric) is bool(from_lines.references)
    if metric:
        assert find_metric(metric)(" ".join(from_lines.references), from_lines) == 1.0


def test_the_evidence_of_an_article_is_the_article(tmp_path: Path) -> None:
    (sample,) = parse_task(f"cnn_dailymail(path={lines(tmp_path / 'a.jsonl', ROWS['cnn_dailymail'])})").samples(1, 0)
    (span,) = sample.evidence
    assert sample.prompt[span.start : span.end] == "It rained."


def test_samples_are_shuffled_by_the_seed_and_more_begin_with_the_fewer(tmp_path: Path) -> None:
    lines(tmp_path / "b.jsonl", *({"question": f"{number}?", "answer": "1"} for number in range(20)))
    task = parse_task(f"gsm8k(path={tmp_path})")
    assert task.samples(None, 3)[:7] == task.samples(7, 3) != task.samples(7, 4)
    assert len({sample.id for sample in task.samples(None, 3)}) == 20
    with pytest.raises(UsageError, match="holds 20 samples of gsm8k, not 21"):
        task.samples(21, 0)


def test_a_folders_other_splits_are_left_out(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        lines(tmp_path / f"{name}.jsonl", {"question": f"{name}?", "answer": "1"})
    (sample,) = parse_task(f"gsm8k(path={tmp_path})").samples(None, 0)
    assert sample.prompt.startswith("test")
    (sample,) = parse_task(f"gsm8k(path={tmp_path},split=train)").samples(None, 0)
    assert sample.prompt.startswith("train")
    with pytest.raises(UsageError, match="split dev"):
        parse_task(f"gsm8k(path={tmp_path},split=dev)").samples(None, 0)


def test_an_only_reference_may_be_a_text_and_alpaca_has_an_input(tmp_path: Path) -> None:
    row = {"turns": ["2 and 3?"], "reference": "#### 5"}
    (sample,) = parse_task(f"gsm8k(path={lines(tmp_path / 'one.jsonl', row)})").samples(None, 0)
    assert sample.references == ("#### 5",)
    row = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}
    (sample,) = parse_task(f"chat_prompts(path={lines(tmp_path / 'two.jsonl', row)})").samples(None, 0)
    assert sample.prompt == "Translate.\n\nGuten Tag"


LONGBENCH: dict[str, dict[str, Any]] = {
    "hotpotqa": {"input": "Who?", "context": "Passage 1: {A} Ada.", "answers": ["Ada", "Ada L."], "length": 9000},
    "trec": {"input": "Question: Where?\nType:", "context": "Question: Who?\nType: Human", "answers": ["Place"],
             "all_classes": ["Human", "Place"], "length": 5000},
    "passage_retrieval_en": {"input": "A summary.", "context": "Paragraph 1: A.", "answers": ["Paragraph 1"]},
    "repobench-p": {"input": "def f():\n", "context": "import os\n", "answers": ["    return os.name"], "length": 3},
    "samsum": {"input": "Dialogue: A: hi", "context": "Dialogue: B: ho", "answers": ["A greets."], "length": 3999},
}  # fmt: skip


@pytest.mark.parametrize("subset", LONGBENCH)
def test_longbench_is_asked_and_scored_by_dataset(subset: str, tmp_path: Path) -> None:
    for name, row in LONGBENCH.items():
        lines(tmp_path / f"{name}.jsonl", {**row, "dataset": name, "language": "en", "_id": f"{name}-1"})
    lines(tmp_path / "dureader.jsonl", {"dataset": "dureader"})
    row = LONGBENCH[subset]
    task = parse_task(f"longbench(path={tmp_path},subset={subset})")
    (sample,) = task.samples(None, 0)
    assert sample.id == f"{subset}-1"
    assert row["context"] in sample.prompt and row["input"] in sample.prompt.partition(row["context"])[2]
    expected = {
        "hotpotqa": ("token_f1", 32, "8k words and more"),
        "trec": ("classification", 64, "4k to 8k words"),
        "passage_retrieval_en": ("numbers_share", 32, ""),
        "repobench-p": ("code_line", 64, "under 4k words"),
        "samsum": ("first_line_rouge_l", 128, "under 4k words"),
    }
    assert (task.metric, task.most_tokens, sample.slice) == expected[subset]
    assert find_metric(task.metric)(sample.references[0], sample) == 1.0


def test_the_wording_of_every_longbench_dataset_holds_its_columns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Say which dataset of .* there are narrativeqa, qasper") as named:
        parse_task(f"longbench(path={tmp_path})")
    subsets = str(named.value).partition("there are ")[2].rstrip(".").split(", ")
    assert len(subsets) == 16
    whole = {"gov_report", "multi_news", "passage_count", "lcc"}
    plain = {"trec", "triviaqa", "samsum", "lcc", "repobench-p"}
    for subset in subsets:
        row = {
            "input": "«asked»",
            "context": "«read»",
            "answers": ["1"],
            "all_classes": ["1"],
            "dataset": f"{subset}_e",
        }
        (sample,) = parse_task(f"longbench(path={lines(tmp_path / 'any.jsonl', row)},subset={subset})").samples(
            None, 0
        )
        assert "«read»" in sample.prompt and ("«asked»" in sample.prompt) is (subset not in whole)
        assert "{" not in sample.prompt
        assert sample.plain is (subset in plain) and sample.cuttable


def test_another_dataset_than_the_one_that_is_named_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {**LONGBENCH["hotpotqa"], "dataset": "musique"})
    with pytest.raises(UsageError, match=r"Line 1 of .* has 'musique' and not 'hotpotqa' in 'dataset'"):
        parse_task(f"longbench(path={path},subset=hotpotqa)").samples(None, 0)
    with pytest.raises(UsageError, match=r"None of the files in .* is of what is asked for"):
        parse_task(f"longbench(path={tmp_path},subset=qasper)").samples(None, 0)
    with pytest.raises(UsageError, match="There is no 'dureader' in longbench"):
        parse_task(f"longbench(path={path},subset=dureader)")


def test_halves_of_characters_which_no_tokenizer_takes_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"input": "\\ud83d", "context": "\\u0000\\ud83d\\ude00", "answers": ["\\ude00"], "_id": "\\ud83d"}'
    )
    (sample,) = parse_task(f"longbench(path={path},subset=lcc)").samples(None, 0)
    assert "\ufffd\U0001f600" in sample.prompt
    assert (sample.references, sample.id) == (("\ufffd",), "\ufffd")


def test_a_second_turn_follows_the_first_and_its_reference(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"turns": ["2 and 3?", "And 4?"], "reference": ["5", "9"]},
        {"prompt": ["Write.", "Again."], "category": "writing"},
        {"turns": ["Only one?"]},
    ]
    path = lines(tmp_path / "question.jsonl", *rows)
    samples = parse_task(f"chat_prompts(path={path},turn=second)").samples(None, 0)
    assert {(sample.prompt, sample.slice) for sample in samples} == {
        ("2 and 3?\n\n5\n\nAnd 4?", ""), ("Write.\n\nAgain.", "writing"),
    }  # fmt: skip
    assert len(parse_task(f"chat_prompts(path={path})").samples(None, 0)) == 3
    with pytest.raises(UsageError, match="holds no sample of chat_prompts with these settings"):
        parse_task(f"chat_prompts(path={lines(path, rows[2])},turn=second)").samples(None, 0)


def test_other_bytes_are_another_revision(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", ROWS["gsm8k"])
    before = parse_task(f"gsm8k(path={path})").revision
    assert parse_task(f"gsm8k(path={path})").revision == before
    lines(path, {**ROWS["gsm8k"], "answer": "#### 6"})
    assert parse_task(f"gsm8k(path={path})").revision != before


@pytest.mark.parametrize(
    ("name", "file", "metric"),
    [("gsm8k", "gsm8k", "number"), ("humaneval", "humaneval", ""), ("cnn_dailymail", "sum", "rouge_l"),
     ("chat_prompts", "mt_bench", ""), ("chat_prompts", "alpaca", ""), ("chat_prompts", "qa", "")],
)  # fmt: skip
def test_real_questions_are_read(name: str, file: str, metric: str) -> None:
    path = SHARED / f"{file}.jsonl"
    if not path.exists():
        pytest.skip("the real questions are not here")
    task = parse_task(f"{name}(path={path})")
    samples = task.samples(None, 0)
    assert len(samples) in (79, 80) and task.metric == metric
    assert len({sample.id for sample in samples}) == len(samples)
    if name == "gsm8k":
        assert all(find_metric(metric)(sample.references[0], sample) == 1.0 for sample in samples)
        assert not any(find_metric(metric)("#### 0.123", sample) for sample in samples)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"question": "1?", "answer": "1"}\n{"question": ', "Line 2 of .* is not JSON"),
        ('{"question": "1?"}\n', "Line 1 of .* has no 'answer', which gsm8k needs"),
        ('{"question": null, "answer": "1"}\n', "Line 1 of .* something else than text in 'question'"),
        ('{"question": "1?", "answer": null}\n', "Line 1 of .* something else than text in 'answer'"),
        ('{"turns": []}\n', "Line 1 of .* something else than text in 'turns'"),
        ('{"turns": ["1?"]}\n', "Line 1 of .* has no 'reference'"),
        ('{"question": " ", "answer": "1"}\n', "Line 1 of .* asks nothing"),
        ("[1]\n", "Line 1 of .* is not a JSON object"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_damage_is_named_by_its_line(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(UsageError, match=sentence):
        parse_task(f"gsm8k(path={tmp_path})").samples(None, 0)


def test_what_is_no_data_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_text("no parquet")
    (tmp_path / "f.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for path, sentence in (("e.parquet", "cannot be read"), ("f.jsonl", "cannot be read"),
                           ("empty", "There is no data at"), ("absent", "There is no data at")):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            parse_task(f"gsm8k(path={tmp_path / path})").samples(None, 0)
    with pytest.raises(UsageError, match=r"write gsm8k\(path="):
        parse_task("gsm8k").samples(None, 0)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_itself_and_a_metric_that_exists(name: str) -> None:
    kind = task_class(name)
    assert kind.name == name and kind.most_tokens > 0
    assert kind.metric in {"", *METRICS}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("triviaqa", "There is no task 'triviaqa'; there are sums"),
        ("sums(", "not written as name"),
        ("sums(addition)", "'addition' in .* is not written as setting=value"),
        ("sums(digits=3)", "has no setting 'digits'; it has operation"),
        ("sums(operation=division)", "must be one of addition, subtraction, both, not 'division'"),
        ("code(lines=3)", "it has none"),
        ("stories(people=9)", "one to 8 people, not 9"),
        ("stories(people=0)", "one to 8 people, not 0"),
        ("stories(sentences=0)", "at least one sentence"),
        ("stories(people=2,people=3)", "sets people twice"),
        ("needles(length=28)", "a length of at least 29 words, not 28"),
        pytest.param(
            "needles(length=many)",
            "must be an integer, not 'many'",
            id="needles(length=many)-must be int, and 'many' is not",
        ),
        ("needles(keys=0)", "one to 32 keys, not 0"),
        ("needles(keys=22,hops=3)", "one to 21 keys, not 22"),
        ("needles(hops=5)", "one to 4 hops away, not 5"),
        ("variables(length=36)", "a length of at least 37 words, not 36"),
        ("variables(hops=0)", "one to 8 hops, not 0"),
        ("variables(chains=22)", "one to 21 chains, not 22"),
        ("variables(ask=all)", "must be one of value, trace, names, not 'all'"),
        ("word_counts(length=35)", "a length of at least 36 words, not 35"),
        ("word_counts(words=1)", "must be 2 to 64, not 1"),
        ("word_counts(words=3,top=3)", "must be 1 to 4 and below words, not 3"),
    ],
)
def test_a_wrong_task_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_task(text)


def test_settings_are_read() -> None:
    assert parse_task(" sums(operation=addition) ").settings == {"operation": "addition"}
