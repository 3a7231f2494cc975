"""Shapes of models: those of published ones, and tiny ones of every architecture for trying out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REAL_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "meta-llama/Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "tie_word_embeddings": False,
    },
    "allenai/OLMoE-1B-7B-0125": {
        "model_type": "olmoe",
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
        "pad_token_id": 1,
        "eos_token_id": 50279,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "tie_word_embeddings": False,
    },
}
"""Repository on the hub → the numbers of its public `config.json`."""

_TINY = {
    "vocab_size": 199,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_FEW_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}
_FEW_LOCAL_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
_WINDOW = {"sliding_window": 16}
_ALTERNATING = {**_WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
TINY_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_TINY, "model_type": "llama"},
    "qwen3": {**_TINY, "model_type": "qwen3", "head_dim": 8},
    "olmoe": {**_TINY, "model_type": "olmoe", **_FEW_EXPERTS},
    "qwen3_moe": {
        **_TINY, "model_type": "qwen3_moe", "head_dim": 8, "moe_intermediate_size": 24, **_FEW_EXPERTS,
    },
    "mistral": {**_TINY, "model_type": "mistral", **_WINDOW},
    "qwen2": {**_TINY, "model_type": "qwen2"},
    "gemma": {**_TINY, "model_type": "gemma", "head_dim": 8},
    "gemma2": {**_TINY, "model_type": "gemma2", "head_dim": 8, **_ALTERNATING},
    "gemma3_text": {**_TINY, "model_type": "gemma3_text", "head_dim": 8, **_ALTERNATING},
    "mixtral": {**_TINY, "model_type": "mixtral", **_FEW_LOCAL_EXPERTS},
    "qwen2_moe": {
        **_TINY, "model_type": "qwen2_moe", "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
        **_FEW_EXPERTS,
    },
    "gpt_oss": {
        **_TINY, "model_type": "gpt_oss", "head_dim": 8, **_FEW_LOCAL_EXPERTS, **_ALTERNATING,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
"""Architecture → a shape that answers at once on any machine."""
