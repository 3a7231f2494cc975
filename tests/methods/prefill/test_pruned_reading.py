"""A pruned prefill is what a loop by hand computes, under our loop and under `generate`, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from vivace_methods.decoding.joined import applied, generator_of
from vivace_methods.models.random import tiny_configuration
from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.protocol import Method, MethodError, Request
from vivace_methods.registry import METHODS, parse_method

LAYERS = 5
PRUNED = sorted(name for name, kind in METHODS.items() if issubclass(kind, PrunedPrefill))
FURTHER = {"oracle": ",most=4", "asl": ",window=8", "snapkv": ",window=8", "spec-prefill": ",chunk=4"}
"""Settings that make a method short, and its choice fit a short prompt."""


def fitted_for(name: str, build: Callable[..., Any], architecture: str = "llama") -> Any:
    """A draft for the method that needs one."""
    return build(architecture, layers=2) if name == "spec-prefill" else None


def generated(
    method: Method, model: Any, request: Request, fitted: Any = None
) -> tuple[list[int], torch.Tensor, Any]:
    """Tokens, the logits behind each of them, and what the trace shows."""
    tokens: list[int] = []
    with applied(method, model, fitted) as generator:
        trace = generator.generate(request, tokens.extend)
        logits = generator.logits(request, tokens)
    assert logits is not None
    return tokens, logits, trace


def by_hand(
    model: Any,
    ids: torch.Tensor,
    kept: torch.Tensor,
    layer: int,
    positions: dict[int, torch.Tensor],
    answer: list[int],
) -> torch.Tensor:
    """Logits behind each token of an answer: layer by layer, with nothing of the methods.

    Args:
        kept: tokens that go on behind the layer.
        positions: layer → of what it has read, what stays in its cache, shape (key-value heads, positions).
    """
    decoder, tokens = model.model, ids.shape[1]
    kept_states = DynamicCache(config=model.config)
    found = []
    hidden, places = decoder.embed_tokens(ids), torch.arange(tokens)[None]
    for number, block in enumerate(decoder.layers):
        hidden = block(
            hidden, position_embeddings=decoder.rotary_emb(hidden, position_ids=places), past_key_values=kept_states
        )
        if number in positions:
            stored, index = kept_states.layers[number], positions[number][None, :, :, None]
            stored.keys = stored.keys.gather(2, index.expand(-1, -1, -1, stored.keys.shape[-1]))
            stored.values = stored.values.gather(2, index.expand(-1, -1, -1, stored.values.shape[-1]))
        if number == layer:
            hidden, places = hidden[:, kept], places[:, kept]
    found.append(model.lm_head(decoder.norm(hidden[:, -1:]))[:, 0])
    for step, token in enumerate(answer[:-1]):
        hidden, places = decoder.embed_tokens(torch.tensor([[token]])), torch.tensor([[tokens + step]])
        rotations = decoder.rotary_emb(hidden, position_ids=places)
        for block in decoder.layers:
            hidden = block(hidden, position_embeddings=rotations, past_key_values=kept_states)
        found.append(model.lm_head(decoder.norm(hidden))[:, 0])
    return torch.cat(found)


def of_all_heads(queries: torch.Tensor, keys: torch.Tensor, window: int, kernel: int) -> torch.Tensor:
    """A window's attention from whole matrices in 64 bits, pooled, shape (key-value heads, tokens before it)."""
    heads, shared = queries.shape[1], keys.shape[1]
    keys = keys.double().repeat_interleave(heads // shared, 1)
    logits = queries.double() @ keys.transpose(2, 3) / keys.shape[-1] ** 0.5
    hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    matrix = logits.masked_fill(hidden, float("-inf")).softmax(-1)[0]
    seen = matrix[:, -window:, :-window].sum(1)
    smooth = torch.nn.functional.avg_pool1d(seen[None], kernel, 1, kernel // 2)[0]
    return smooth.view(shared, heads // shared, -1).sum(1)


def rotated(model: Any, layer: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of a layer, by its own weights."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    block = model.model.layers[layer]
    attention, normed = block.self_attn, block.input_layernorm(hidden)
    shape = (1, hidden.shape[1], -1, attention.head_dim)
    queries, keys = (each(normed).view(shape).transpose(1, 2) for each in (attention.q_proj, attention.k_proj))
    cos, sin = model.model.rotary_emb(hidden, position_ids=torch.arange(hidden.shape[1])[None])
    turned: tuple[torch.Tensor, torch.Tensor] = apply_rotary_pos_emb(queries, keys, cos, sin)
    return turned


@pytest.fixture(scope="module")
def with_heads(build: Callable[..., Any]) -> Callable[[int], Any]:
    """Models whose four queries share so many keys."""
    return cache(lambda shared: build(num_key_value_heads=shared))


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(9, 40),
    keep=st.sampled_from([0.1, 0.3, 0.55, 0.9]),
    layer=st.integers(0, LAYERS - 1),
    joined=st.integers(1, 3),
    kv_from=st.integers(0, LAYERS),
    kv_keep=st.sampled_from([0.15, 0.4, 1.0]),
    select=st.sampled_from(["after-block", "before-mlp", "before-attention"]),
    attention=st.sampled_from(["sdpa", "eager"]),
    shared=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 3),
)
@torch.inference_mode()
def test_the_hooked_pass_is_the_loop_by_hand_with_caches_of_unequal_lengths(
    with_heads: Callable[[int], Any], prompt_of: Callable[..., torch.Tensor], tokens: int, keep: float, layer: int,
    joined: int, kv_from: int, kv_keep: float, select: Any, attention: Any, shared: int, seed: int,
) -> None:  # fmt: skip
    model = with_heads(shared)
    window, kernel = 4, 3
    ids = prompt_of(tokens, seed)
    method = parse_method(
        f"claa(keep={keep},layer={layer},layers={joined},kv_from={kv_from},kv_keep={kv_keep},select={select},"
        f"attention={attention},window={window},kernel={kernel})"
    )
    answer, logits, trace = generated(method, model, Request(ids, 4))

    hiddens = model(ids, output_hidden_states=True).hidden_states
    kept, positions = torch.arange(tokens), {}
    ranked = tokens - window
    scored = [of_all_heads(*rotated(model, number, hiddens[number]), window, kernel) for number in range(layer + 1)]
    most = max(int(keep * tokens + 1e-6), 1)
    if most < tokens:
        best = torch.stack(scored[max(0, layer - joined + 1) :]).amax((0, 1))
        chosen = best.topk(min(max(most - window, 0), ranked)).indices.sort().values
        kept = torch.cat([chosen, torch.arange(ranked, tokens)])
    own = max(int(kv_keep * tokens + 1e-6), 1)
    for number in range(kv_from, layer + 1):
        if own < tokens:
            chosen = scored[number].topk(max(own - window, 0)).indices.sort(-1).values
            positions[number] = torch.cat([chosen, torch.arange(ranked, tokens).expand(shared, -1)], 1)
    # Behind the layer there are fewer tokens, of which the heads choose again: here all of these may stay.
    if own < len(kept):
        return
    expected = by_hand(model, ids, kept, layer, positions, answer)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert answer == expected.argmax(-1).tolist()
    assert trace.figures["kept_share"] == (len(kept) / tokens if layer < LAYERS - 1 else 1.0)
    lengths = [positions[each].shape[1] if each in positions else tokens for each in range(layer + 1)]
    lengths += [len(kept)] * (LAYERS - 1 - layer)
    assert trace.figures["kv_share"] == pytest.approx(sum(lengths) / (LAYERS * tokens))


@pytest.mark.parametrize("name", sorted({*PRUNED} - {"h2o", "snapkv"}))
@torch.inference_mode()
def test_kept_tokens_are_read_at_their_places_and_answered_behind_the_prompt(
    build: Callable[..., Any], model: Any, prompt_of: Callable[..., torch.Tensor], name: str
) -> None:
    """Which tokens went into each layer is the method's word; all that is computed of them is the loop by hand's."""
    ids, fitted = prompt_of(48), fitted_for(name, build)
    kv = ",kv=full" if "kv" in METHODS[name].__dataclass_fields__ else ""
    method = parse_method(f"{name}(keep=0.3{FURTHER.get(name, '')}{kv})")
    with method.attach(model, fitted) as attached:
        answer: list[int] = []
        generator = generator_of(model, {name: attached})
        generator.generate(Request(ids, 4), answer.extend)
        logits = generator.logits(Request(ids, 4), answer)
        done = attached.reader._hooks.latest  # type: ignore[union-attr]
        entered = [done.kept_of(layer) for layer in range(LAYERS)]
    assert any(each is not None and len(each) < 48 for each in entered)

    decoder, states, found = model.model, DynamicCache(config=model.config), []
    rows = torch.arange(48) if entered[0] is None else entered[0]
    moved = 48 - len(rows) if name == "gemfilter" else 0
    hidden, places = decoder.embed_tokens(ids[:, rows]), torch.arange(len(rows)) if moved else rows
    for block, wanted in zip(decoder.layers, entered, strict=True):
        stay = torch.arange(len(rows)) if wanted is None else torch.searchsorted(rows, wanted)
        hidden, rows, places = hidden[:, stay], rows[stay], places[stay]
        rotations = decoder.rotary_emb(hidden, position_ids=places[None])
        hidden = block(hidden, position_embeddings=rotations, past_key_values=states)
    found.append(model.lm_head(decoder.norm(hidden[:, -1:]))[:, 0])
    for step, token in enumerate(answer[:-1]):
        hidden = decoder.embed_tokens(torch.tensor([[token]]))
        rotations = decoder.rotary_emb(hidden, position_ids=torch.tensor([[48 + step - moved]]))
        for block in decoder.layers:
            hidden = block(hidden, position_embeddings=rotations, past_key_values=states)
        found.append(model.lm_head(decoder.norm(hidden))[:, 0])
    torch.testing.assert_close(logits, torch.cat(found), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "olmoe"])
def test_generate_of_transformers_gives_the_loops_tokens(
    build: Callable[..., Any], prompt_of: Callable[..., torch.Tensor], name: str, architecture: str
) -> None:
    model, ids = build(architecture), prompt_of(48)
    method = parse_method(f"{name}(keep=0.3{FURTHER.get(name, '')})")
    fitted = fitted_for(name, build, architecture)
    tokens, _, trace = generated(method, model, Request(ids, 6), fitted)
    assert trace.figures["kv_share"] < 1
    with method.attach(model, fitted):
        written = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert written[0, 48:].tolist() == tokens


@pytest.mark.parametrize("architecture", ["mistral", "qwen2", "qwen3_moe", "mixtral", "gemma"])
def test_further_families_are_pruned_alike_under_both_loops(
    build: Callable[..., Any], prompt_of: Callable[..., torch.Tensor], architecture: str
) -> None:
    """And at a keep rate of one are read as they are without."""
    model, ids = build(architecture), prompt_of(48)
    expected = generated(parse_method("full"), model, Request(ids, 5))[:2]
    for written in ("claa(keep=0.3,kv_from=0,window=4)", "gemfilter(keep=0.3)", "claa(keep=1)"):
        method = parse_method(written)
        tokens, logits, trace = generated(method, model, Request(ids, 5))
        with method.attach(model):
            answer = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert answer[0, 48:].tolist() == tokens
    assert tokens == expected[0] and trace.figures["kv_share"] == 1
    torch.testing.assert_close(logits, expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRUNED)
def test_a_keep_rate_of_one_is_the_full_prefill(
    build: Callable[..., Any], model: Any, prompt_of: Callable[..., torch.Tensor], name: str
) -> None:
    request = Request(prompt_of(48), 8)
    expected, logits, _ = generated(parse_method("full"), model, request)
    tokens, found, trace = generated(parse_method(f"{name}(keep=1)"), model, request, fitted_for(name, build))
    assert tokens == expected
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)
    assert trace.figures["kept_share"] == trace.figures["kv_share"] == 1
    assert "48 tokens" in trace.figures["nothing_pruned"]


def test_short_prompts_are_read_whole_also_behind_long_ones(
    model: Any, prompt_of: Callable[..., torch.Tensor]
) -> None:
    """Shorter than the window, than the budget, or a single token."""
    short = {"claa(window=8)": 8, "claa(keep=64)": 40, "fastkv": 1, "oracle(most=4)": 5, "h2o": 1}
    for method, tokens in short.items():
        request = Request(prompt_of(tokens, seed=2), 4)
        expected, _, _ = generated(parse_method("full"), model, request)
        found: list[int] = []
        with applied(parse_method(method), model) as generator:
            if tokens < 40:
                generator.generate(Request(prompt_of(60), 1), lambda tokens: None)
            trace = generator.generate(request, found.extend)
        assert found == expected
        assert f"The prompt has {tokens} tokens" in trace.figures["nothing_pruned"]


def hooks_of(model: Any) -> list[Any]:
    return [
        hook
        for module in model.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for hook in hooks.values()
    ]


@pytest.mark.parametrize("name", PRUNED)
def test_hooks_are_gone_after_the_context_and_after_an_exception(
    build: Callable[..., Any], model: Any, prompt_of: Callable[..., torch.Tensor], name: str
) -> None:
    fitted = fitted_for(name, build)
    before, found = model.config._attn_implementation, hooks_of(model)
    method = parse_method(f"{name}(keep=0.3,attention=eager{FURTHER.get(name, '')})")
    with method.attach(model, fitted):
        assert len(hooks_of(model)) > len(found)
    assert hooks_of(model) == found
    with pytest.raises(MethodError, match="one at a time"), method.attach(model, fitted):
        model(prompt_of(40).expand(2, -1))
    assert hooks_of(model) == found
    assert model.config._attn_implementation == before
    with method.attach(model, fitted), pytest.raises(IndexError):  # inside of a pass, which the next one forgets
        model(torch.full((1, 40), 10_000))
    tokens, _, _ = generated(parse_method("full"), model, Request(prompt_of(40), 4))
    assert (
        model.generate(prompt_of(40), max_new_tokens=4, do_sample=False, eos_token_id=None)[0, 40:].tolist() == tokens
    )


def test_what_cannot_be_pruned_is_refused_with_a_sentence(
    build: Callable[..., Any], model: Any, prompt_of: Callable[..., torch.Tensor]
) -> None:
    ids = prompt_of(40)
    for setting in ("keep=0", "keep=1.5", "keep=-1", "kernel=4", "window=0", "layers=0", "kv_keep=0", "kv_from=-1"):
        with pytest.raises(MethodError, match=f"The setting {setting.partition('=')[0]} of claa"):
            parse_method(f"claa({setting})")
    with pytest.raises(MethodError, match="kv_keep of fastkv goes with kv=own"):
        parse_method("fastkv(kv=shared,kv_keep=0.1)")
    with pytest.raises(MethodError, match="is a share of the prompt, up to 1"):
        parse_method("lazy-llm(keep=64)")
    assert len(parse_method("lazy-llm(steps=1000000000)").pruning(LAYERS).plan.stops) == LAYERS  # type: ignore[attr-defined]
    with pytest.raises(MethodError, match="prune at layer 5, and the model has layers 0 to 4"):
        parse_method("claa(layer=5)").attach(model).__enter__()
    with pytest.raises(MethodError, match="layers 0 to 1"):  # before a model is there
        parse_method("claa(layer=5)").check_model(tiny_configuration("llama"))
    with pytest.raises(MethodError, match="sliding_window"):
        parse_method("claa").attach(build("mistral", sliding_window=16)).__enter__()
    with pytest.raises(MethodError, match="sliding_window"):
        parse_method("claa").check_model(tiny_configuration("mistral"))
    whole = {"sliding_window": 16, "layer_types": ["full_attention"] * LAYERS}
    for architecture, adjusted in (("gemma2", "attn_logit_softcapping"), ("gpt_oss", "sinks")):
        with pytest.raises(MethodError, match=f"changes its own by {adjusted}"):
            parse_method("claa(attention=eager)").attach(build(architecture, **whole)).__enter__()
    mask = torch.ones(1, 40, dtype=torch.long)
    mask[0, :3] = 0
    with parse_method("claa").attach(model):
        with pytest.raises(MethodError, match="padded"):
            model.generate(ids, attention_mask=mask, max_new_tokens=2)
        with pytest.raises(MethodError, match="dynamic"):
            model.generate(ids, max_new_tokens=2, cache_implementation="static")
        with pytest.raises(MethodError, match="chunks"):
            model.generate(ids, max_new_tokens=2, prefill_chunk_size=16)
        with pytest.raises(MethodError, match="anew for every token"):
            model.generate(ids, max_new_tokens=2, use_cache=False)
        with pytest.raises(MethodError, match="no loss of labels"):
            model(ids, labels=ids)
        with pytest.raises(MethodError, match="on this model already"):
            parse_method("fastkv").attach(model).__enter__()
    assert model(ids, labels=ids).loss > 0
