"""Draft models and lookup: what they draft, that the target's own tokens are written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from vivace_methods.decoding.joined import applied
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.speculation.draft_model import DraftModel
from vivace_methods.speculation.drafters.lookup import _Drafting

KINDS = ("llama", "olmoe", "qwen3_moe", "mixtral", "gpt_oss", "mistral")


def model_of(kind: str, seed: int = 0, **more: Any) -> Any:
    shape = tiny_configuration(kind).to_dict()
    if shape.get("sliding_window"):
        more = {"sliding_window": 7, **more}
    return random_model(AutoConfig.for_model(**{**shape, **more}), seed=seed)


def prompt_of(length: int) -> torch.Tensor:
    return torch.randint(199, (1, length), generator=torch.Generator().manual_seed(length))


def answered(model: Any, method: str, fitted: Any = None, most: int = 16, ids: Any = None) -> tuple[list[int], Any]:
    tokens: list[int] = []
    with applied(parse_method(method), model, fitted) as generator:
        trace = generator.generate(Request(prompt_of(12) if ids is None else ids, most), tokens.extend)
        assert trace.passes
    return tokens, trace


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft", ["llama", "gpt_oss"])
def test_a_draft_model_changes_no_token(kind: str, draft: str) -> None:
    model = model_of(kind)
    plain, _ = answered(model, "autoregressive")
    small = model_of(draft, seed=1, num_hidden_layers=1, layer_types=None)
    for method in ("draft-model(depth=4)", *(["draft-model(depth=3,tokens=9)"] if draft == "llama" else [])):
        assert answered(model, method, small)[0] == plain


@pytest.mark.parametrize("method", ["draft-model(depth=3)", "draft-model(depth=3,tokens=8,top_k=2)"])
def test_what_the_target_itself_drafts_stands(method: str) -> None:
    """A position that is off by one, or a cache that keeps a rejected draft, would be seen here."""
    model = model_of("llama")
    _, trace = answered(model, method, model_of("llama"), most=17)
    assert trace.figures["acceptance_lengths"] == [4] * 4
    assert {one.kind for one in trace.passes} == {"read", "draft", "verify"}
    windowed = model_of("mistral")
    if "tokens" not in method:
        _, trace = answered(windowed, method, model_of("mistral"), most=17)
        assert trace.figures["acceptance_lengths"] == [4] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_lookup_changes_no_token(kind: str) -> None:
    model = model_of(kind)
    ids = torch.cat([prompt_of(9)] * 2, 1)
    assert answered(model, "prompt-lookup(depth=4)", ids=ids)[0] == answered(model, "autoregressive", ids=ids)[0]


def test_lookup_drafts_what_followed_the_longest_match() -> None:
    drafting = _Drafting(longest=2)
    drafting.stands(torch.tensor([[1, 2, 3, 4, 9, 2, 3, 5, 1]]), {})

    def drafted(root: int, most: int) -> list[int]:
        tree: Tree = drafting.draft(torch.tensor([[root]]), most)
        assert tree.is_chain and tree.tokens[0, 0] == root
        return tree.tokens[0, 1:].tolist()

    assert drafted(2, 3) == [3, 4, 9], "1 2 stood at the beginning, though 2 alone came later again"
    assert drafted(3, 7) == [5, 1, 3, 5, 1, 3, 5], "3 alone stood last before 5, and then it goes round"
    assert drafted(8, 3) == []
    drafting.stands(torch.tensor([[8]]), {})
    assert drafted(8, 2) == [8, 8]


def test_lookup_writes_repetitions_in_few_passes() -> None:
    """A model that writes one token for ever."""
    model = model_of("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    _, trace = answered(model, "prompt-lookup(depth=5)", most=20)
    assert trace.figures["tau"] > 3 and trace.figures["drafter_weights"] == 0


def saved(model: Any, folder: Path, words: list[str] | None) -> Path:
    folder.mkdir()
    model.save_pretrained(folder)
    if words is not None:
        written = {"model": {"vocab": {word: place for place, word in enumerate(words)}}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(written))
    return folder


def test_a_draft_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    target = model_of("llama")
    target.config._name_or_path = str(saved(target, tmp_path / "target", ["a", "b"]))
    other = saved(model_of("llama", seed=1), tmp_path / "other", ["b", "a"])
    with pytest.raises(MethodError, match="has another vocabulary than the llama it is to draft for"):
        DraftModel().read_fitted(other, target)
    with pytest.raises(MethodError, match="has another vocabulary than the llama"):  # before any weight is read
        DraftModel().check_fitted(other, target.config)
    alike = DraftModel().read_fitted(saved(model_of("llama", seed=1), tmp_path / "alike", ["a", "b"]), target)
    assert answered(target, "draft-model", alike)[0] == answered(target, "autoregressive")[0]
    wordless = saved(model_of("llama", vocab_size=150), tmp_path / "wordless", None)
    with pytest.raises(MethodError, match="knows 150 tokens and the llama it is to draft for knows 199"):
        DraftModel().read_fitted(wordless, target)
    with pytest.raises(MethodError, match="knows 150 tokens and the llama it is to draft for knows 199"):
        DraftModel().check_fitted(wordless, target.config)
    with pytest.raises(MethodError, match=r"there is no config\.json"):
        DraftModel().check_fitted(tmp_path, target.config)
    its = json.loads((wordless / "config.json").read_text())
    (wordless / "config.json").write_text(json.dumps({**its, "draft_vocab_size": 150}))
    with pytest.raises(MethodError, match="holds no ordinary model; if it is EAGLE-3's drafter, write eagle-3:"):
        DraftModel().check_fitted(wordless, target.config)


def test_what_cannot_draft_is_refused() -> None:
    model = model_of("llama")
    with pytest.raises(MethodError, match="needs a small model"):
        answered(model, "draft-model")
    with pytest.raises(MethodError, match="window of the latest positions, and drafts chains alone"):
        answered(model, "draft-model(tokens=8)", model_of("mistral"))
    with pytest.raises(MethodError, match="draft model holds 20 positions, and prompt and answer take up to 28"):
        answered(model, "draft-model", model_of("llama", max_position_embeddings=20))
    with pytest.raises(MethodError, match="longest of prompt-lookup must be at least 1"):
        parse_method("prompt-lookup(longest=0)")


@pytest.mark.parametrize("method", ["draft-model(tokens=8)", "prompt-lookup"])
def test_an_answer_beyond_the_models_positions_is_refused_and_nothing_stays_patched(method: str) -> None:
    model = model_of("llama", max_position_embeddings=20)
    with pytest.raises(MethodError, match="take up to 28 positions, and the model holds 20"):
        answered(model, method, model_of("llama", seed=1) if "model" in method else None)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert answered(model, method, model_of("llama") if "model" in method else None, most=8)[0]


def test_a_draft_model_may_know_more_tokens_than_the_target() -> None:
    model, small = model_of("llama"), model_of("llama", seed=1, vocab_size=230)
    for method in ("draft-model", "draft-model(tokens=8)"):
        assert answered(model, method, small)[0] == answered(model, "autoregressive")[0]
