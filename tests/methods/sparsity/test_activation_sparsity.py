"""Methods of activation sparsity on models: identities, exact restoration, protocols, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from vivace_kernels.sparsity.packed import Factors
from vivace_methods.decoding.joined import applied
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.activation import ActivationSparsity
from vivace_methods.sparsity.applying.linears import find_groups
from vivace_methods.sparsity.fitting.recipe import ModuleRecipe, Recipe

NAMES = ("r-sparse", "r-sparse(ratio=0.9)", "teal", "wina", "low-rank", "random-channels", "cats(sparsity=0.3)")
REQUEST = Request(torch.tensor([[5, 9, 2, 7, 11, 3]]), 12)
FORCED = [4, 8, 15, 16, 23, 42]


def method(text: str) -> ActivationSparsity:
    made = parse_method(text)
    assert isinstance(made, ActivationSparsity)
    return made


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(tiny_configuration(request.param), seed=3)


@pytest.fixture(scope="module")
def texts() -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(4)
    return [torch.randint(199, (1, 24), generator=drawn) for _ in range(8)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def forced_logits(model: Any, name: str, recipe: Any = None) -> torch.Tensor:
    with applied(parse_method(name), shared_copy(model), recipe) as generator:
        logits = generator.logits(REQUEST, FORCED)
    assert logits is not None
    return logits


def answered(model: Any, name: str, recipe: Any = None) -> tuple[list[int], dict[str, Any]]:
    tokens: list[int] = []
    with applied(parse_method(name), shared_copy(model), recipe) as generator:
        trace = generator.generate(REQUEST, tokens.extend)
    return tokens, trace.figures


@pytest.mark.parametrize(
    ("name", "launched"),
    [
        pytest.param("r-sparse(ratio=0.9%s)", 4, id="r-sparse(ratio=0.9%s)"),
        pytest.param("cats(sparsity=0.3%s)", 1, id="cats(sparsity=0.3%s)"),
    ],
)
def test_a_compiled_step_is_one_graph_that_does_the_same(
    model: Any, texts: list[torch.Tensor], name: str, launched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the making of CUDA graphs, for which there must be no break and nothing that is compiled anew.

    The graph has one call of our own for each input of a layer that is sparse, each of which is one launch.
    """
    counter = CompileCounterWithBackend("aot_eager")

    def compiled(model: Any, mode: str) -> Any:
        assert mode == "reduce-overhead"
        return torch.compile(model.forward, backend=counter, fullgraph=True, dynamic=False)

    monkeypatch.setattr("vivace_methods.decoding.plain.compiled_step", compiled)
    recipe = method(name % "").fit(model, texts)
    plain, figures = answered(model, name % "", recipe)
    tokens, its_figures = answered(model, name % ",compile=reduce-overhead", recipe)
    assert (tokens, its_figures) == (plain, figures)
    assert len(tokens) == REQUEST.most_tokens and counter.frame_count == 1
    calls = [node for node in counter.graphs[0].graph.nodes if "vivace.opaque" in str(node.target)]
    assert len(calls) == launched * model.config.num_hidden_layers


def test_a_compiled_step_needs_a_gpu(model: Any, texts: list[torch.Tensor]) -> None:
    recipe = method("teal").fit(model, texts)
    with pytest.raises(MethodError, match="compile=reduce-overhead needs a CUDA device"):
        answered(model, "teal(compile=reduce-overhead)", recipe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["r-sparse(ratio=0.9%s)", "teal(%s)", "cats(sparsity=0.3%s)"])
def test_on_a_gpu_graphs_give_what_single_kernels_give(model: Any, texts: list[torch.Tensor], name: str) -> None:
    there = random_model(model.config, seed=3, device=torch.device("cuda"))
    recipe = method((name % "").replace("()", "")).fit(there, [text.cuda() for text in texts])
    found = {}
    for compile in ("none", "auto"):
        written = (name % f",compile={compile}").replace("(,", "(")
        tokens: list[int] = []
        with applied(parse_method(written), shared_copy(there), recipe) as generator:
            for _ in range(3):  # the first is compiled, the second recorded, the third replayed
                tokens.clear()
                trace = generator.generate(replace(REQUEST, prompt=REQUEST.prompt.cuda()), tokens.extend)
        found[compile] = (list(tokens), trace.figures)
    assert found["auto"] == found["none"]


@pytest.mark.parametrize("name", ["r-sparse(sparsity=0.0,ratio=1.0)", "r-sparse(sparsity=0.0)", "teal(sparsity=0.0)"])
def test_at_no_sparsity_the_sparse_path_gives_what_dense_gives(
    model: Any, texts: list[torch.Tensor], name: str
) -> None:
    recipe = method(name).fit(model, texts)
    found, dense = forced_logits(model, name, recipe), forced_logits(model, "dense")
    assert float((found - dense).abs().max()) <= 1e-4 * float(dense.abs().max())
    tokens, figures = answered(model, name, recipe)
    assert tokens == answered(model, "dense")[0]
    assert set(figures["kept_channels"].values()) == {1.0}, "all channels were walked over, and none past them"


def test_full_rank_is_dense_at_any_mask(model: Any, texts: list[torch.Tensor]) -> None:
    name = "r-sparse(ratio=0.5)"
    fitted = method(name).fit(model, texts)
    modules, factors = {}, {}
    for group in find_groups(model):
        for layer, module in zip(group.names, group.modules, strict=True):
            left, values, right = torch.linalg.svd(module.weight.detach().double(), full_matrices=False)
            modules[layer] = replace(fitted.modules[layer], rank=len(values))
            factors[layer] = Factors((left * values).float(), right.float())
    recipe = replace(fitted, modules=modules, factors=factors)
    found, dense = forced_logits(model, name, recipe), forced_logits(model, "dense")
    assert float((found - dense).abs().max()) <= 1e-4 * float(dense.abs().max())


def test_at_ratio_one_it_is_teal(model: Any, texts: list[torch.Tensor]) -> None:
    for settings in ("sparsity=0.3", "sparsity=0.6", "sparsity=0.5,levels=greedy"):
        ours, theirs = f"r-sparse({settings},ratio=1.0)", f"teal({settings})"
        our_recipe, their_recipe = method(ours).fit(model, texts), method(theirs).fit(model, texts)
        assert our_recipe.modules == their_recipe.modules and not our_recipe.factors
        assert torch.equal(forced_logits(model, ours, our_recipe), forced_logits(model, theirs, their_recipe))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_what_it_was(model: Any, texts: list[torch.Tensor], name: str) -> None:
    def held() -> dict[str, Any]:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        return {
            **{
                f"{path} {key}": id(value)
                for path, part in model.named_modules()
                for key, value in vars(part).items()
            },
            **{path: (tensor.data_ptr(), tensor.dtype, tensor.stride(), tensor.clone()) for path, tensor in tensors},
        }

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, tuple):
            return bool(one[:3] == other[:3]) and torch.equal(one[3], other[3])
        return bool(one == other)

    made = method(name)
    with torch.inference_mode():
        before, logits = held(), model(REQUEST.prompt).logits
    recipe = made.fit(model, texts)
    with applied(made, model, recipe) as generator:
        generator.generate(REQUEST, lambda tokens: None)
        with torch.inference_mode():
            assert torch.equal(model(REQUEST.prompt).logits, logits), "a prompt is dense"
    with pytest.raises(RuntimeError, match="on purpose"), applied(made, model, recipe):
        raise RuntimeError("on purpose")
    after = held()
    assert before.keys() == after.keys()
    assert [key for key in before if not same(before[key], after[key])] == []
    with torch.inference_mode():
        assert torch.equal(model(REQUEST.prompt).logits, logits)


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_give_the_same_bits_and_what_is_read_is_counted(
    model: Any, texts: list[torch.Tensor], name: str
) -> None:
    recipe = method(name).fit(model, texts)
    assert torch.equal(forced_logits(model, name, recipe), forced_logits(model, name, recipe))
    tokens, figures = answered(model, name, recipe)
    assert (tokens, figures) == answered(model, name, recipe)
    assert len(figures["token_sparsity"]) == len(tokens) - 1, "the first token is the prompt's"
    # Short random texts are no good calibration: what is read is near to what was asked for, and not it.
    assert figures["sparsity"] == pytest.approx(method(name).sparsity, abs=0.12)
    assert figures["sparsity"] == pytest.approx(1 - figures["weights_read"] / figures["weights_dense"], abs=1e-6)
    dense = sum(module.weight.numel() for group in find_groups(model) for module in group.modules)
    assert figures["weights_dense"] == dense * (len(tokens) - 1)
    assert not torch.equal(forced_logits(model, name, recipe), forced_logits(model, "dense"))


def test_all_at_once_is_what_one_by_one_is(model: Any, texts: list[torch.Tensor]) -> None:
    """The masked product of whole texts, on which searches rest, beside the kernel that decodes."""
    name = "r-sparse(ratio=0.9,prompt=1.0)"
    recipe = method(name).fit(model, texts)
    with applied(method(name), shared_copy(model), recipe) as generator:
        one_by_one = generator.logits(Request(torch.tensor([[5]]), 6), [9, 2, 7, 11, 3])
    copied = shared_copy(model)
    with method(name).applied(copied, recipe), torch.inference_mode():
        at_once = copied(torch.tensor([[5, 9, 2, 7, 11]])).logits[0]
    assert one_by_one is not None and torch.allclose(one_by_one, at_once, atol=1e-5)


@pytest.mark.parametrize(("share", "sparse"), [(0.0, 0), (0.1, 1), (0.5, 5), (1.0, 10)])
def test_the_last_share_of_a_prompt_is_sparse(
    model: Any, texts: list[torch.Tensor], share: float, sparse: int
) -> None:
    name = f"teal(sparsity=0.6,prompt={share})"
    recipe = method(name).fit(model, texts)
    ids = texts[0][:, :10]
    copied = shared_copy(model)
    with torch.inference_mode():
        dense = copied(ids).logits[0]
        with method(name).applied(copied, recipe):
            found = copied(ids).logits[0]
    assert torch.allclose(found[: 10 - sparse], dense[: 10 - sparse], atol=1e-6)
    changed = (found - dense).abs().amax(-1) > 1e-3
    assert changed.tolist() == [False] * (10 - sparse) + [True] * sparse


def test_two_sequences_are_decoded_sparsely_and_three_densely(model: Any, texts: list[torch.Tensor]) -> None:
    name = "r-sparse(ratio=0.9)"
    recipe = method(name).fit(model, texts)
    copied = shared_copy(model)
    ids = torch.cat(texts[:3])

    def last(rows: int) -> torch.Tensor:
        out = copied(ids[:rows, :-1], use_cache=True)
        logits: torch.Tensor = copied(ids[:rows, -1:], past_key_values=out.past_key_values).logits[:, -1]
        return logits

    with torch.inference_mode():
        dense = last(3)
        with method(name).applied(copied, recipe) as (counts, _):
            alone = torch.cat([last(1), dense[1:2]])
            before = counts.clone()
            two = last(2)
            assert (counts - before).min() > 0
            before = counts.clone()
            three = last(3)
            assert torch.equal(counts, before)
    assert torch.allclose(two[0], alone[0], atol=1e-5)
    assert not torch.allclose(two[1], dense[1], atol=1e-3)
    assert torch.allclose(three, dense, atol=1e-6)


def test_layers_can_be_chosen_by_name(model: Any, texts: list[torch.Tensor]) -> None:
    recipe = method("teal(only=mlp)").fit(model, texts)
    assert {name.split(".")[-2] for name in recipe.modules} == {"mlp"}
    _, figures = answered(model, "teal(only=mlp)", recipe)
    layers = [group for group in find_groups(model) for _ in group.names]
    mlp = sum(m.weight.numel() for g in layers for n, m in zip(g.names, g.modules, strict=True) if "mlp" in n)
    every = sum(m.weight.numel() for g in layers for m in g.modules)
    assert figures["sparsity"] == pytest.approx(0.5 * mlp / every, abs=0.1), "over all seven layers"
    with pytest.raises(MethodError, match=r"no linear layers .* in whose name 'nothing' is found"):
        method("teal(only=nothing)").fit(model, texts)
    with pytest.raises(MethodError, match="no regular expression"):
        find_groups(model, "(")


def test_biases_are_added(texts: list[torch.Tensor]) -> None:
    configuration = tiny_configuration("llama")
    configuration.attention_bias = configuration.mlp_bias = True
    model = random_model(configuration, seed=5)
    for _, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias)
    for name in ("r-sparse(sparsity=0.0,ratio=0.9)", "cats(sparsity=0.0)"):
        recipe = method(name).fit(model, texts)
        found, dense = forced_logits(model, name, recipe), forced_logits(model, "dense")
        assert float((found - dense).abs().max()) <= 1e-4 * float(dense.abs().max())


@pytest.mark.parametrize("value", ["1.0", "1.5", "-0.1", "nan"])
def test_a_sparsity_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(MethodError, match=r"must be in \[0, 1\)|must be a number, not nan"):
        parse_method(f"r-sparse(sparsity={value})")


def test_cats_cannot_leave_out_more_than_its_layers(model: Any, texts: list[torch.Tensor]) -> None:
    with pytest.raises(MethodError, match="its sparsity must be below 0"):
        method("cats(sparsity=0.9)").fit(model, texts)


def test_what_it_does_not_apply_to_is_refused_and_untouched(texts: list[torch.Tensor]) -> None:
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=199)).eval()
    experts = random_model(tiny_configuration("olmoe"))
    tied = random_model(tiny_configuration("llama"))
    tied.model.layers[1].self_attn.q_proj.weight = tied.model.layers[0].self_attn.q_proj.weight
    quantised = random_model(tiny_configuration("llama"))
    quantised.config.quantization_config = {"quant_method": "bitsandbytes"}
    other = random_model(tiny_configuration("llama"))

    class Adapted(torch.nn.Linear):  # type: ignore[misc]
        """As an adapter's layers are."""

    other.model.layers[0].mlp.up_proj = Adapted(64, 128)
    cases = [
        (gpt2, "GPT2LMHeadModel has no linear layers q_proj"),
        (experts, "keeps its experts in one parameter"),
        (tied, "self_attn.q_proj are tied to model.layers.1.self_attn.q_proj.weight"),
        (quantised, "are quantised"),
        (other, "is a Adapted and no plain linear layer"),
    ]
    for model, reason in cases:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for name in ("teal", "cats(sparsity=0.1)"):
            with pytest.raises(MethodError, match=reason):
                method(name).fit(model, texts)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert not any("forward" in vars(part) for part in model.modules())


def test_tied_embeddings_are_none_of_its_business(texts: list[torch.Tensor]) -> None:
    configuration = LlamaConfig(
        vocab_size=199,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    assert method("teal").fit(AutoModelForCausalLM.from_config(configuration).eval(), texts).modules


def test_calibration_that_means_nothing_is_refused(model: Any, texts: list[torch.Tensor]) -> None:
    with pytest.raises(MethodError, match="has 4 tokens, and at least 16"):
        method("teal").fit(model, [texts[0][:, :4]])
    broken = random_model(tiny_configuration("llama"))
    with torch.no_grad():
        broken.model.embed_tokens.weight[7] = float("nan")
    for name in NAMES:
        with pytest.raises(MethodError, match="not finite"):
            method(name).fit(broken, [*texts, torch.full((1, 8), 7)])


def test_without_a_recipe_it_says_what_to_write(model: Any) -> None:
    with pytest.raises(MethodError, match=r"write r-sparse\(sparsity=0.4\):FOLDER"):
        applied(method("r-sparse(sparsity=0.4)"), model)


def test_other_settings_than_the_recipes_are_refused(model: Any, texts: list[torch.Tensor]) -> None:
    recipe = method("teal(sparsity=0.4)").fit(model, texts)
    with pytest.raises(MethodError, match=r"was fitted as teal\(sparsity=0.4\), and the arm is teal"):
        applied(method("teal"), model, recipe)
    with applied(method("teal(sparsity=0.4,prompt=0.5)"), shared_copy(model), recipe):
        pass  # how much of a prompt is sparse has nothing to do with fitting


def test_a_recipe_for_another_model_is_refused(model: Any, texts: list[torch.Tensor]) -> None:
    recipe = method("teal").fit(model, texts)
    twin = random_model(model.config, seed=9)
    with pytest.raises(MethodError, match="for other weights"):
        applied(method("teal"), twin, recipe)
    without = dict(recipe.modules)
    lost = without.popitem()[0]
    with pytest.raises(MethodError, match=f"says nothing of {lost}"):
        applied(method("teal"), model, replace(recipe, modules=without))
    more = {**recipe.modules, "model.layers.9.mlp.up_proj": ModuleRecipe(0.5, 1.0, 0, "magnitude", 0.1)}
    with pytest.raises(MethodError, match=r"has no|a layer model\.layers\.9"):
        applied(method("teal"), model, replace(recipe, modules=more))
    revised = shared_copy(model)
    revised.config._commit_hash = "b" * 40
    with pytest.raises(MethodError, match="at revision a"):
        applied(method("teal"), revised, replace(recipe, revision="a" * 40))


def test_a_recipe_is_the_same_in_the_type_that_it_is_loaded_in(texts: list[torch.Tensor]) -> None:
    half = random_model(tiny_configuration("llama"), dtype=torch.bfloat16)
    recipe: Recipe = method("r-sparse(ratio=0.9)").fit(half, texts)
    whole = shared_copy(half).float()
    with applied(method("r-sparse(ratio=0.9)"), whole, recipe) as generator:
        generator.generate(REQUEST, lambda tokens: None)
