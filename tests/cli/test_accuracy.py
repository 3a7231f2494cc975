"""`methods accuracy`: lm-evaluation-harness around a model with a method applied, on tasks that lie here."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from vivace.tasks.generated.sums import Sums

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "lm_eval", "accelerate")):
    pytest.skip("accuracy needs lm-eval: pip install 'vivace[accuracy]'", allow_module_level=True)

import torch

from support.tiny_audio_models import tokenizer
from vivace.tracks.efficiency.accuracy import PAPER_TASKS
from vivace.tracks.efficiency.measured_models import loaded
from vivace.zoo.shipped import folder_of
from vivace_methods.decoding.joined import generator_of
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.registry import parse_method
from vivace_methods.requests import Request

Call = Callable[..., Any]

CHOICE = """\
task: choose_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
target_delimiter: "\\n"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
"""
CONTINUE = """\
task: continue_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: "\\n{{{{answer}}}}"
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
"""
TASKS = "choose_sums,continue_sums"


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    """Sums, each with its answer among wrong ones; two are labelled wrongly, so that not all can be right."""
    samples = list(Sums("addition").samples(12, 1))
    right = [sample.references[0] for sample in samples]
    made = []
    for number, sample in enumerate(samples):
        others = [answer for answer in right if answer != right[number]][:3]
        label = number % 4
        made.append(
            {
                "question": sample.prompt.rstrip(),
                "choices": [*others[:label], right[number], *others[label:]],
                "label": label if number > 1 else 3,
                "answer": right[number],
            }
        )
    return made


@pytest.fixture
def include(tmp_path: Path, documents: list[dict[str, Any]]) -> Path:
    """A folder with two tasks on these documents."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
    (folder / "choice.yaml").write_text(CHOICE.format(data=data), encoding="utf-8")
    (folder / "continue.yaml").write_text(CONTINUE.format(data=data), encoding="utf-8")
    return folder


@pytest.fixture
def measured(call: Call, include: Path) -> Callable[..., dict[tuple[str, str], dict[str, Any]]]:
    """Measure an arm of the zoo's dense model: (task, metric) → its row."""

    def execute(arm: str, *more: object) -> dict[tuple[str, str], dict[str, Any]]:
        tasks = ("--include-path", include, "--tasks", TASKS, "--format", "json")
        done = call("methods", "accuracy", arm, "--model", "zoo:dense", *tasks, *more)
        assert done.code == 0, done.err
        return {(row["task"], row["metric"]): row for row in json.loads(done.out)}

    return execute


@pytest.fixture
def fit(call: Call, tmp_path: Path) -> Callable[[str], Path]:
    """Fit a method to the zoo's dense model."""

    def execute(method: str) -> Path:
        folder = tmp_path / "recipes" / method
        done = call(
            *(
                "methods",
                "fit",
                method,
                "--model",
                "zoo:dense",
                "--calibration",
                "sums",
                "--tokens",
                400,
                "-o",
                folder,
            )
        )
        assert done.code == 0, done.err
        return folder

    return execute


def log_likelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """Of a continuation after a context: the sum over its tokens."""
    before, ids = tokenizer(context)["input_ids"], tokenizer(f"{context}\n{continuation}")["input_ids"]
    assert ids[: len(before)] == before
    with torch.inference_mode():
        told = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(told[place - 1, ids[place]]) for place in range(len(before), len(ids)))


def test_dense_is_what_transformers_computes(
    measured: Callable[..., Any], documents: list[dict[str, Any]], tmp_path: Path
) -> None:
    model, tokenizer = loaded(folder_of("dense", tmp_path), None, None, dtype="float32", device="cpu", seed=1)
    likelihoods = [
        [log_likelihood(model, tokenizer, each["question"], choice) for choice in each["choices"]]
        for each in documents
    ]
    chosen = [max(range(4), key=told.__getitem__) for told in likelihoods]
    right = sum(choice == each["label"] for choice, each in zip(chosen, documents, strict=True)) / len(documents)
    assert 0 < right < 1
    of_right = [log_likelihood(model, tokenizer, each["question"], each["answer"]) for each in documents]

    rows = measured("dense")
    perplexity = rows["continue_sums", "perplexity"]
    assert perplexity["value"] == pytest.approx(math.exp(-sum(of_right) / len(of_right)), rel=1e-4)
    accuracy = rows["choose_sums", "acc"]
    assert accuracy["value"] == pytest.approx(right) and accuracy["n"] == len(documents)
    assert accuracy["stderr"] == pytest.approx(math.sqrt(right * (1 - right) / (len(documents) - 1)))

    batched = measured("dense", "--batch-size", 5)
    assert batched["continue_sums", "perplexity"]["value"] == pytest.approx(perplexity["value"], rel=1e-4)
    assert measured("dense", "--limit", 3)["choose_sums", "acc"]["n"] == 3


def test_a_sparse_arm_is_sparse_where_prompt_says(measured: Callable[..., Any], fit: Callable[[str], Path]) -> None:
    def perplexity(arm: str) -> float:
        value: float = measured(arm)["continue_sums", "perplexity"]["value"]
        return value

    nothing, much = fit("teal(sparsity=0.0)"), fit("teal(sparsity=0.6)")
    dense = perplexity("dense")
    assert perplexity(f"teal(sparsity=0.0,prompt=1.0):{nothing}") == pytest.approx(dense, rel=1e-4)
    last, everything = (perplexity(f"teal(sparsity=0.6,prompt={share}):{much}") for share in (0.1, 1.0))
    assert len({round(each, 3) for each in (dense, last, everything)}) == 3
    assert everything > dense
    assert perplexity("dense") == dense, "nothing of a method stays behind"


def test_rounded_weights_are_measured_without_a_recipe(measured: Callable[..., Any]) -> None:
    dense, rounded = (measured(arm)["continue_sums", "perplexity"]["value"] for arm in ("dense", "int8"))
    assert dense != rounded == pytest.approx(dense, rel=0.05)


@pytest.mark.parametrize(
    ("arm", "more", "reason"),
    [
        ("teal(prompt=0.5)", (), "needs a recipe: write teal(prompt=0.5):FOLDER"),
        ("teal:recipe", (), "nothing would be sparse: set prompt=0.1"),
        ("teal(prompt=0.5):recipe", ("--batch-size", 2), "with --batch-size 1"),
        ("teal(prompt=0.5):recipe", (), "There is no folder 'recipe'"),
        ("teal(prompt=0.5):tasks", (), "There is no recipe in tasks"),
        ("full", (), "full changes no log-likelihoods"),
        ("dense", ("--dtype", "int8"), "--dtype takes"),
        ("dense", ("--tasks", ","), "--tasks names no task"),
        ("dense", ("--tasks", "choose_sums,nonesuch"), "has no task 'nonesuch'"),
        ("dense", ("--tasks", "broken"), "cannot make the task broken: "),
        ("dense", ("--include-path", "nowhere"), "There is no folder 'nowhere'"),
        ("dense", ("--model", "random:llama"), "no tokenizer"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arm: str,
    more: tuple[object, ...],
    reason: str,
    refused: Callable[..., str],
    include: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lm_eval.tasks._index import TaskIndex

    # Of lm-eval's own thousands of files, some: whether all of them are known, the last test sees.
    files = TaskIndex._iter_yaml_files
    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(lambda root: islice(files(root), 100)))
    broken = CHOICE.format(data=include / "nothere.jsonl").replace("choose_sums", "broken")
    (include / "broken.yaml").write_text(broken, encoding="utf-8")
    options = {"--model": "zoo:dense", "--include-path": include, "--tasks": TASKS}
    given = {**options, **dict(zip(more[::2], more[1::2], strict=True))}
    assert reason in refused("methods", "accuracy", arm, *(part for pair in given.items() for part in pair))


def test_a_sparse_model_writes_under_lm_eval_what_it_writes_under_our_loop() -> None:
    """And finds likely what it writes, by the same logits, where every token of a pass has its own mask."""
    from lm_eval.models.huggingface import HFLM

    words = tokenizer()
    configuration = tiny_configuration("llama")
    configuration.vocab_size = len(words)
    model = random_model(configuration, seed=3)
    drawn = torch.Generator().manual_seed(4)
    method = parse_method("r-sparse(ratio=0.9,prompt=1.0)")
    recipe = method.fit(model, [torch.randint(len(words), (1, 24), generator=drawn) for _ in range(4)])
    prompt = words("You are a", return_tensors="pt").input_ids
    dense = model.generate(prompt, do_sample=False, max_new_tokens=8, eos_token_id=None)[
        0, prompt.shape[1] :
    ].tolist()
    ours: list[int] = []
    with method.attach(model, recipe) as attached:
        generator = generator_of(model, {"r-sparse": attached})
        generator.generate(Request(prompt, 8), ours.extend)
        logits = generator.logits(Request(prompt, 8), ours)
        harness = HFLM(pretrained=model, tokenizer=words, device="cpu", batch_size=1)
        found = harness._model_generate(prompt, max_length=prompt.shape[1] + 8, stop=[], eos_token_id=None)
        pairs = [(("", str(each)), prompt[0].tolist(), each) for each in (ours, dense)]
        (likelihood, is_greedy), (_, is_dense_greedy) = harness._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert found[0, prompt.shape[1] :].tolist() == ours != dense
    assert logits is not None
    each = logits.log_softmax(-1)[range(8), ours]
    assert is_greedy and not is_dense_greedy and likelihood == pytest.approx(float(each.sum()), abs=1e-4)


def test_without_lm_eval_its_package_is_asked_for(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "vivace.machine.optional_packages.find_spec", lambda name: None if name == "lm_eval" else found(name)
    )
    said = refused("methods", "accuracy", "dense", "--model", "zoo:dense")
    assert "pip install 'vivace[accuracy]'" in said


@pytest.mark.full  # all of lm-eval's files are read; so they are above, where a task is not among them
def test_lm_eval_has_the_tasks_of_the_paper() -> None:
    from lm_eval.tasks import TaskManager

    assert set(PAPER_TASKS) <= set(TaskManager().all_subtasks)
