"""The parts of a model are found whatever holds it, every parameter is counted, and what is unknown is refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from vivace_methods.models.anatomy import Anatomy, anatomy, shapes
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shapes import TINY_SHAPES
from vivace_methods.protocol import MethodError

TEXT = {**TINY_SHAPES["llama"], "model_type": "qwen2"}
LISTENER = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32}
VIEWER = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}


def omni_configuration() -> Any:
    return Qwen2_5OmniThinkerConfig(
        audio_config={**LISTENER, "output_dim": 32},
        vision_config={**VIEWER, "fullatt_block_indexes": [0]},
        text_config={**TINY_SHAPES["qwen2"], "model_type": "qwen2_5_omni_text", "rope_parameters": ROPE},
    )


def holders() -> dict[str, tuple[Any, Any]]:
    """Models that hold a text decoder → their class and configuration."""
    return {
        "qwen2-audio": (
            Qwen2AudioForConditionalGeneration,
            Qwen2AudioConfig(audio_config={**LISTENER, "num_mel_bins": 16}, text_config=TEXT),
        ),
        "qwen2.5-omni": (Qwen2_5OmniThinkerForConditionalGeneration, omni_configuration()),
        "qwen3-omni": (
            Qwen3OmniMoeThinkerForConditionalGeneration,
            Qwen3OmniMoeThinkerConfig(
                audio_config={**LISTENER, "output_dim": 32, "downsample_hidden_size": 8},
                vision_config={**VIEWER, "deepstack_visual_indexes": [0]},
                text_config={
                    **TINY_SHAPES["qwen3_moe"],
                    "model_type": "qwen3_omni_moe_text",
                    "rope_parameters": {**ROPE, "mrope_interleaved": True},
                },
            ),
        ),
        "voxtral": (
            VoxtralForConditionalGeneration,
            VoxtralConfig(
                audio_config={
                    "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
                },
                text_config={**TINY_SHAPES["llama"], "head_dim": 8},
            ),
        ),
        "gemma3": (
            Gemma3ForConditionalGeneration,
            Gemma3Config(
                text_config=TINY_SHAPES["gemma3_text"],
                vision_config={
                    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "image_size": 28, "patch_size": 14,
                },
                mm_tokens_per_image=4,
            ),
        ),
    }  # fmt: skip


def made(holder: str) -> Any:
    """Without memory: only its shape is of interest."""
    kind, configuration = holders()[holder]
    with torch.device("meta"):
        return kind(configuration)


def weights(found: Anatomy) -> int:
    """Of the decoder, as the shapes tell them."""
    its = found.shapes
    layers = sum(
        layer.matrices + layer.vectors + layer.experts * (layer.expert + layer.expert_vectors) for layer in its.layers
    )
    return its.vocabulary * its.hidden + layers + its.norm


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
def test_every_part_of_a_language_model_is_found(kind: str) -> None:
    model = random_model(tiny_configuration(kind))
    found = anatomy(model)
    assert found.decoder is model.model and found.head is model.lm_head
    assert found.embedding is model.get_input_embeddings() and found.norm is model.model.norm
    assert [layer.module for layer in found.layers] == list(model.model.layers)
    for layer in found.layers:
        parts = [layer.attention, layer.mlp, *layer.norms]
        assert {id(each) for each in parts} == {id(each) for each in layer.module.children()}
        inner = [each for each in (layer.router, layer.experts, *layer.shared) if each is not None]
        if inner:
            assert {id(each) for each in inner} == {id(each) for each in layer.mlp.children()}
    assert weights(found) == sum(each.numel() for each in model.model.parameters())
    assert found.shapes.head == 199 * 32
    assert len(found.mixtures) == (2 if "num_experts_per_tok" in TINY_SHAPES[kind] else 0)


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
def test_the_configuration_alone_tells_the_same(kind: str) -> None:
    configuration = tiny_configuration(kind)
    assert shapes(configuration) == anatomy(random_model(configuration)).shapes
    assert shapes(deepcopy(configuration)) is shapes(configuration)  # and is looked into once


@pytest.mark.parametrize("holder", list(holders()))
def test_the_decoder_in_a_model_of_audio_or_images_is_found(holder: str) -> None:
    model = made(holder)
    found = anatomy(model)
    assert found.decoder is model.model.language_model and found.head is model.lm_head
    assert len(found.layers) == 2
    assert weights(found) == sum(each.numel() for each in found.decoder.parameters())
    assert shapes(model.config) == found.shapes


def test_a_whole_omni_model_is_known_by_its_thinker() -> None:
    whole = Qwen2_5OmniConfig(thinker_config=omni_configuration().to_dict())
    assert shapes(whole) == anatomy(made("qwen2.5-omni")).shapes


def test_wrappers_are_seen_through() -> None:
    class Adapted(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.base_model = inner

    model = random_model(tiny_configuration("mixtral"))
    found = anatomy(Adapted(Adapted(model)))
    assert found.decoder is model.model and found.head is model.lm_head
    bare = anatomy(model.model)
    assert bare.decoder is model.model and bare.head is None and bare.shapes == found.shapes


def test_windows_are_those_of_each_layer() -> None:
    def windows(configuration: Any) -> list[int | None]:
        return [layer.window for layer in shapes(configuration).layers]

    assert windows(tiny_configuration("mistral")) == [16, 16]
    assert windows(tiny_configuration("gemma3_text")) == [16, None]
    assert windows(tiny_configuration("llama")) == [None, None]
    late = Qwen2Config(**TEXT, use_sliding_window=True, sliding_window=9, max_window_layers=1)
    assert windows(late) == [None, 9]
    assert windows(Qwen2Config(**TEXT, sliding_window=9)) == [None, None]  # has one, and does not use it
    mistral = tiny_configuration("mistral")
    mistral.sliding_window = None
    assert windows(mistral) == [None, None]


@pytest.mark.parametrize(("option", "value"), [("mlp_only_layers", [0]), ("decoder_sparse_step", 2)])
def test_layers_may_differ(option: str, value: Any) -> None:
    configuration = tiny_configuration("qwen3_moe")
    setattr(configuration, option, value)
    dense, mixture = shapes(configuration).layers
    assert (dense.experts, dense.mlp, mixture.experts, mixture.mlp) == (0, 3 * 32 * 48, 8, 0)
    found = anatomy(random_model(configuration))
    assert found.mixtures == found.layers[1:] and found.shapes == shapes(configuration)


def test_looking_at_a_configuration_changes_nothing() -> None:
    """Whoever samples gets the same tokens, and the configuration is as it was."""
    configuration = tiny_configuration("mixtral")
    configuration.vocab_size = 123  # seen by no other test
    configuration._attn_implementation = "sdpa"
    written, state = configuration.to_dict(), torch.get_rng_state()
    assert shapes(configuration).vocabulary == 123
    assert torch.equal(torch.get_rng_state(), state) and configuration.to_dict() == written
    assert configuration._attn_implementation == "sdpa" and torch.get_default_device().type == "cpu"


def test_what_is_unknown_is_refused_by_name() -> None:
    mamba = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    bert = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with torch.device("meta"):
        models = {"mamba": MambaForCausalLM(mamba), "bert": BertModel(bert), "Linear": torch.nn.Linear(2, 2)}
    for name, model in models.items():
        with pytest.raises(MethodError, match=f"^'{name}' is an architecture .*; known are .*llama.*mixtral"):
            anatomy(model)
    for configuration in (mamba, bert):
        with pytest.raises(MethodError, match=f"^'{configuration.model_type}' is an architecture"):
            shapes(configuration)


def test_two_decoders_are_one_too_many() -> None:
    with torch.device("meta"):
        both = torch.nn.ModuleList([made("voxtral"), made("gemma3")])
    with pytest.raises(MethodError, match=r"holds 2 text decoders \(LlamaModel, Gemma3TextModel\)"):
        anatomy(both)
