"""A tiny local model that knows its replies by heart: real weights, whose damage is heard, and no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ALL_THAT_IS_SAID = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %} {% endif %}{% endfor %}"
)
END = "<end>"


def write_memorising_model(folder: Path, replies: Mapping[str, str]) -> Path:
    """Write a checkpoint of a Llama that answers the last word it is told with a reply; the folder.

    Each such word and each reply is a token. They stand at right angles to one another in the hidden state, layers
    add nothing to it, and the head has a reply where its word is, and the end where a reply is.

    Args:
        folder: where the checkpoint goes; it is made.
        replies: last word of a conversation → what is replied to it.
    """
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({character: number for number, character in enumerate(characters)}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words.add_tokens([AddedToken(text, normalized=False) for text in (*replies, *replies.values())])
    words.add_special_tokens([END])
    known, width = len(characters), 2 * len(replies)
    assert words.get_vocab_size() == known + width + 1, "words and replies are all different"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = ALL_THAT_IS_SAID
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=known + width + 1, hidden_size=width, intermediate_size=4, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=8192, bos_token_id=None,
        eos_token_id=known + width,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    layer = model.model.layers[0]
    with torch.no_grad():
        for each in (model.model.embed_tokens, model.lm_head, layer.self_attn.o_proj, layer.mlp.down_proj):
            each.weight.zero_()
        model.model.embed_tokens.weight[known : known + width] = torch.eye(width)
        for number in range(len(replies)):
            model.lm_head.weight[known + len(replies) + number, number] = 1.0
            model.lm_head.weight[known + width, len(replies) + number] = 1.0
    model.save_pretrained(folder)
    return folder


def mix_up(folder: Path) -> None:
    """Damage the weights of such a model at a stroke: each word is answered with what belongs to another."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    head = weights["lm_head.weight"]
    known = head.any(dim=1)
    known[-1] = False
    head[known] = head[known].roll(1, 0)
    save_file(weights, folder / "damaged", metadata={"format": "pt"})
    (folder / "damaged").replace(folder / "model.safetensors")
