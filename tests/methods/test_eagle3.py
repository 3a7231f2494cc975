"""EAGLE-3 writes the target's own tokens whatever its drafter says, and a drafter that does not belong is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, DynamicCache, LlamaConfig

from vivace_methods.decoding.joined import applied
from vivace_methods.models.layer_inputs import layers_of, tapping
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration
from vivace_methods.speculation.drafters.eagle3_checkpoint import load_drafter, save_drafter
from vivace_methods.speculation.drafters.eagle3_training import unrolled_losses
from vivace_methods.speculation.eagle3 import Eagle3


def target_of(kind: str) -> Any:
    return random_model(tiny_configuration(kind), seed=0)


def drafter_of(target: Any, seed: int = 0) -> Eagle3Drafter:
    torch.manual_seed(seed)
    configuration = new_configuration(target.config, intermediate=48, taps=(0, 1, 1))
    return Eagle3Drafter(configuration, target.get_input_embeddings()).eval()


def all_knowing(target: Any, expected: list[int], prompt_length: int) -> Eagle3Drafter:
    """A drafter that drafts what the target will write, as far as two of three times."""

    class AllKnowing(Eagle3Drafter):
        def forward(self, tokens: Any, features: Any, past: Any) -> Any:
            out, kept = super().forward(tokens, features, past)
            self.position = kept.keys.shape[2] - 1
            return out, kept

        def logits(self, out: Any) -> Any:
            place = self.position + 2 - prompt_length  # of the token after the one that the position is paired with
            right = expected[place] if place < len(expected) and place % 3 else 0
            return torch.nn.functional.one_hot(torch.tensor([[right]]), self.config.vocab_size).float()

    base = drafter_of(target)
    return AllKnowing(base.config, target.get_input_embeddings()).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmoe", "qwen3_moe"])
def test_the_tokens_are_the_targets_own(kind: str) -> None:
    target = target_of(kind)
    for prompt in ([5, 9, 2, 7], [11], [3] * 40):
        ids = torch.tensor([prompt])
        whole = target.generate(ids, do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0)
        expected = whole[0, len(prompt) :].tolist()
        for drafter in (drafter_of(target), all_knowing(target, expected, len(prompt))):
            for most, ends in ((20, frozenset[int]()), (1, frozenset[int]()), (20, frozenset({expected[7]}))):
                tokens: list[int] = []
                with applied(parse_method("eagle-3(depth=4)"), target, drafter) as generator:
                    figures = generator.generate(Request(ids, most, ends), tokens.extend).figures
                right = expected[:most]
                assert tokens == (right[: right.index(expected[7]) + 1] if ends else right)
                assert sum(figures["acceptance_lengths"]) == len(tokens) - 1


def test_right_drafts_are_accepted() -> None:
    """A cache that is cropped wrongly, or a feature one place off, would still give right tokens, but one a pass."""
    target = target_of("llama")
    ids = torch.tensor([[5, 9, 2, 7]])
    whole = target.generate(ids, do_sample=False, max_new_tokens=22, eos_token_id=None, pad_token_id=0)
    drafter = all_knowing(target, whole[0, 4:].tolist(), 4)
    with applied(Eagle3(depth=5), target, drafter) as generator:
        figures = generator.generate(Request(ids, 22), lambda step: None).figures
    assert figures["acceptance_lengths"] == [3] * 7 and figures["tau"] == 3


def test_the_target_is_left_as_it_was() -> None:
    target = target_of("olmoe")

    def state() -> Any:
        return (
            [sorted(module.__dict__) for module in target.modules()],
            target.config.to_dict(),
            sum(
                len(module._forward_pre_hooks) + len(module._forward_pre_hooks_with_kwargs)
                for module in target.modules()
            ),
        )

    before = state()
    with pytest.raises(RuntimeError, match="body"), applied(Eagle3(), target, drafter_of(target)) as generator:
        generator.generate(Request(torch.tensor([[1, 2]]), 3), lambda step: None)
        raise RuntimeError("body")
    assert state() == before


def test_unrolled_training_sees_what_drafting_sees() -> None:
    """The loss of each unrolled step, against the chain that is drafted one position at a time."""
    target = target_of("llama")
    drafter = drafter_of(target)
    tokens = torch.randint(1, 199, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), tapping(layers_of(target, drafter.taps)) as tapped:
        logits = target(tokens).logits
        inputs = [tapped[tap] for tap in drafter.taps]
        for start in (2, 4):
            counted = torch.zeros(1, 9, dtype=torch.bool)
            losses = []
            for step in range(3):
                counted = torch.zeros(1, 9, dtype=torch.bool)
                counted[0, start + 1 + step] = True
                losses.append(unrolled_losses(drafter, tokens, inputs, logits, counted, 3)[step])
            features = drafter.fuse([each[:, : start + 1] for each in inputs])
            out, past = drafter(tokens[:, 1 : start + 2], features, None)
            for step in range(3):
                wanted = logits[0, start + 1 + step].softmax(-1)
                expected = -(wanted * drafter.logits(out[:, -1])[0].log_softmax(-1)).sum()
                assert losses[step].item() == pytest.approx(expected.item(), abs=1e-5)
                following = tokens[:, start + 2 + step : start + 3 + step]
                out, past = drafter(following, out[:, -1:], past)
        with pytest.raises(ValueError, match="nothing to learn from"):
            unrolled_losses(drafter, tokens, inputs, logits, torch.zeros(1, 9, dtype=torch.bool), 3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a drafter of a tiny Llama."""
    save_drafter(drafter_of(target_of("llama")), tmp_path)
    return tmp_path


def test_a_saved_drafter_is_read_back(saved: Path) -> None:
    target = target_of("llama")
    read = load_drafter(saved, target).state_dict()
    for name, weight in drafter_of(target).state_dict().items():
        assert torch.equal(read[name], weight.to(torch.bfloat16).float())


def test_a_smaller_vocabulary_is_led_back_to_the_targets(saved: Path) -> None:
    """d2t holds differences: a table that were read as ids would draft other tokens."""
    target = target_of("llama")
    kept = torch.tensor([3, 50, 120])
    weights = load_file(saved / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][kept].clone()
    weights["d2t"] = kept - torch.arange(3)
    weights["t2d"] = torch.zeros(199, dtype=torch.bool).index_fill(0, kept, True)
    save_file(weights, saved / "model.safetensors")
    changed(saved, draft_vocab_size=3)
    assert load_drafter(saved, target).target_ids(torch.tensor([2, 0, 1])).tolist() == [120, 3, 50]


def changed(folder: Path, **values: Any) -> None:
    """Change a drafter's configuration."""
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **values}))


def rewritten(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    """A change of a drafter's weights."""

    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return apply


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
    "a whole model": (
        lambda folder: LlamaConfig(vocab_size=199, hidden_size=32).save_pretrained(folder), "no draft_vocab_size",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 40), "is damaged"),
    "another vocabulary": (lambda folder: changed(folder, vocab_size=198), "made for a model of 198 tokens"),
    "another width": (lambda folder: changed(folder, hidden_size=64), "64 hidden numbers"),
    "layers that are not there": (
        lambda folder: changed(folder, eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 2, 9]}),
        "reads the layers",
    ),
    "a later drafter": (lambda folder: changed(folder, fc_norm=True), "missing fc_norm"),
    "two layers": (lambda folder: changed(folder, num_hidden_layers=2), "has 2 layers"),
    "a weight missing": (rewritten(lambda weights: weights.pop("fc.weight")), "missing fc.weight"),
    "a weight too many": (
        rewritten(lambda weights: weights.update({"layers.0.x": torch.ones(1)})), "unknown layers.0.x",
    ),
    "a weight of another shape": (
        rewritten(lambda weights: weights.update({"norm.weight": torch.ones(31)})), "norm.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_a_drafter_that_does_not_belong_is_one_sentence(what: str, saved: Path) -> None:
    spoil, said = WRONG[what]
    spoil(saved)
    with pytest.raises(MethodError, match=said) as caught:
        Eagle3().read_fitted(saved, target_of("llama"))
    assert "\n" not in str(caught.value)


def test_without_a_drafter_or_a_depth_it_is_refused() -> None:
    with pytest.raises(MethodError, match="needs a drafter"):
        applied(Eagle3(), target_of("llama"))
    with pytest.raises(MethodError, match="depth"):
        parse_method("eagle-3(depth=0)")


SIZES: dict[str, Any] = {
    "vocab_size": 199, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"head_dim": 8, "use_sliding_window": True, "max_window_layers": 0},
    "phi3": {},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Architectures whose layers see a part of what was read, some all of them and some every other one."""


@pytest.mark.parametrize("kind", list(WINDOWED))
def test_the_tokens_are_the_targets_own_beyond_a_sliding_window(kind: str) -> None:
    """Where prompt, answer or draft reach over the window, what left it must be back after a rejected draft."""
    configuration = AutoConfig.for_model(kind, **{**SIZES, **WINDOWED[kind]}, sliding_window=7)
    target = random_model(configuration)
    assert True in DynamicCache(config=target.config).is_sliding
    for length in (5, 30):
        ids = torch.randint(199, (1, length), generator=torch.Generator().manual_seed(length))
        expected: list[int] = []
        with applied(parse_method("autoregressive"), target) as generator:
            generator.generate(Request(ids, 20), expected.extend)
        for depth, drafter in ((4, drafter_of(target)), (9, all_knowing(target, expected, length))):
            tokens: list[int] = []
            with applied(Eagle3(depth), target, drafter) as generator:
                figures = generator.generate(Request(ids, 20), tokens.extend).figures
            assert tokens == expected
        assert figures["tau"] > 2, "drafts are accepted, too"


LINEAR = {
    "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("qwen3_next", LINEAR, "a state that only goes forward"),
        ("mamba", {"state_size": 4}, "taps the layers of plain language models"),
    ],
)
def test_a_target_that_cannot_take_a_draft_back_is_refused_before_anything_is_read(
    kind: str, more: dict[str, Any], reason: str
) -> None:
    target = random_model(AutoConfig.for_model(kind, **{**SIZES, **more}))
    with pytest.raises(MethodError, match=reason), applied(Eagle3(), target, None):
        pytest.fail("it started")
