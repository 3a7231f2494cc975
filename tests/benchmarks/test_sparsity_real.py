"""The benchmark on the real model, without it: what is resumed, what is counted, and how its rows come about."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import sparsity_real as real
import torch
from report import BenchmarkError, Report

from vivace_methods.decoding.joined import applied
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.registry import parse_method

ITEM = real.Item("qa", "321", torch.tensor([[1, 2]]), most=4)


def filled(path: Path) -> real.Records:
    """Two arms over six windows and six questions; the second is half as good, reads half, and takes 0.8 as long."""
    records = real.Records(path, {"model": "m"})
    for number in range(6):
        window = real.Item("language", str(number), torch.tensor([[1]]), (2, 3))
        question = real.Item("qa", str(number), torch.tensor([[1]]), most=4)
        for arm, worse, share in (("dense", 0.0, 1.0), ("teal", 0.5, 0.5), ("int8", 0.01, 0.5)):
            records.add(arm, window, nats=3.0 + number / 10 + worse, kl=worse)
            score = float(number % 2) if arm != "teal" else 0.0
            records.add(arm, question, text=arm, score=score, bytes=100 * share, seconds=0.04 * (0.6 + 0.4 * share))
    return records


def test_what_was_measured_is_read_again_and_a_cut_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    filled(path)
    with path.open("a") as file:
        file.write('{"arm": "wina", "part": "qa", "it')
    again = real.Records(path, {"model": "m"})
    assert again.of("teal", "qa").keys() == {str(number) for number in range(6)}
    assert not again.has("wina", ITEM)
    again.add("wina", ITEM, text="", score=None, bytes=1, seconds=1)
    assert real.Records(path, {"model": "m"}).has("wina", ITEM)
    # A question that not all arms have answered is no part of a table, and still in the file.
    again.leave_out([ITEM])
    assert not again.has("wina", ITEM) and again.of("teal", "qa").keys() == {str(number) for number in range(6)}
    assert real.Records(path, {"model": "m"}).has("wina", ITEM)


def test_records_of_another_measurement_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "records.jsonl")
    with pytest.raises(BenchmarkError, match="another measurement"):
        real.Records(tmp_path / "records.jsonl", {"model": "other"})


def test_rows_are_paired_and_beside_the_right_baselines(tmp_path: Path) -> None:
    rows = real.rows_of(filled(tmp_path / "records.jsonl"), ["dense", "teal", "int8"], ["qa"])
    found = {(row.arm, row.baseline, row.metric): row for row in rows}
    assert set(found) == {
        ("teal", "dense", "perplexity"), ("teal", "dense", "tpot_s"), ("teal", "dense", "weight_bytes"),
        ("int8", "dense", "perplexity"), ("int8", "dense", "tpot_s"), ("int8", "dense", "weight_bytes"),
        ("int8", "teal", "kl"),
    }  # fmt: skip
    perplexity = found["teal", "dense", "perplexity"]
    assert perplexity.ratio == pytest.approx(math.exp(0.5)) and perplexity.low == pytest.approx(perplexity.high)
    assert found["int8", "teal", "kl"].ratio == pytest.approx(0.02)
    assert found["teal", "dense", "tpot_s"].ratio == pytest.approx(0.8)
    assert found["teal", "dense", "weight_bytes"].ratio == pytest.approx(0.5)
    assert found["teal", "dense", "tpot_s"].floor == pytest.approx(0.5), "the bytes, at the rate of the baseline"


def test_the_table_has_scores_with_paired_differences(tmp_path: Path) -> None:
    records = filled(tmp_path / "records.jsonl")
    dense, teal, _ = real.table_of(records, ["dense", "teal", "int8"], ["qa"])
    assert dense["qa"] == 0.5 and dense["qa_difference"]["value"] == 0.0 and dense["qa_same_text"] == 1.0
    assert teal["qa"] == 0.0 and teal["qa_difference"]["low"] < -0.5 < teal["qa_difference"]["high"]
    assert teal["tokens_a_second"] == pytest.approx(31.25) and teal["megabytes_a_token"] == pytest.approx(5e-5)
    json.dumps(teal)


def test_every_arm_can_be_written_and_dense_is_held_to_transformers() -> None:
    for written in {**real.ARMS, **real.SEARCHED, **real.ABLATION, **real.FEWER}.values():
        parse_method(written)
    for label, name in real.SHIPPED.items():
        assert real.recipe_folder(name).is_dir() and parse_method(label)
    apart = real.Row("language", "dense", "transformers", "perplexity, float32", 1.0002, 1, 1, 2, None, True)
    assert Report("sparsity_real", {}, [apart], real.LIMITS).missed == [apart]


@pytest.mark.parametrize("written", ["dense", "int8", "teal", "r-sparse(ratio=0.9)", "teal(weights=int8)"])
def test_one_pass_predicts_what_decoding_would(written: str, tmp_path: Path) -> None:
    """The same tokens are sparse, and on what the sparse ones before them left in the cache."""
    model = random_model(tiny_configuration("llama"), seed=3)
    drawn = torch.Generator().manual_seed(4)
    method: Any = parse_method(written)
    texts = [torch.randint(199, (1, 24), generator=drawn) for _ in range(8)]
    recipe = method.fit(model, texts) if "recipe" in method.needs else None
    item = real.Item("language", "0", texts[0][:, :12], tuple(texts[0][0, 12:].tolist()))
    with applied(method, shared_copy(model), recipe) as generator:
        decoded = generator.logits(item.request, item.answer)
    assert decoded is not None
    records = real.Records(tmp_path / "records.jsonl", {})
    real.predict("arm", method, recipe, model, [item], records, lambda item: decoded)
    found = records.of("arm", "language")["0"]
    nats = -float(decoded.double().log_softmax(-1)[range(12), list(item.answer)].mean())
    assert found["kl"] < (1e-3 if "int8" in written else 1e-7) and found["nats"] == pytest.approx(nats, rel=1e-3)


def test_articles_without_a_folder_are_long_enough() -> None:
    texts = real.articles(None)
    assert len(texts) >= 2 * real.Size().windows and all(len(text.split()) > real.WINDOW for text in texts)
