"""A GGUF checkpoint of a tiny Llama, with a tokenizer and a chat template, written by the format's own package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy

TOKENS = ["<s>", "</s>", "<unk>", *map(chr, range(33, 127)), "Ġ", "he"]
"""Single characters, a space, and one that is merged."""
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write_gguf(
    path: Path, *, hidden: int = 32, layers: int = 2, architecture: str = "llama", seed: int = 0
) -> dict[str, numpy.ndarray]:
    """Write one, its embeddings packed to 8 bits; gives the tensors that it holds as they come out of the blocks."""
    draw = numpy.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * hidden)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 2, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    half = hidden // 2  # one key-value head of two heads
    shapes = {"token_embd": (len(TOKENS), hidden), "output_norm": (hidden,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_q": (hidden, hidden), "attn_k": (half, hidden), "attn_v": (half, hidden),
                "attn_output": (hidden, hidden), "attn_norm": (hidden,), "ffn_norm": (hidden,),
                "ffn_gate": (2 * hidden, hidden), "ffn_up": (2 * hidden, hidden), "ffn_down": (hidden, 2 * hidden),
            }.items()
        }  # fmt: skip
    held = {}
    packing = gguf.GGMLQuantizationType.Q8_0
    for name, shape in shapes.items():
        values = (0.2 * draw.standard_normal(shape)).astype(numpy.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            packed = gguf.quants.quantize(values, packing)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=packing)
            values = gguf.quants.dequantize(packed, packing)
        held[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held
