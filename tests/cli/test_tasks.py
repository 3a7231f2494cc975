"""`vivace tasks` prints tasks and samples as data, and refuses in one sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vivace.cli.main import app
from vivace.errors import UsageError
from vivace.tasks.generated.sums import Sums
from vivace.tasks.registry import TASKS


def printed(*arguments: str) -> list[dict[str, object]]:
    """What a command prints as JSON."""
    done = CliRunner().invoke(app, ["tasks", *arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_all_tasks_are_listed() -> None:
    rows = printed("list")
    assert [row["task"] for row in rows] == list(TASKS)
    assert all(row["asks"] for row in rows)


def test_samples_are_shown_as_they_are_put() -> None:
    first, second = printed("show", "sums(operation=addition)", "--samples", "2", "--seed", "4")
    assert first["prompt"] != second["prompt"] and str(first["prompt"]).startswith("Work out ")
    assert printed("show", "sums(operation=addition)", "--samples", "1", "--seed", "4") == [first]


def test_an_unknown_task_is_refused() -> None:
    done = CliRunner().invoke(app, ["tasks", "show", "nothing"])
    assert isinstance(done.exception, UsageError) and "there are sums" in str(done.exception)


def test_a_zoo_model_knows_its_own_texts_better_than_others(tmp_path: Path) -> None:
    samples = Sums().samples(80, seed=5)
    known = [f"{sample.prompt}{sample.references[0]}\n" for sample in samples]
    words = " ".join(known).split(" ")
    random.Random(0).shuffle(words)
    (tmp_path / "known.txt").write_text("".join(known))
    (tmp_path / "mixed.txt").write_text(" ".join(words))
    (one,) = printed("perplexity", str(tmp_path / "known.txt"), "--model", "zoo:dense", "--length", "64")
    (other,) = printed(
        "perplexity", str(tmp_path / "mixed.txt"), "--model", "zoo:dense", "--length", "64", "--limit", "9"
    )
    assert one["tokens"] == 63 * int(str(one["windows"])) and other["windows"] == 9
    assert float(str(one["low"])) < float(str(one["perplexity"])) < float(str(one["high"]))
    assert float(str(one["high"])) < float(str(other["low"]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "gpt"), "'gpt' is no model with a tokenizer"),
        (("--model", "zoo:nothing"), "no zoo model 'nothing'"),
        (("--model", "zoo:dense", "--length", "100000"), "take windows of at most that with --length"),
        (("--model", "zoo:dense", "--length", "64"), "The text has 7 tokens, fewer than one window of 64"),
        (("--model", "zoo:moe-drafter"), "is a drafter and predicts nothing by itself; take zoo:moe"),
    ],
)
def test_a_perplexity_that_cannot_be_had_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Work out 1 + 2.")
    done = CliRunner().invoke(app, ["tasks", "perplexity", str(tmp_path / "short.txt"), *arguments])
    assert isinstance(done.exception, UsageError) and sentence in str(done.exception)
