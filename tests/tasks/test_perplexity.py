"""Perplexity and divergence agree with what they are by definition, and texts are read and cut without loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vivace.errors import UsageError
from vivace.tasks.perplexity import Perplexity, divergence, divergences, perplexity, read_text, windows
from vivace.zoo.training.tokenizer import vocabulary, word_tokenizer

TEXT = "one two three . four five six . " * 200
WORDS = vocabulary([TEXT])


def model(seed: int = 0, *, even: bool = False) -> Any:
    """A tiny random model; one that holds all words for equally likely where it is to be even."""
    torch.manual_seed(seed)
    configuration = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.5,
    )  # fmt: skip
    made = LlamaForCausalLM(configuration).eval()
    if even:
        made.lm_head.weight.data.zero_()
    return made


def test_a_window_costs_what_the_models_own_loss_says() -> None:
    cut = windows(TEXT, word_tokenizer(WORDS), 300)  # longer than what is held in double precision at once
    found = perplexity(model(), cut)
    assert found.tokens == (299,) * len(cut) and len(cut) == 5
    for window, nats in zip(cut, found.nats, strict=True):
        ids = torch.tensor([window])
        with torch.no_grad():
            loss = float(model()(ids, labels=ids).loss)
        assert nats / 299 == pytest.approx(loss, rel=1e-5)
    assert found.value == pytest.approx(math.exp(sum(found.nats) / sum(found.tokens)))


def test_a_model_without_an_opinion_is_as_perplexed_as_it_has_words() -> None:
    found = perplexity(model(even=True), [[5, 6, 7], [5, 6, 7, 8, 9]])
    assert found.tokens == (2, 4)
    assert found.value == pytest.approx(len(WORDS), rel=1e-12)


def test_windows_of_unlike_lengths_count_by_their_tokens() -> None:
    assert Perplexity((1.0, 8.0), (1, 2)).value == pytest.approx(math.exp(3))
    assert Perplexity((math.inf,), (3,)).value == math.inf
    assert Perplexity((1e6,), (1,)).value == math.inf


def test_windows_follow_each_other_and_the_rest_is_dropped() -> None:
    tokenizer = word_tokenizer(WORDS)
    whole = tokenizer(TEXT)["input_ids"]
    cut = windows(TEXT, tokenizer, 64)
    assert [token for window in cut for token in window] == whole[: len(whole) // 64 * 64]
    assert sum(window.count(tokenizer.bos_token_id) for window in cut) == 1
    assert windows(TEXT, tokenizer, len(whole)) == [whole]
    with pytest.raises(UsageError, match=f"{len(whole)} tokens, fewer than one window of {len(whole) + 1}"):
        windows(TEXT, tokenizer, len(whole) + 1)
    with pytest.raises(UsageError, match="at least 2 tokens"):
        windows(TEXT, tokenizer, 1)


def test_a_divergence_is_the_textbooks() -> None:
    expected, found = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
    assert float(divergence(expected.log(), found.log() + 3.0)) == pytest.approx(0.25 * math.log(2), rel=1e-6)
    sure = torch.tensor([1.0, 0.0, 0.0])
    assert float(divergence(sure.log(), found.log())) == pytest.approx(math.log(4), rel=1e-6)
    assert float(divergence(found.log(), sure.log())) == math.inf
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert divergence(logits, logits).tolist() == [[0.0] * 5] * 3


def test_two_models_diverge_after_each_token_and_a_copy_never() -> None:
    window = windows(TEXT, word_tokenizer(WORDS), 300)[0]
    assert divergences(model(), model(), window) == [0.0] * 300
    found = divergences(model(), model(1), window)
    assert len(found) == 300 and min(found) > 0
    with torch.no_grad():
        shares, others = (made(torch.tensor([window])).logits[0].softmax(-1) for made in (model(), model(1)))
    place = 270
    by_hand = sum(p * math.log(p / q) for p, q in zip(shares[place].tolist(), others[place].tolist(), strict=True))
    assert found[place] == pytest.approx(by_hand, rel=1e-4)


def test_a_text_is_read_from_each_kind_of_file(tmp_path: Path) -> None:
    rows = [{"text": "One."}, {"text": ""}, {"text": "Two."}]
    (tmp_path / "plain.txt").write_text("One.\n\n\n\nTwo.")
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test-0.parquet")
    for name in ("plain.txt", "test.jsonl", "test-0.parquet"):
        assert read_text(str(tmp_path / name)) == "One.\n\n\n\nTwo."
    (tmp_path / "train.jsonl").write_text('{"text": "Other."}\n')
    assert read_text(str(tmp_path)) == "One.\n\n\n\nTwo.\n\nOne.\n\n\n\nTwo."
    assert read_text(str(tmp_path), "train") == "Other."


def test_what_holds_no_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    sentences = {
        "a.jsonl": "Line 1 of .* has no 'text', which perplexity needs",
        "b.txt": "cannot be read",
        "c.txt": "cannot be read",
        "d": "There is no data",
    }
    for name, sentence in sentences.items():
        with pytest.raises(UsageError, match=sentence):
            read_text(str(tmp_path / name))
