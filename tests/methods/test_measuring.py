"""Arms are measured on copies that share weights, resume by trial, fail alone, and are read as people write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from vivace_methods.arms import Arm
from vivace_methods.models.passes import Passes
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Attached, Emit, Generator, Method, MethodError, Request, Trace
from vivace_methods.registry import parse_arm, parse_arms
from vivace_methods.timing.measurement import measure_arms
from vivace_methods.timing.trials import Recording, TimedPrompt, Trial

PROMPTS = [TimedPrompt(f"p{length}", Request(torch.arange(length)[None], most_tokens=4)) for length in (9, 20, 5, 7)]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(tiny_configuration("llama"))


def measure(model: Any, arms: Any, **options: Any) -> Recording:
    given = {"baseline": next(iter(arms)), "repetitions": 2, "audited": 0, **options}
    return measure_arms(model, arms, PROMPTS, **given)


@pytest.mark.parametrize("kind", ["llama", "olmoe"])
def test_a_copy_shares_every_weight_and_nothing_else(kind: str) -> None:
    model = random_model(tiny_configuration(kind))
    copy = shared_copy(model)
    ids = torch.tensor([[1, 2, 3]])
    mine, its = ([*each.parameters(), *each.buffers()] for each in (model, copy))
    assert len(mine) == len(its) and all(one is other for one, other in zip(mine, its, strict=True))
    assert not {id(module) for module in model.modules()} & {id(module) for module in copy.modules()}
    expected = model(ids).logits
    assert torch.equal(copy(ids).logits, expected)
    copy.set_attn_implementation("eager")
    copy.model.layers[0].register_forward_hook(lambda module, inputs, output: output * 0)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(ids).logits, expected) and not torch.equal(copy(ids).logits, expected)


def test_tied_weights_stay_tied() -> None:
    configuration = tiny_configuration("llama")
    configuration.tie_word_embeddings = True
    copy = shared_copy(random_model(configuration))
    assert copy.lm_head.weight is copy.model.embed_tokens.weight


def test_resuming_times_what_is_left_and_pairs_within_a_session(model: Any) -> None:
    arms = parse_arms(["autoregressive", "full"])
    told: list[Trial] = []

    class Killed(Exception):
        pass

    def killed_after_five(trial: Trial) -> None:
        told.append(trial)
        if len(told) == 5:
            raise Killed

    with pytest.raises(Killed):
        measure(model, arms, on_trial=killed_after_five)
    done = {trial.key for trial in told}
    rest = measure(model, arms, done=done)
    assert {trial.key for trial in rest.trials} == {
        (arm, prompt.name, repetition) for arm in arms for prompt in PROMPTS for repetition in range(2)
    } - done
    both = Recording("autoregressive", (*told, *rest.trials))
    pairs = both.pairs("full")
    assert len(both.of("full")) == 8 and len(pairs) == 7, "the round that was cut has no pair"
    assert all(mine.session == other.session and mine.prompt == other.prompt for mine, other in pairs)
    assert measure(model, arms, done={trial.key for trial in both.trials}).trials == ()


def test_a_trial_survives_json(model: Any) -> None:
    for trial in measure(model, parse_arms(["full"])).trials:
        assert Trial.from_json(json.loads(json.dumps(trial.as_json()))) == trial


@dataclass(frozen=True)
class Hungry(Method):
    """Runs out of memory: where it is applied, or at its second prompt."""

    name: ClassVar[str] = "hungry"
    family: ClassVar[str] = "prefill"
    paper: ClassVar[str] = "None"

    at_once: bool = False

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        if self.at_once:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.\nGPU 0 has …")
        yield Attached(Passes(), generator=Eating())


class Eating(Generator):
    def __init__(self) -> None:
        self.asked = 0

    def generate(self, request: Request, emit: Emit) -> Trace:
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return Trace()


@pytest.mark.parametrize("at_once", [True, False])
def test_an_arm_that_runs_out_of_memory_fails_alone_and_is_not_tried_again(model: Any, at_once: bool) -> None:
    arms = {
        "full": parse_arm("full"),
        "hungry": Arm.of(Hungry(at_once)),
        "autoregressive": parse_arm("autoregressive"),
    }
    recording = measure(model, arms)
    assert len(recording.trials) == 24
    assert len(recording.pairs("autoregressive")) == 8 and recording.pairs("hungry") == []
    (reason,) = recording.failures("hungry")
    assert reason.startswith("out of memory (CU") and "\n" not in reason


def test_a_baseline_that_fails_leaves_the_others_their_trials(model: Any) -> None:
    recording = measure(model, {"hungry": Arm.of(Hungry(True)), "full": parse_arm("full")})
    assert len(recording.of("full")) == 8 and recording.pairs("full") == []


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("full", "full"),
        (" full( attention = eager ) ", "full(attention=eager)"),
        ("eagle-3:zoo:moe-drafter", "eagle-3:zoo:moe-drafter"),
        ("eagle-3(depth=3):/tmp/a (b):c", "eagle-3(depth=3):/tmp/a (b):c"),
    ],
)
def test_an_arm_is_written_as_its_label(text: str, label: str) -> None:
    arm = parse_arm(text)
    assert arm.label == label and parse_arm(arm.label) == arm


@pytest.mark.parametrize(
    "text", ["", "nothing", "eagle-3", "eagle-3:", "full:folder", "full(attention=eager", "(full)"]
)
def test_a_wrong_arm_is_one_sentence(text: str) -> None:
    with pytest.raises(MethodError) as caught:
        parse_arm(text)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_an_arm_written_twice_is_measured_twice(model: Any) -> None:
    arms = parse_arms(["full", "dense", "full"])
    assert list(arms) == ["full", "dense", "full #2"]
    assert len(measure(model, arms).pairs("full #2")) == 8


@pytest.mark.parametrize(
    "options", [{"baseline": "dense"}, {"repetitions": 0}, {"prompts": []}, {"prompts": [PROMPTS[0], PROMPTS[0]]}]
)
def test_a_senseless_comparison_is_refused(model: Any, options: Any) -> None:
    given = {"prompts": PROMPTS, "baseline": "full", "repetitions": 1, **options}
    with pytest.raises(MethodError):
        measure_arms(model, parse_arms(["full"]), given.pop("prompts"), **given)
