"""Behind a pruned prompt: traps of transformers, other methods on the same model, further turns, embeddings."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vivace_methods.decoding.joined import generator_of
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.cost import cost
from vivace_methods.models.random import tiny_configuration
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import _showing, showing_attention
from vivace_methods.protocol import Embedded, MethodError, Request
from vivace_methods.registry import parse_arm, parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration
from vivace_methods.speculation.drafters.eagle3_checkpoint import save_drafter

UNEQUAL = "claa(keep=0.3,layer=2,layers=2,window=4,kv_from=0,kv_keep=0.5)"
"""Its first layer keeps less than was read, and its last ones less than that."""


def answered(model: Any, arm: str, request: Request) -> tuple[list[int], Any]:
    tokens: list[int] = []
    with parse_arm(arm).apply(model) as generator:
        trace = generator.generate(request, tokens.extend)
    return tokens, trace


def test_kept_tokens_with_gaps_between_them_are_one_text(build: Callable[..., Any], prompt_of: Any) -> None:
    """Trap 1: without a cache or a mask, transformers takes gaps between places for ends of texts."""
    model, draft, ids = build(), build(layers=2), prompt_of(40)
    with parse_method("spec-prefill(keep=0.4,chunk=2)").attach(model, draft):
        cached = DynamicCache(config=model.config)
        expected = model(ids, past_key_values=cached, use_cache=True, logits_to_keep=1).logits
        found = model(ids, use_cache=False, logits_to_keep=1).logits
    assert 0 < cached.get_seq_length() < 40
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # Nor are they several texts in a pass that a ranker asks for, which has no cache of its own.
    places = torch.cat([torch.arange(20), torch.arange(30, 50)])[None]
    with torch.inference_mode():
        whole = model(ids, position_ids=places, past_key_values=DynamicCache(config=model.config)).logits[:, -1]
        with showing_attention(model.model, "sdpa"), asking(anatomy(model)) as asked:
            alone = asked.run(lambda shown: None, {"input_ids": ids, "position_ids": places})
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-6)


def test_layers_behind_the_pruning_are_told_no_places(model: Any, prompt_of: Any) -> None:
    """Trap 2: from places that do not follow each other FlashAttention would make several texts."""
    seen: list[Any] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(lambda module, given, named: seen.append(named), with_kwargs=True)
        for layer in model.model.layers
    ]
    with parse_method(UNEQUAL).attach(model):
        model(prompt_of(40), logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    assert [named["position_ids"] is None for named in seen] == [False, False, False, True, True]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_several_tokens_behind_a_pruned_prompt_see_all_that_each_layer_keeps(
    model: Any, prompt_of: Any, attention: str
) -> None:
    """Trap 3, and masks of the first layer's length: a further turn in one pass is the same turn token by token."""
    ids, turn = prompt_of(40), prompt_of(5, seed=1)
    method = parse_method(f"{UNEQUAL[:-1]},attention={attention})")
    with method.attach(model), torch.inference_mode():
        found = []
        for pieces in ([turn[:, :1], turn[:, 1:]], turn.split(1, 1)):
            cache, at = DynamicCache(config=model.config), 40
            model(ids, past_key_values=cache, logits_to_keep=1)
            lengths = [layer.get_seq_length() for layer in cache.layers]
            for piece in pieces:
                # Nobody says where the tokens stand: the first layer's length would put them before the prompt's end.
                logits = model(piece, past_key_values=cache).logits[:, -1]
                at += piece.shape[1]
            found.append(logits)
        assert lengths == [20, 20, 20, 12, 12]
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
        explicit = DynamicCache(config=model.config)
        model(ids, past_key_values=explicit, logits_to_keep=1)
        for place, token in enumerate(turn.split(1, 1)):
            logits = model(token, past_key_values=explicit, position_ids=torch.tensor([[40 + place]])).logits[:, -1]
        torch.testing.assert_close(found[0], logits, rtol=0, atol=1e-6)


def test_attention_that_shows_keeps_masks_as_they_were(model: Any, prompt_of: Any) -> None:
    """Trap 4: an attention that is registered without its masks loses padding."""
    ids = prompt_of(12)
    mask = torch.ones_like(ids)
    mask[:, :5] = 0
    expected = model(ids, attention_mask=mask).logits[:, 5:]
    for implementation in ("sdpa", "eager"):
        with showing_attention(model.model, implementation):
            found = model(ids, attention_mask=mask).logits[:, 5:]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(model(ids).logits[:, 5:], expected, atol=1e-3)


def test_flash_attention_meets_the_name_that_its_kernels_are_found_by(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads it from the module's configuration, which names the implementation that shows."""
    met: list[Any] = []

    def attention(module: Any, *given: Any, **named: Any) -> Any:
        met.append((module.config._attn_implementation, module.layer_idx, named["position_ids"] is None))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *given, **named)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", attention)
    showing = _showing("flash_attention_2")
    layer = model.model.layers[3].self_attn
    queries, keys = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    found, _ = showing(layer, queries, keys, keys, None, scaling=0.5, position_ids=None)
    assert met == [("flash_attention_2", 3, True)] and found.shape == (1, 6, 4, 8)
    assert model.config._attn_implementation == "sdpa"


def test_nothing_of_a_prompt_is_kept_for_the_next(model: Any, prompt_of: Any) -> None:
    with parse_method(UNEQUAL).attach(model), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(prompt_of(40), past_key_values=cache)
        model(prompt_of(1), past_key_values=cache)
        alive = weakref.ref(cache)
        del cache
        assert alive() is None


def test_a_further_turn_under_generate_is_right_or_refused(model: Any, prompt_of: Any) -> None:
    ids = prompt_of(40)
    with parse_method("claa(keep=0.3,window=4,kv_from=1)").attach(model), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        first = model.generate(ids, past_key_values=cache, max_new_tokens=4, do_sample=False, eos_token_id=None)
        whole = torch.cat([first, prompt_of(6, seed=1)], 1)
        found = model.generate(whole, past_key_values=cache, max_new_tokens=4, do_sample=False, eos_token_id=None)
        by_hand = DynamicCache(config=model.config)
        model(ids, past_key_values=by_hand)
        for place in range(40, whole.shape[1] + 3):
            token = whole[:, place : place + 1]
            logits = model(token, past_key_values=by_hand, position_ids=torch.tensor([[place]])).logits
            if place >= whole.shape[1] - 1:
                whole = torch.cat([whole, logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert found.tolist() == whole.tolist()
    with (
        parse_method(UNEQUAL).attach(model),
        torch.inference_mode(),
    ):  # transformers counts the first layer's positions
        cache = DynamicCache(config=model.config)
        first = model.generate(ids, past_key_values=cache, max_new_tokens=4, do_sample=False, eos_token_id=None)
        longer = torch.cat([first, prompt_of(6, seed=1)], 1)
        with pytest.raises(MethodError, match="give the new tokens alone, with their position_ids"):
            model.generate(longer, past_key_values=cache, max_new_tokens=4, do_sample=False)


@pytest.mark.parametrize("name", [UNEQUAL, "claa(keep=0.5)", "snapkv(keep=0.5)", "gemfilter(keep=0.5)"])
def test_drafts_of_generate_that_are_turned_down_leave_no_trace(model: Any, name: str) -> None:
    """They are cut off by one length for all layers, which those that keep less of the prompt do not reach."""
    written = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None}
    verified = 0
    for seed in range(4):
        # No token comes twice, so that the first pass has no draft; those after it are the prompt's.
        ids = torch.randperm(199, generator=torch.Generator().manual_seed(seed))[None, :60]
        lengths: list[int] = []
        with parse_method(name).attach(model), torch.inference_mode():
            expected = model.generate(ids, **written)
            hook = model.model.register_forward_pre_hook(
                lambda _, given, named, lengths=lengths: lengths.append(named["position_ids"].shape[1]),
                with_kwargs=True,
            )
            found = model.generate(ids, **written, prompt_lookup_num_tokens=3)
            hook.remove()
        assert found.tolist() == expected.tolist()
        verified += max(lengths[1:]) > 1
    assert verified
    with parse_method(name).attach(model), pytest.raises(MethodError, match="as where drafts come behind it"):
        model.generate(ids.repeat(1, 2), **written, prompt_lookup_num_tokens=3)


@pytest.mark.parametrize("behind", ["cut off by their number", "cut to a length"])
def test_layers_that_keep_less_are_cut_where_a_pass_begins(model: Any, prompt_of: Any, behind: str) -> None:
    """As versions of transformers do it; the second leaves layers alone that are shorter than that length."""
    turn = prompt_of(6, seed=1)
    with parse_method("claa(keep=0.3,window=4,kv_from=1)").attach(model), torch.inference_mode():
        found = []
        for turned_down in (0, 2):
            cache = DynamicCache(config=model.config)
            model(prompt_of(40), past_key_values=cache)
            model(turn[:, :1], past_key_values=cache)
            read = turn[:, 1 : 4 + turned_down]
            model(read, past_key_values=cache)
            for layer in cache.layers:
                length = 44 if behind == "cut to a length" else layer.get_seq_length() - turned_down
                layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
            found.append(model(turn[:, 4:], past_key_values=cache, position_ids=torch.tensor([[44, 45]])).logits)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)


def test_places_that_do_not_follow_the_pruned_prompt_are_refused(model: Any, prompt_of: Any) -> None:
    """Those of single tokens too, before the prompt's end or beyond what was read."""
    for place in (12, 41, 39):
        with parse_method(UNEQUAL).attach(model), torch.inference_mode():
            cache = DynamicCache(config=model.config)
            model(prompt_of(40), past_key_values=cache)
            with pytest.raises(MethodError, match=f"is at place 40, and the model was given {place}"):
                model(prompt_of(1), past_key_values=cache, position_ids=torch.tensor([[place]]))


@pytest.fixture(scope="module")
def drafter(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drafter")
    torch.manual_seed(0)
    made = new_configuration(model.config, intermediate=48, taps=(0, 2, 4))
    save_drafter(Eagle3Drafter(made, model.get_input_embeddings()), folder)
    return folder


@pytest.mark.parametrize("reader", [UNEQUAL, "gemfilter(keep=0.3)", "lazy-llm(keep=0.3)", "h2o(keep=0.3)"])
@pytest.mark.parametrize("drafts", ["depth=3", "depth=3,tokens=6,top_k=2"])
def test_a_pruned_prompt_is_gone_on_with_by_drafts(
    model: Any, prompt_of: Any, drafter: Path, reader: str, drafts: str
) -> None:
    request = Request(prompt_of(40), 12)
    alone, _ = answered(model, reader, request)
    both, trace = answered(model, f"{reader}+eagle-3({drafts}):{drafter}", request)
    assert both == alone
    read = next(one for one in reversed(trace.passes) if one.kind == "read")
    verified = next(one for one in trace.passes if one.kind == "verify")
    kept = read.layer_kept or read.layer_tokens or (read.tokens,) * 5
    assert (verified.layer_context or (verified.context,) * 5) == tuple(kept)


def test_sparse_layers_read_and_decode_behind_a_pruned_prompt(model: Any, prompt_of: Any, tmp_path: Path) -> None:
    sparse = parse_method("r-sparse(ratio=0.9)")
    assert isinstance(sparse, ActivationSparsity)
    sparse.fit(model, [prompt_of(24, seed) for seed in range(4)]).save(tmp_path / "sparse")
    request, written = Request(prompt_of(40), 12), f"r-sparse(ratio=0.9):{tmp_path / 'sparse'}"
    both, trace = answered(model, f"{UNEQUAL}+{written}", request)
    assert both != answered(model, UNEQUAL, request)[0] and both != answered(model, written, request)[0]
    assert trace.figures["kv_share"] < 0.5 and len(trace.figures["token_sparsity"]) == 11


def test_sound_is_pruned_as_text_is() -> None:
    """Under the audio model's own `generate`, and under our loop over the embeddings that it makes of the sound."""
    text = {**tiny_configuration("llama").to_dict(), "model_type": "qwen2", "vocab_size": 199, "head_dim": 8}
    text["num_hidden_layers"] = 4
    audio = {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "num_mel_bins": 8,
    }
    torch.manual_seed(0)
    configuration = Qwen2AudioConfig(
        audio_config={**audio, "max_source_positions": 40}, text_config=text, audio_token_index=198
    )
    whole = Qwen2AudioForConditionalGeneration(configuration).eval()
    ids = torch.tensor([[1, *[198] * 20, 7, 9, 11, 3, 8, 2]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.randn(1, 8, 80),
        "feature_attention_mask": torch.ones(1, 80, dtype=torch.long),
    }
    given: dict[str, Any] = {}

    def keep(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if named.get("inputs_embeds") is not None:
            given.setdefault("embeddings", named["inputs_embeds"].clone())

    for arm in ("claa(keep=0.4,window=4,kv_from=0)", "gemfilter(keep=0.4)", "oracle(keep=0.4,most=3)"):
        given.clear()
        with parse_method(arm).attach(whole) as attached:
            hook = whole.get_decoder().register_forward_pre_hook(keep, with_kwargs=True, prepend=True)
            with torch.inference_mode():
                found = whole.generate(**inputs, do_sample=False, max_new_tokens=6, eos_token_id=None)
            hook.remove()
            tokens: list[int] = []
            generator = generator_of(whole, {arm: attached})
            embedded = Embedded(given["embeddings"], torch.ones_like(ids), torch.arange(ids.shape[1])[None])
            trace = generator.generate(Request(ids, 6, embedded=embedded), tokens.extend)
        assert tokens == found[0, ids.shape[1] :].tolist()
        assert trace.figures["kept_share"] == pytest.approx(10 / 27)


def test_a_draft_that_reads_other_tokens_is_refused(build: Callable[..., Any], model: Any, tmp_path: Path) -> None:
    method = parse_method("spec-prefill")
    with pytest.raises(MethodError, match="it knows 64 tokens, and the model 199"):
        method.attach(model, build(layers=1, vocab_size=64))
    latest = build("mistral", layers=1, sliding_window=16)
    refused = ((None, "needs a drafter"), (model, "is the model itself"), (latest, "look at the latest 16 positions"))
    for draft, sentence in refused:
        with pytest.raises(MethodError, match=sentence):
            method.attach(model, draft)
    folders = [tmp_path / name for name in ("model", "draft")]
    made = [build(layers=1), build(layers=1, vocab_size=208)]
    for folder, one, words in zip(folders, made, ({"a": 0, "b": 1}, {"a": 0, "b": 1}), strict=True):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(str({"model": {"vocab": words}}).replace("'", '"'))
        one.config._name_or_path = str(folder)
    with method.attach(made[0], made[1]):  # one of them has rows to spare
        pass
    (folders[1] / "tokenizer.json").write_text('{"model": {"vocab": {"b": 0, "a": 1}}}')
    with pytest.raises(MethodError, match=r"their tokenizer\.json name other tokens"):
        method.attach(made[0], made[1])
    with pytest.raises(MethodError, match=r"no config\.json"):
        method.check_fitted(tmp_path)
    made[1].save_pretrained(folders[1])  # before a model is loaded, or anything recorded
    with pytest.raises(MethodError, match=r"their tokenizer\.json name other tokens"):
        method.check_fitted(folders[1], made[0].config)
    with pytest.raises(MethodError, match="it knows 208 tokens, and the model 199"):
        method.check_fitted(folders[1], model.config)
    method.check_fitted(folders[1], made[1].config)
    (folders[1] / "config.json").write_text('{"model_type": "none of them"}')
    with pytest.raises(MethodError, match="is of no model that is known here"):
        method.check_fitted(folders[1], model.config)


def test_the_oracle_goes_by_answers_that_are_given(model: Any, prompt_of: Any, tmp_path: Path) -> None:
    ids, file = prompt_of(40), tmp_path / "answers.jsonl"
    line = json.dumps({"prompt": ids[0].tolist(), "answer": [7, 3, 9]})
    file.write_text(f"\ufeff\n{line.replace('7, 3, 9', '1')}\n{line}\n", encoding="utf-8")
    _, trace = answered(model, f"oracle(keep=0.3,layer=2):{tmp_path}", Request(ids, 2))
    # The prompt, then each token of the answer but the last; and no more, though the model would not stop there.
    assert [one.tokens for one in trace.passes if one.kind == "read" and not one.layer_tokens][:3] == [40, 1, 1]
    method = parse_method("oracle")
    with pytest.raises(MethodError, match="none to this prompt"):
        answered(model, f"oracle:{tmp_path}", Request(prompt_of(40, seed=5), 2))
    refused = {
        "": "is empty", "\n": "is empty", line[:-9]: "Line 1 of .* is not", '{"prompt": [1], "answer": []}': "Line 1",
        "[" * 9999: "Line 1", line.replace("7", "7.0"): "Line 1", line.replace("7", "NaN"): "Line 1",
        line.replace("7", "-7"): "Line 1", line.replace("7", "true"): "Line 1",
        f"{line}\n[]": "Line 2", line.replace("7", "199"): "token 199, and the model knows 199, from 0",
    }  # fmt: skip
    for text, sentence in refused.items():
        file.write_text(text)
        with pytest.raises(MethodError, match=sentence):
            method.check_fitted(tmp_path, model.config)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MethodError, match="no answers that can be read"):
        method.check_fitted(tmp_path)
    file.unlink()
    os.mkfifo(file)  # which nobody writes to
    with pytest.raises(MethodError, match="no answers that can be read"):
        method.check_fitted(tmp_path)
    file.unlink()
    with file.open("wb") as opened:
        opened.truncate(2**29 + 1)
    with pytest.raises(MethodError, match="536,870,913 bytes"):
        method.check_fitted(tmp_path)


PASSES = {
    "full": (40, 40, 40),
    "claa(keep=0.3,layer=2,window=4)": (40, 40, 12),
    "claa(keep=0.3,layer=2,window=4,select=before-mlp)": (40, 40, 12),
    "claa(keep=0.3,layer=2,window=4,select=before-attention)": (40, 40, 12),
    "gemfilter(keep=0.3,layer=2)": (40, 40, 0),
    "snapkv(keep=0.3,window=4)": (40, 40, 40),
}
"""Method → tokens whose attention is computed in each layer before the third, in it, and in each behind it;
what GemFilter reads again is counted below."""


@pytest.mark.parametrize("arm", PASSES)
def test_what_is_computed_is_what_the_ledger_says(model: Any, prompt_of: Any, arm: str) -> None:
    """Rows that went through each linear layer, as hooks count them, and pairs of queries and keys by hand."""
    counted = 0

    def count(module: Any, given: Any, named: Any = None) -> None:
        nonlocal counted
        counted += 2 * module.weight.numel() * given[0].shape[1]

    linears = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
    ids = prompt_of(40)
    with parse_arm(arm).apply(model) as generator:
        hooks = [each.register_forward_pre_hook(count) for each in linears]  # behind those that narrow
        trace = generator.generate(Request(ids, 1), lambda tokens: None)
    for hook in hooks:
        hook.remove()
    before, third, behind = (tokens * (tokens + 1) // 2 for tokens in PASSES[arm])
    if "before-attention" in arm:
        kept = next(one for one in trace.passes).layer_pairs[2]
        assert third > kept > 12 * 13 // 2
        third = kept
    pairs = 2 * before + third + 2 * behind
    if "gemfilter" in arm:
        pairs = 2 * before + 5 * 12 * 13 // 2
    width = 4 * 8
    found = cost(model.config, trace.passes, torch.float32)
    assert found.flops == counted + 4 * width * pairs
