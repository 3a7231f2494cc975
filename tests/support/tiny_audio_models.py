"""Checkpoints of the real audio model classes with their real processors, made tiny and with random weights.

Each function writes a folder as its model's publisher does (safetensors, settings, vocabulary, template), so that
tests go through the very loading code that the real thing takes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    RwkvConfig,
    RwkvForCausalLM,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

MARKS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
"""The special tokens of the Qwen models, by the names that their processors ask for."""

TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

FORGETFUL_TEMPLATE = TEMPLATE.replace(
    "for message in messages", "for message in messages if message['role'] == 'user'"
)
"""Leaves out what the assistant said."""

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
"""A tiny language model; with weights as small as usual, every prompt would get the same reply."""
LISTENER = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32}
VIEWER = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
OMNI_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows every byte, a few words and the special tokens."""
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    model = Tokenizer(BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[*ends, *MARKS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(["system user assistant You are a helpful assistant."], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token=ends[2], pad_token=ends[0], extra_special_tokens=MARKS
    )
    fast.chat_template = template
    return fast


def _saved(model: Any, folder: Path, end: int, padding: int) -> Path:
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, padding
    model.save_pretrained(folder)
    return folder


def qwen2_audio(folder: Path, template: str | None = None) -> Path:
    """Qwen2-Audio, with its own chat template unless another is given."""
    words = tokenizer(None)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128), words, chat_template=template).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={**LISTENER, "num_mel_bins": 128, "max_source_positions": 1500, "init_std": 0.3},
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(words)},
        audio_token_index=words.convert_tokens_to_ids(MARKS["audio_token"]),
        initializer_range=0.3,
    )
    return _saved(Qwen2AudioForConditionalGeneration(config), folder, words.eos_token_id, words.pad_token_id)


def qwen2_5_omni(folder: Path) -> Path:
    """Qwen2.5-Omni as it is published: the thinker as a part of a model that could speak as well."""
    words = _omni_processor(folder, "Qwen2_5OmniProcessor", window_s=60)  # published: 300 s, five times as slow
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in MARKS.items()}
    torch.manual_seed(0)
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**LISTENER, "output_dim": 32, "initializer_range": 0.3},
        vision_config={**VIEWER, "fullatt_block_indexes": [0]},
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": OMNI_ROPE},
        audio_token_index=ids["audio_token"],
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        initializer_range=0.3,
    )
    thinker = Qwen2_5OmniThinkerForConditionalGeneration(config)
    _saved(thinker, folder, words.eos_token_id, words.pad_token_id)
    return _as_part(folder, Qwen2_5OmniConfig(thinker_config=config.to_dict()))


def qwen3_omni(folder: Path) -> Path:
    """Qwen3-Omni, a mixture of experts, as it is published."""
    words = _omni_processor(folder, "Qwen3OmniMoeProcessor", window_s=30)
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in MARKS.items()}
    torch.manual_seed(0)
    config = Qwen3OmniMoeThinkerConfig(
        audio_config={**LISTENER, "output_dim": 32, "downsample_hidden_size": 8, "initializer_range": 0.3},
        vision_config={**VIEWER, "deepstack_visual_indexes": [0]},
        text_config={
            **TEXT,
            "vocab_size": len(words),
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "head_dim": 16,
            "rope_parameters": {**OMNI_ROPE, "mrope_interleaved": True},
        },
        audio_token_id=ids["audio_token"],
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        initializer_range=0.3,
    )
    thinker = Qwen3OmniMoeThinkerForConditionalGeneration(config)
    _saved(thinker, folder, words.eos_token_id, words.pad_token_id)
    return _as_part(folder, Qwen3OmniMoeConfig(thinker_config=config.to_dict()))


def _omni_processor(folder: Path, name: str, window_s: int) -> PreTrainedTokenizerFast:
    """Write an omni model's processor as files: its class needs torchvision just to be there."""
    words = tokenizer()
    words.save_pretrained(folder)
    listening = WhisperFeatureExtractor(feature_size=128, chunk_length=window_s, return_attention_mask=True)
    looking = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    settings = {**listening.to_dict(), **looking, "processor_class": name}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return words


def _as_part(folder: Path, whole: Any) -> Path:
    """Make a thinker's checkpoint the thinker's part of a whole model's."""
    weights = folder / "model.safetensors"
    parts = {f"thinker.{name}": tensor.clone() for name, tensor in load_file(weights).items()}
    parts["talker.model.norm.weight"] = torch.ones(8)
    save_file(parts, weights, metadata={"format": "pt"})
    whole.save_pretrained(folder)
    return folder


def voxtral(folder: Path) -> Path:
    """Voxtral, whose vocabulary and prompt format come from mistral-common."""
    named = {
        0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]",
        6: "[/AVAILABLE_TOOLS]", 7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]", 11: "<pad>",
        14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]",
        19: "[TOOL_CONTENT]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]",
    }  # fmt: skip
    special = [
        {"rank": rank, "token_str": named.get(rank, f"<SPECIAL_{rank}>"), "is_control": True} for rank in range(40)
    ]
    single_bytes = [
        {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None}
        for byte in range(256)
    ]
    tekken = {
        "config": {
            "pattern": r"\s*\S+|\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 256 + len(special),
            "default_num_special_tokens": len(special),
            "version": "v7",
        },
        "vocab": single_bytes,
        "special_tokens": special,
        "version": 1,
        "type": "Tekken",
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(tekken))
    WhisperFeatureExtractor(feature_size=128, processor_class="VoxtralProcessor").save_pretrained(folder)
    torch.manual_seed(0)
    config = VoxtralConfig(
        # The projector takes four frames at once: 4 x 32 numbers.
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "initializer_range": 0.3,
        },
        text_config={**TEXT, "model_type": "llama", "vocab_size": 256 + len(special), "head_dim": 16},
        audio_token_id=24,
        initializer_range=0.3,
    )
    return _saved(VoxtralForConditionalGeneration(config), folder, end=2, padding=11)


def text_only(folder: Path) -> Path:
    """A Llama that reads and writes text, and hears nothing."""
    words = tokenizer()
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**TEXT, vocab_size=len(words), max_position_embeddings=16)
    return _saved(LlamaForCausalLM(config), folder, words.eos_token_id, words.pad_token_id)


def recurrent(folder: Path) -> Path:
    """An RWKV, which reads the filling of a batch like any other text: it knows no attention mask."""
    words = tokenizer()
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=len(words), hidden_size=32, attention_hidden_size=32, intermediate_size=64, num_hidden_layers=2
    )
    model = RwkvForCausalLM(config)
    for weights in model.parameters():
        if weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.3)
    return _saved(model, folder, words.eos_token_id, words.pad_token_id)
