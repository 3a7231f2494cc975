"""The arms of a run: what a person writes, swept over settings, beside the family's baseline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from vivace.errors import UsageError
from vivace.spec import EfficiencySpec, parse_spec
from vivace.tracks.efficiency.planned_arms import plan_arms
from vivace.tracks.efficiency.track import EfficiencyTrack
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.registry import method_of, parse_method
from vivace_methods.spelling import parse

DRAFTER = "zoo:moe-drafter"
TASK = "tokens(length=8,vocabulary=64)"
"""Of which every model here can be asked."""


def test_the_baseline_comes_first_and_is_not_asked_for_twice_unless_it_is() -> None:
    assert plan_arms("sparsity", [], {}, "dense") == plan_arms("sparsity", ["dense"], {}, "dense")
    assert list(plan_arms("sparsity", ["dense", "dense"], {}, "dense")) == ["dense", "dense #2"]
    assert list(plan_arms("sparsity", ["dense"], {}, "dense(cache=static)")) == ["dense(cache=static)", "dense"]
    assert list(plan_arms("sparsity", ["dense"], {}, None)) == ["dense"], "the baseline is yet to be found"
    assert plan_arms("sparsity", [], {}, None) == {}


def test_a_sweep_takes_each_value_of_the_arms_that_have_the_setting() -> None:
    arms = plan_arms("speculation", [f"eagle-3:{DRAFTER}"], {"depth": ["2", "5", "7"]}, "autoregressive")
    assert [arm.settings.get("depth") for arm in arms.values()] == [None, 2, 5, 7]
    assert all(arm.fitted == DRAFTER for name, arm in arms.items() if name != "autoregressive")
    assert plan_arms("speculation", [f"eagle-3:{DRAFTER}"], {"depth": [2, 5, 7]}, "autoregressive") == arms


def test_a_swept_value_is_named_also_where_it_is_the_default() -> None:
    arms = plan_arms("sparsity", ["teal", "r-sparse(ratio=0.9)"], {"sparsity": [0.4, 0.5]}, "dense")
    assert list(arms) == [
        "dense", "teal(sparsity=0.4)", "teal(sparsity=0.5)",
        "r-sparse(sparsity=0.4,ratio=0.9)", "r-sparse(sparsity=0.5,ratio=0.9)",
    ]  # fmt: skip
    assert len({arm.label for arm in arms.values()}) == 5
    assert {arm.label for arm in arms.values()} >= {"teal"}, "by itself it stays the short one"
    for name, arm in arms.items():
        assert plan_arms("sparsity", [name], {}, None) == {arm.label: arm}, "its name is read as the same arm"


@pytest.mark.parametrize(
    ("family", "written", "sweep", "baseline", "said"),
    [
        ("sparsity", ["full"], {}, None, "belongs to the track prefill; those of sparsity are dense"),
        ("prefill", [], {"budget": ["8"]}, None, "no arm has a setting 'budget'"),
        ("speculation", [f"eagle-3:{DRAFTER}"], {"depth": ["many"]}, None, "must be an integer"),
        ("speculation", [f"eagle-3:{DRAFTER}"], {"depth": [0]}, None, "must be at least 1"),
        ("speculation", ["eagle-3"], {}, None, "needs a drafter"),
        ("prefill", [], {}, "fastest", "There is no method 'fastest'"),
        ("sparsity", ["teal:/data/a+b"], {}, None, "There is no method 'b' .* quotation marks, teal:'/data/a"),
        ("sparsity", ["int8(only=[)"], {}, None, "only, '\\[', is no regular expression"),
        ("sparsity", ["teal(only=*)"], {}, None, "only, '\\*', is no regular expression"),
        (
            "prefill",
            ["claa+autoregressive(cache=static)"],
            {},
            None,
            "autoregressive needs a cache in memory of a fixed size, and claa needs a cache whose layers keep",
        ),
        (
            "sparsity",
            ["r-sparse(compile=reduce-overhead)+claa"],
            {},
            None,
            "r-sparse needs a cache that stays in",
        ),
        ("sparsity", ["teal(compile=reduce-overhead)+prompt-lookup"], {}, None, "latest positions can be taken back"),
        (
            "prefill",
            ["full(attention=flash_attention_2)+eagle-3(tokens=9):zoo:moe-drafter"],
            {},
            None,
            "full needs a cache under no mask but that of the order",
        ),
        ("speculation", ["autoregressive(compile=reduce-overhead)"], {}, None, "use cache=static with it"),
        ("sparsity", ["dense+teel:/data"], {}, None, "There is no method 'teel' .did you mean 'teal'"),
    ],
)
def test_what_cannot_be_measured_is_named(
    family: str, written: list[str], sweep: dict[str, list[object]], baseline: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        plan_arms(family, written, sweep, baseline)


@pytest.mark.parametrize(
    ("model", "arm", "said"),
    [
        (
            "random:olmoe",
            "moe-spec(budget=1):zoo:moe-drafter",
            "A budget of 1 experts is too small for layer 0 of olmoe",
        ),
        ("random:llama", "moe-spec(budget=4):zoo:moe-drafter", "llama has no router that chooses experts"),
        ("random:qwen3_moe", "piggyback(own=5):zoo:moe-drafter", "keeps 5 experts of each token, and a token has 2"),
        ("random:olmoe", "eagle-3:zoo:moe-drafter", "made for a model of .* this one has 199: it belongs to another"),
        ("random:mistral", "snapkv", "latest 16 positions alone"),
        ("random:olmoe", "moe-spec(budget=99):zoo:moe-drafter", "99 experts bounds nothing in layer 0 of olmoe"),
        ("random:olmoe", "teal", "keeps its experts in one parameter"),
        ("random:llama", "int8(only=nowhere)", "in whose name 'nowhere' is found"),
        ("zoo:dense", "cats(only=nowhere)", "in whose name 'nowhere' is found"),
        ("random:llama", "claa(layer=9)", "the model has layers 0 to 1"),
        ("random:llama", "autoregressive(experts_implementation=vivace)", "has no experts: leave"),
        ("random:llama", "autoregressive(cache=static,compile=reduce-overhead)", "needs a CUDA device, .* on cpu"),
        ("random:llama", "teal(compile=reduce-overhead)", "compile=reduce-overhead needs a CUDA device"),
        ("random:llama", "full(attention=flash_attention_2)", "flash_attention_2 needs a CUDA device"),
        ("random:llama", "claa(attention=flash_attention_3)", "flash_attention_3 needs a CUDA device"),
    ],
)
def test_what_does_not_fit_the_model_is_told_before_a_run_is_recorded(
    model: str, arm: str, said: str, tmp_path: Path
) -> None:
    """By the preflight, which comes before the run's row; it used to be told by the process that measures."""
    track = method_of(parse(arm.partition(":")[0])[0]).family
    run = EfficiencyTrack(track).prepare(
        EfficiencySpec(track=track, model=model, tasks=[TASK], arms=[arm], limit=1, device="cpu"), tmp_path
    )
    with pytest.raises(UsageError, match=said):
        asyncio.run(run.preflight())


@pytest.mark.parametrize(
    ("arm", "said"), [("teal", "has no linear layers q_proj"), ("prompt-lookup", "keeps its own elsewhere")]
)
def test_a_model_whose_layers_are_elsewhere_is_refused_before_a_run_is_recorded(
    arm: str, said: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    shape = transformers.GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(shape).save_pretrained(tmp_path / "model")
    track = method_of(parse(arm)[0]).family
    asked = {"model": f"local:{tmp_path / 'model'}", "tasks": [TASK], "arms": [arm], "limit": 1}
    run = EfficiencyTrack(track).prepare(EfficiencySpec(track=track, **asked), tmp_path)
    with pytest.raises(UsageError, match=said):
        asyncio.run(run.preflight())


@pytest.mark.parametrize("arm", ["teal", "cats(only=mlp)", "int8(only=proj)", "prompt-lookup"])
def test_a_model_that_fits_is_let_pass_though_its_weights_are_nowhere_yet(arm: str, tmp_path: Path) -> None:
    track = method_of(parse(arm)[0]).family
    asked = {"model": "random:llama", "tasks": [TASK], "arms": [arm], "limit": 1}
    asyncio.run(EfficiencyTrack(track).prepare(EfficiencySpec(track=track, **asked), tmp_path).preflight())


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [
        ("random:llama", "tokens(vocabulary=300)", "has the token 29., and the model knows 199"),
        (
            "random:llama",
            "tokens(length=449,vocabulary=64)",
            "takes 449 tokens and its answer up to 64",
        ),
        ("random:llama", "sums", "has no tokenizer: give it the task tokens"),
        ("zoo:dense", "needles(length=300)", "takes 30. tokens and its answer up to .*, and the model holds 256"),
    ],
)
def test_a_prompt_that_a_model_cannot_be_asked_is_refused_before_a_run_is_recorded(
    model: str, task: str, said: str, tmp_path: Path
) -> None:
    asked = EfficiencySpec(track="sparsity", model=model, tasks=[task], arms=["dense"], limit=1)
    with pytest.raises(UsageError, match=said):
        asyncio.run(EfficiencyTrack("sparsity").prepare(asked, tmp_path).preflight())


def test_prompts_far_below_what_a_model_holds_are_counted_without_the_package_that_knows_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = EfficiencySpec(track="sparsity", model="zoo:dense", tasks=["sums"], arms=["dense"], limit=1)
    monkeypatch.setattr("vivace.tracks.efficiency.prompt_limits.tokenizer_of", lambda folder: pytest.fail("loaded"))
    asyncio.run(EfficiencyTrack("sparsity").prepare(asked, tmp_path).preflight())


def test_what_was_fitted_to_other_layers_or_cannot_be_read_is_refused_before_a_run_is_recorded(
    tmp_path: Path,
) -> None:
    method = parse_method("teal(sparsity=0.3)")
    llama = random_model(tiny_configuration("llama"), seed=0)
    method.fit(llama, [torch.arange(48)[None]] * 3).save(tmp_path / "recipe")

    def preflight(track: str, model: str, arm: str) -> None:
        asked = EfficiencySpec(track=track, model=model, tasks=[TASK], arms=[arm], limit=1, device="cpu")
        asyncio.run(EfficiencyTrack(track).prepare(asked, tmp_path).preflight())

    preflight("sparsity", "random:llama", f"{method.label}:{tmp_path / 'recipe'}")
    with pytest.raises(UsageError, match=r"says nothing of model.layers.2.self_attn.q_proj \(14 of 28 layers"):
        preflight("sparsity", "zoo:dense", f"{method.label}:{tmp_path / 'recipe'}")
    with pytest.raises(UsageError, match=r"holds no answers that can be read: there is no answers.jsonl"):
        preflight("prefill", "random:llama", f"oracle:{tmp_path / 'recipe'}")


def test_a_draft_model_of_fewer_positions_is_held_against_the_prompts_it_would_get(tmp_path: Path) -> None:
    shape = tiny_configuration("llama")
    assert shape.max_position_embeddings > 64
    shape.max_position_embeddings = 64
    random_model(shape, seed=0).save_pretrained(tmp_path / "short")

    def preflight(length: int) -> None:
        track = EfficiencyTrack("speculation")
        asked = {"model": "random:llama", "limit": 1, "most_tokens": 16}
        arms, tasks = [f"draft-model:{tmp_path / 'short'}"], [f"tokens(length={length},vocabulary=64)"]
        asyncio.run(track.prepare(spec(arms=arms, tasks=tasks, **asked), tmp_path).preflight())

    preflight(48)
    with pytest.raises(UsageError, match=r"holds 64 positions, and the prompt .* and its answer take up to 65"):
        preflight(49)


def spec(**values: object) -> EfficiencySpec:
    """A spec of the track speculation."""
    found = parse_spec({"track": "speculation", "model": "zoo:moe", "tasks": "sums", **values})
    assert isinstance(found, EfficiencySpec)
    return found


def test_lists_may_stand_on_one_line_with_commas_inside_of_brackets() -> None:
    found = spec(
        arms="autoregressive(cache=static,compile=none), eagle-3(depth=2):zoo:moe-drafter",
        tasks=["sums(operation=addition),code", "stories(sentences=4,people=2)"],
        sweep=["depth=2,5", "depth=7"],
    )
    assert found.arms == ["autoregressive(cache=static,compile=none)", "eagle-3(depth=2):zoo:moe-drafter"]
    assert found.tasks == ["sums(operation=addition)", "code", "stories(sentences=4,people=2)"]
    assert found.sweep == {"depth": ["2", "5", "7"]}
    assert parse_spec(found.as_json()) == found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"judge": "checks"}, "Unknown key 'judge'"),
        ({"tasks": []}, "'tasks'"),
        ({"sweep": ["depth"]}, "is not written as setting=value,value"),
        ({"sweep": "depth=2"}, "'sweep'"),
        ({"margin": 0}, "'margin'"),
        ({"device": "tpu"}, "'device'"),
        ({"limit": 0}, "'limit'"),
    ],
)
def test_a_spec_names_its_first_fault(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        spec(**values)
