"""Passes are recorded whoever calls the model, with the experts that were met, and the model gives what it gave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import DynamicCache, Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, StaticCache

from support.tiny_audio_models import tokenizer
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.ledger import Ledger, Pass
from vivace_methods.models.pass_recorder import counting
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shapes import TINY_SHAPES

MIXTURES = [kind for kind, shape in TINY_SHAPES.items() if "num_experts_per_tok" in shape]
PROMPT = torch.tensor([[5, 9, 2, 7, 11, 3]])


def model_of(kind: str) -> Any:
    model = random_model(tiny_configuration(kind))
    with torch.no_grad():
        for layer in anatomy(model).mixtures:  # as they are made, nearly all tokens meet the same ones
            layer.router.weight.normal_(std=3.0)
    return model


def answer(model: Any, ids: torch.Tensor = PROMPT, **options: Any) -> torch.Tensor:
    given = {"attention_mask": torch.ones_like(ids), "eos_token_id": None, "pad_token_id": 0, **options}
    tokens: torch.Tensor = model.generate(ids, do_sample=False, max_new_tokens=6, **given)
    return tokens


@contextmanager
def routers_watched(model: Any) -> Iterator[list[list[int]]]:
    """What each router chose, pass after pass and layer after layer: an independent count."""
    chosen: list[list[int]] = []
    hooks = [
        layer.router.register_forward_hook(lambda module, given, found: chosen.append(found[2].flatten().tolist()))
        for layer in anatomy(model).mixtures
    ]
    try:
        yield chosen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("kind", "ids"), [*((kind, PROMPT) for kind in MIXTURES), ("olmoe", torch.tensor([[5, 9, 2, 7], [1, 1, 8, 4]]))]
)
def test_counted_experts_are_those_that_routers_chose(kind: str, ids: torch.Tensor) -> None:
    model, ledger = model_of(kind), Ledger()
    plain = answer(model, ids)
    with routers_watched(model) as chosen, counting(model, ledger):
        assert torch.equal(answer(model, ids), plain)
    by_pass = [chosen[place : place + 2] for place in range(0, len(chosen), 2)]
    rows, length = ids.shape
    assert ledger.passes == tuple(
        Pass(
            "decode" if number else "read", 1 if number else length, length + number - 1 if number else 0,
            sequences=rows, experts=tuple(len(set(each)) for each in layers), routed=tuple(map(len, layers)),
        )
        for number, layers in enumerate(by_pass)
    )  # fmt: skip
    assert len(by_pass) == 6 and len({one.experts for one in ledger.passes}) > 1


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_dense_model_has_passes_too(kind: str, cache: str) -> None:
    model, ledger = model_of(kind), Ledger()
    with counting(model, ledger):
        answer(model, torch.tensor([[4] * 20]), cache_implementation=cache)
    assert ledger.passes == (Pass("read", 20, 0), *(Pass("decode", 1, 20 + place) for place in range(5)))


def test_the_decoder_of_an_audio_model_is_recorded() -> None:
    listener = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32}
    configuration = Qwen2AudioConfig(
        audio_config={**listener, "num_mel_bins": 16}, text_config=TINY_SHAPES["qwen2"], audio_token_index=198
    )
    model, ledger = Qwen2AudioForConditionalGeneration(configuration).eval(), Ledger()
    with counting(model, ledger):
        embedded = model.get_input_embeddings()(PROMPT)
        answer(model, PROMPT, inputs_embeds=embedded)
    first, *others = ledger.passes
    assert first == Pass("read", 6, 0, logits=first.logits)
    assert others == [Pass("decode", 1, 6 + place) for place in range(5)]


@pytest.mark.full
def test_lm_eval_is_recorded() -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    words = tokenizer()
    configuration = tiny_configuration("olmoe")
    configuration.vocab_size = len(words)
    model, ledger = random_model(configuration), Ledger()
    harness = HFLM(pretrained=model, tokenizer=words, device="cpu", batch_size=2)
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in (("system user", " assistant"), ("You", " are"))]
    plain = harness.loglikelihood(asked)
    with routers_watched(model) as chosen, counting(model, ledger):
        assert harness.loglikelihood(asked) == plain
    (one,) = ledger.passes
    assert (one.kind, one.sequences, one.context) == ("read", 2, 0)
    assert one.experts == tuple(len(set(each)) for each in chosen)


def test_a_caller_says_what_a_pass_is_for_and_how_many_logits_it_wants() -> None:
    model, ledger, kinds = model_of("qwen3"), Ledger(), iter(["read", "verify", None, None])
    cache = DynamicCache(config=model.config)
    with torch.inference_mode(), counting(model, ledger, lambda: next(kinds)):
        model(PROMPT, past_key_values=cache, logits_to_keep=1)
        model(PROMPT[:, :4], past_key_values=cache)
        model.model(PROMPT[:, :1], past_key_values=cache)
        model(PROMPT[:, :1])
    assert ledger.passes == (
        Pass("read", 6, 0),
        Pass("verify", 4, 6, logits=4),
        Pass("decode", 1, 10, logits=0),
        Pass("read", 1, 0),
    )


def test_layers_that_keep_fewer_positions_are_told_apart() -> None:
    model, ledger, cache = model_of("llama"), Ledger(), DynamicCache()
    with torch.inference_mode():
        model(PROMPT, past_key_values=cache)
        cache.layers[1].crop(-2)
        with counting(model, ledger):
            model.model(PROMPT[:, :1], past_key_values=cache, position_ids=torch.tensor([[6]]))
    assert ledger.passes == (Pass("decode", 1, 6, logits=0, layer_context=(6, 4)),)


def test_a_token_that_is_sent_to_no_expert_reads_none() -> None:
    """Whatever lies between router and experts is seen: here one of a token's two experts is struck out."""
    model, ledger = model_of("olmoe"), Ledger()
    router: Any = anatomy(model).layers[1].router
    hook = router.register_forward_hook(
        lambda module, given, found: (found[0], found[1], torch.cat([found[2][:, :1], found[2][:, 1:] * 0 + 8], 1))
    )
    with torch.inference_mode(), routers_watched(model) as chosen, counting(model, ledger):
        model(PROMPT, use_cache=False)
    hook.remove()
    (one,) = ledger.passes
    assert one.routed == (12, 6) and one.experts == (len(set(chosen[0])), len(set(chosen[1]) - {8}))


def test_layers_of_different_tokens_are_counted_apart() -> None:
    model, ledger = model_of("mixtral"), Ledger()
    found = anatomy(model)
    hook = found.layers[1].module.register_forward_pre_hook(
        lambda module, given, named: ((given[0][:, :3],), {**named, **_shortened(named)}), with_kwargs=True
    )
    with torch.inference_mode(), counting(model, ledger):
        model(PROMPT, use_cache=False, attention_mask=None)
    hook.remove()
    assert [one.routed for one in ledger.passes] == [(12, 6)]


def _shortened(named: dict[str, Any]) -> dict[str, Any]:
    cosines, sines = named["position_embeddings"]
    return {"position_embeddings": (cosines[:, :3], sines[:, :3]), "attention_mask": None}


def stepping(model: Any, step: Any, cache: Any) -> list[int]:
    """The prompt through the model, and then its tokens one after the other through the step."""
    tokens = []
    with torch.inference_mode():
        logits = model(PROMPT, past_key_values=cache, logits_to_keep=1).logits
        for _ in range(4):
            tokens.append(int(logits[:, -1].argmax(-1)))
            logits = step(torch.tensor([tokens[-1:]]), past_key_values=cache, logits_to_keep=1).logits
    return tokens


def recorded_steps(model: Any, forward: Any) -> tuple[list[int], tuple[Pass, ...]]:
    ledger = Ledger()
    with counting(model, ledger) as recorder:
        tokens = stepping(model, recorder.around(forward), StaticCache(config=model.config, max_cache_len=16))
    return tokens, ledger.passes


def test_a_step_is_recorded_once_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its experts are counted as in a graph: by one operator for each layer."""
    model = model_of("olmoe")
    plain = stepping(model, model, StaticCache(config=model.config, max_cache_len=16))
    tokens, passes = recorded_steps(model, model.forward)
    assert tokens == plain
    assert [(one.kind, one.tokens, one.context, one.experts) for one in passes] == [
        ("read", 6, 0, passes[0].experts), *(("decode", 1, 6 + place, (2, 2)) for place in range(4)),
    ]  # fmt: skip

    def as_in_a_graph(*given: Any, **named: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(torch.compiler, "is_compiling", lambda: True)
            return model.forward(*given, **named)

    assert recorded_steps(model, as_in_a_graph) == (tokens, passes)


@pytest.mark.full
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_compiled_step_counts_inside_its_graph(kind: str) -> None:
    """In one graph, with nothing left outside."""
    model = model_of(kind)
    torch.compiler.reset()
    compiled = torch.compile(model.forward, backend="aot_eager", dynamic=False, fullgraph=True)
    assert recorded_steps(model, compiled) == recorded_steps(model, model.forward)


@pytest.mark.parametrize("kind", ["llama", "qwen2_moe"])
def test_the_model_is_left_as_it_was_also_when_a_pass_fails(kind: str) -> None:
    model, ledger = model_of(kind), Ledger()

    def state() -> Any:
        hooks = [(*each._forward_hooks, *each._forward_pre_hooks) for each in model.modules()]
        return hooks, [sorted(each.__dict__) for each in model.modules()], model.config.to_dict()

    before = state()
    with pytest.raises(IndexError), counting(model, ledger):
        model(torch.tensor([[199]]))
    assert state() == before and ledger.passes == ()
    with counting(model, ledger):
        pass
    answer(model)
    assert state() == before and ledger.passes == ()
