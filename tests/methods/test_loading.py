"""Folders that hold no model: each way of that is a sentence, and nothing is ever made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from vivace_methods.models.loading import load_configuration, load_model
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model, saved as transformers saves it."""
    random_model(tiny_configuration("llama")).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_is_read(folder: Path) -> None:
    again = load_model(folder)
    assert not again.training and again.dtype == torch.float32
    assert torch.equal(again.lm_head.weight, random_model(tiny_configuration("llama")).lm_head.weight)


def test_weights_that_are_shared_are_not_missing(tmp_path: Path) -> None:
    configuration = tiny_configuration("llama")
    configuration.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(configuration).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_missing_tensor_is_named_and_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MethodError, match=r"lacks 1 of the weights .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)


def test_other_folders_are_refused_with_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"no config\.json"):
        load_model(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MethodError, match="pickled"):
        load_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(MethodError, match="There are no weights"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(MethodError, match="cannot be loaded as a causal language model"):
        load_model(folder)
    encoder = tmp_path / "encoder"
    shape = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
    )
    BertModel(shape).save_pretrained(encoder)
    with pytest.raises(MethodError, match=r"lacks|causal"):
        load_model(encoder)


def test_code_that_a_model_brings_is_not_run_and_not_asked_about(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    (folder / "strange.py").write_text(f"import pathlib; pathlib.Path({str(witness)!r}).touch()")
    brought = {"AutoConfig": "strange.Configuration", "AutoModelForCausalLM": "strange.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": brought}))
    for load in (load_model, load_configuration):
        with pytest.raises(MethodError, match="needs code of its own"):
            load(folder)
    assert not witness.exists()
