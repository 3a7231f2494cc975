"""One loop for all methods: parts of several joined, caches agreed on, and hooks that stand under any loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from vivace_methods.arms import Arm, ArmMember
from vivace_methods.decoding.caches import compact, negotiate
from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.joined import generator_of, usual_decoder
from vivace_methods.decoding.plain import FullReader, PlainDecoder
from vivace_methods.models.layer_inputs import tapping
from vivace_methods.models.passes import passes_of
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import (
    Attached,
    CacheNeed,
    Decoder,
    Embedded,
    Emit,
    Generator,
    Method,
    MethodError,
    Read,
    Reader,
    Request,
    Role,
    Trace,
)
from vivace_methods.registry import parse_arm, parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.applying.linears import find_groups
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration
from vivace_methods.speculation.drafters.eagle3_checkpoint import save_drafter

PROMPT = torch.tensor([[5, 9, 2, 7, 11, 3, 8, 1]])
REQUEST = Request(PROMPT, 16)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(tiny_configuration("llama"), seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recipe of each of two methods, and a drafter, in folders."""
    folder = tmp_path_factory.mktemp("fitted+here")
    drawn = torch.Generator().manual_seed(4)
    texts = [torch.randint(199, (1, 24), generator=drawn) for _ in range(4)]
    found = {}
    for name in ("r-sparse(ratio=0.9)", "cats(sparsity=0.3)"):
        method = parse_method(name)
        assert isinstance(method, ActivationSparsity)
        found[name] = folder / method.name
        method.fit(model, texts).save(found[name])
    torch.manual_seed(0)
    drafter = Eagle3Drafter(
        new_configuration(model.config, intermediate=48, taps=(0, 1, 1)), model.get_input_embeddings()
    )
    found["drafter"] = folder / "drafter"
    found["drafter"].mkdir()
    save_drafter(drafter, found["drafter"])
    return found


def answered(model: Any, arm: str | Arm, request: Request = REQUEST) -> tuple[list[int], Trace]:
    tokens: list[int] = []
    with (parse_arm(arm) if isinstance(arm, str) else arm).apply(shared_copy(model)) as generator:
        trace = generator.generate(request, tokens.extend)
        assert trace.passes is not None
    return tokens, trace


@pytest.mark.parametrize("name", ["r-sparse(ratio=0.9)", "cats(sparsity=0.3)"])
def test_a_sparse_model_that_speculates_gives_its_own_tokens(model: Any, folders: dict[str, Path], name: str) -> None:
    """Each verified token leaves out what it would leave out alone; the pass is counted as one that reads all."""
    alone, _ = answered(model, f"{name}:{folders[name]}")
    both, trace = answered(model, f"{name}:{folders[name]}+eagle-3(depth=3):{folders['drafter']}")
    assert both == alone != answered(model, "dense")[0]
    kinds = [one.kind for one in trace.passes]
    assert kinds[0] == "read" and {"draft", "verify"} == set(kinds[1:])
    several = [one for one in trace.passes if one.tokens > 1]
    assert all(one.read == {} for one in several), "a pass of several tokens reads every weight"
    assert sum(trace.figures["acceptance_lengths"]) == len(both) - 1


def test_the_logits_of_a_given_answer_are_those_of_the_loop(model: Any, folders: dict[str, Path]) -> None:
    sparse = f"r-sparse(ratio=0.9):{folders['r-sparse(ratio=0.9)']}"
    forced = [4, 8, 15, 16, 23, 42]
    found = []
    for arm in (sparse, f"{sparse}+eagle-3(depth=3):{folders['drafter']}"):
        with parse_arm(arm).apply(shared_copy(model)) as generator:
            logits = generator.logits(REQUEST, forced)
        assert logits is not None and logits.shape == (6, 199)
        found.append(logits)
    assert torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("eagle-3:{drafter}+autoregressive", "eagle-3 and autoregressive do not go together: each of them decodes"),
        ("r-sparse:{sparse}+cats:{sparse}", "each of them replaces linear layers"),
        ("full+full(attention=eager)", "each of them reads prompts"),
        ("full:{sparse}+dense", "full takes nothing fitted"),
    ],
)
def test_methods_that_do_not_go_together_are_refused(folders: dict[str, Path], arm: str, reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        parse_arm(arm.format(drafter=folders["drafter"], sparse=folders["r-sparse(ratio=0.9)"]))


def test_an_arm_of_several_methods_is_written_as_it_is_read(folders: dict[str, Path]) -> None:
    written = f"full(attention=eager)+eagle-3(depth=3):{folders['drafter']}"
    arm = parse_arm(written)
    assert parse_arm(arm.label) == arm and arm.name == "full+eagle-3" and arm.families == {"prefill", "speculation"}
    assert {"full.attention": "eager", "eagle-3.depth": 3}.items() <= arm.settings.items()
    assert arm.fitted == f"eagle-3:{folders['drafter']}"


@pytest.mark.parametrize("arm", ["dense", "autoregressive(cache=static)", "eagle-3(depth=3):{drafter}"])
def test_embeddings_are_read_as_their_ids_are(model: Any, folders: dict[str, Path], arm: str) -> None:
    arm = arm.format(drafter=folders["drafter"])
    embeddings = model.get_input_embeddings()(PROMPT).detach()
    plain, _ = answered(model, arm)
    for embedded in (
        Embedded(embeddings),
        Embedded(embeddings, torch.ones_like(PROMPT), torch.arange(PROMPT.shape[1])[None]),
    ):
        assert answered(model, arm, Request(PROMPT, 16, embedded=embedded))[0] == plain


def test_padding_before_a_prompt_changes_nothing(model: Any) -> None:
    plain, _ = answered(model, "dense")
    padded = torch.cat([torch.full((1, 3), 198), PROMPT], 1)
    embedded = Embedded(
        model.get_input_embeddings()(padded).detach(),
        torch.tensor([[0] * 3 + [1] * PROMPT.shape[1]]),
        torch.tensor([[0, 0, 0, *range(PROMPT.shape[1])]]),
    )
    assert answered(model, "dense", Request(padded, 16, embedded=embedded))[0] == plain


def test_each_position_needs_an_id_and_an_embedding(model: Any) -> None:
    with pytest.raises(MethodError, match="8 token ids and 3 embeddings"):
        Request(PROMPT, 1, embedded=Embedded(torch.zeros(1, 3, 32)))


class Forgetful(Reader):
    """Reads all of a prompt, and then keeps its first token and its last ones."""

    needs = frozenset({CacheNeed.COMPACT})

    def read(self, run: Generation) -> Read:
        logits = run.forward(run.request.prompt, "read")
        kept = torch.tensor([0, 4, 5, 6, 7])
        for layer in range(len(run.cache.layers)):
            compact(run.cache, layer, kept)
        run.compacted(len(kept))
        return Read(logits[:, -1], run.request.prompt, run.features, (len(kept),) * len(run.cache.layers))


@dataclass(frozen=True)
class Forgetting(Method):
    """A prefill method in a few lines, as others may add one."""

    name: ClassVar[str] = "forgetting"
    family: ClassVar[str] = "prefill"
    paper: ClassVar[str] = "None"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.READER})

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        with passes_of(model) as passes:
            yield Attached(passes, reader=Forgetful())


def test_a_reader_that_forgets_leaves_what_follows_in_its_place(model: Any, folders: dict[str, Path]) -> None:
    """Beside a model from which the forgotten positions are hidden by a mask."""
    kept, tokens = [0, 4, 5, 6, 7], list[int]()
    with torch.no_grad():
        for _ in range(16):
            ids = torch.cat([PROMPT, torch.tensor([tokens], dtype=torch.long)], 1)
            length = ids.shape[1]
            mask = torch.full((length, length), float("-inf")).triu(1)
            mask[8:, [place for place in range(8) if place not in kept]] = float("-inf")
            logits = model(ids, attention_mask=mask[None, None], position_ids=torch.arange(length)[None]).logits
            tokens.append(int(logits[0, -1].argmax()))
    alone = Arm.of(Forgetting())
    found, trace = answered(model, alone)
    assert found == tokens != answered(model, "dense")[0]
    assert [one.context for one in trace.passes] == [0, *range(5, 20)]
    drafted = parse_arm(f"eagle-3(depth=3):{folders['drafter']}").members
    assert answered(model, Arm((*alone.members, *drafted)))[0] == tokens
    sparse = f"r-sparse(ratio=0.9):{folders['r-sparse(ratio=0.9)']}"
    both = answered(model, Arm((ArmMember(Forgetting()), *parse_arm(sparse).members)))[0]
    assert both != tokens and both != answered(model, sparse)[0]


def test_caches_that_exclude_each_other_are_refused_before_anything_is_read(model: Any) -> None:
    with passes_of(model) as passes:
        static = Attached(passes, decoder=PlainDecoder(model, cache="static"))
        with pytest.raises(MethodError, match=r"plain needs a cache in memory of a fixed size, and pruned needs"):
            generator_of(model, {"pruned": Attached(passes, reader=Forgetful()), "plain": static})
        assert passes.ledger.passes == ()


@pytest.mark.parametrize("arm", [
    "autoregressive", "autoregressive(cache=static)", "dense(cache=static)", "full", "claa", "snapkv",
    "prompt-lookup",
    "eagle-3:{drafter}", "eagle-3(tokens=9):{drafter}", "r-sparse(ratio=0.9):{sparse}",
])  # fmt: skip
def test_a_method_says_beforehand_what_its_parts_ask_of_the_cache(
    model: Any, folders: dict[str, Path], arm: str
) -> None:
    """Arms are refused by what methods say, before any model is there, and caches are made by what parts ask for."""
    (member,) = parse_arm(arm.format(drafter=folders["drafter"], sparse=folders["r-sparse(ratio=0.9)"])).members
    with Arm((member,)).attach(model) as its:
        parts = [each for each in (its.reader, its.decoder, its.usual_decoder) if each is not None]
        assert frozenset().union(*(each.needs for each in parts)) == member.method.cache_needs


def test_of_decoders_that_methods_bring_along_the_compiled_one_is_taken_where_the_cache_lets_it(model: Any) -> None:
    def needs_of(reader: Reader, *decoders: Decoder) -> frozenset[CacheNeed]:
        chosen = usual_decoder([Attached(passes, usual_decoder=each) for each in decoders], reader)
        return frozenset() if chosen is None else chosen.needs

    with passes_of(model) as passes:
        plain, compiled = PlainDecoder(model), PlainDecoder(model)
        compiled.needs = frozenset({CacheNeed.HELD})
        for decoders in ((plain, compiled), (compiled, plain)):
            assert needs_of(FullReader(), *decoders) == compiled.needs
            assert not needs_of(Forgetful(), *decoders)
        assert not needs_of(Forgetful(), compiled)


def test_layers_that_forget_by_themselves_are_not_compacted() -> None:
    windowed = random_model(tiny_configuration("mistral"), seed=0)
    with pytest.raises(MethodError, match="keep a window of the latest positions"):
        negotiate(windowed, {"pruned": [CacheNeed.COMPACT]})


def test_sparse_layers_stand_under_transformers_own_loop(model: Any, folders: dict[str, Path]) -> None:
    arm = f"r-sparse(ratio=0.9):{folders['r-sparse(ratio=0.9)']}"
    tokens, trace = answered(model, arm)
    copied = shared_copy(model)
    before = [name for name, module in copied.named_modules() if module._forward_pre_hooks or module._forward_hooks]
    with parse_arm(arm).attach(copied) as attached:
        found = copied.generate(
            PROMPT, attention_mask=torch.ones_like(PROMPT), do_sample=False, max_new_tokens=16, eos_token_id=None
        )
        passes = attached.ledger.passes
    assert found[0, 8:].tolist() == tokens
    assert [(one.kind, one.tokens, one.context, one.read) for one in passes] == [
        (one.kind, one.tokens, one.context, one.read) for one in trace.passes
    ]
    assert attached.figures(passes) == trace.figures
    assert not any("forward" in vars(module) for module in copied.modules())
    assert before == [n for n, m in copied.named_modules() if m._forward_pre_hooks or m._forward_hooks]


def test_sparse_layers_stand_in_an_audio_model(tmp_path: Path) -> None:
    """Its own `generate`, from sound, beside our loop over the embeddings that it makes of it."""
    text = {**tiny_configuration("llama").to_dict(), "model_type": "qwen2", "vocab_size": 199, "head_dim": 8}
    audio = {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "num_mel_bins": 8,
    }
    configuration = Qwen2AudioConfig(
        audio_config={**audio, "max_source_positions": 20}, text_config=text, audio_token_index=198
    )
    torch.manual_seed(0)
    whole = Qwen2AudioForConditionalGeneration(configuration).eval()
    drawn = torch.Generator().manual_seed(4)
    texts = [torch.randint(190, (1, 24), generator=drawn) for _ in range(4)]
    method = parse_method("r-sparse(ratio=0.9)")
    recipe = method.fit(whole, texts)
    assert all("audio_tower" not in name for name in recipe.modules) and len(find_groups(whole)) == 8
    sound = torch.randn(1, 8, 40, generator=drawn)
    heard = 10
    ids = torch.tensor([[1, *[198] * heard, 7, 9]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": sound,
        "feature_attention_mask": torch.ones(1, 40, dtype=torch.long),
    }
    given: dict[str, Any] = {}

    def keep(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        given.setdefault("embeddings", named["inputs_embeds"].clone())

    with method.attach(whole, recipe) as attached:
        hook = whole.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
        with torch.inference_mode():
            found = whole.generate(**inputs, do_sample=False, max_new_tokens=8, eos_token_id=None)
        hook.remove()
        passes = attached.ledger.passes
        kinds = [one.kind for one in passes]
        assert kinds == ["read", *["decode"] * 7] and all(one.read for one in passes[1:])
        tokens: list[int] = []
        generator = generator_of(whole, {"r-sparse": attached})
        embedded = Embedded(given["embeddings"])
        generator.generate(Request(ids, 8, embedded=embedded), tokens.extend)
    assert tokens == found[0, ids.shape[1] :].tolist()


class Echo(Generator):
    """An engine of its own."""

    def generate(self, request: Request, emit: Emit) -> Trace:
        emit([int(request.prompt[0, 0])] * request.most_tokens)
        return Trace()


def test_an_arm_may_own_its_generation(model: Any) -> None:
    with passes_of(model) as passes:
        tokens: list[int] = []
        generator = generator_of(model, {"foreign": Attached(passes, generator=Echo())})
        generator.generate(REQUEST, tokens.extend)
        assert tokens == [5] * 16 and generator.logits(REQUEST, [1]) is None
        whole = Attached(passes, decoder=PlainDecoder(model))
        with pytest.raises(MethodError, match="one generates by itself"):
            generator_of(model, {"foreign": Attached(passes, generator=Echo()), "plain": whole})


def test_what_is_tapped_is_the_latest_pass_alone(model: Any) -> None:
    layer = model.model.layers[1]
    with tapping({1: layer}) as kept, torch.no_grad():
        model(PROMPT)
        first = kept[1]
        model(PROMPT[:, :3])
        assert first.shape == (1, 8, 32) and kept[1].shape == (1, 3, 32)
    assert not layer._forward_pre_hooks
