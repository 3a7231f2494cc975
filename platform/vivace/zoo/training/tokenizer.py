"""The tokenizer of the zoo: words with the space before them, single digits, and text that comes back exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PIECE = r" ?[A-Za-z]+| ?[0-9]|\n| ?[^\sA-Za-z0-9]|\s"
"""A word, a digit or a sign, each with the space before it; a line's end; any other space by itself."""
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")


def pieces(text: str) -> list[str]:
    """The pieces of a text, which are its tokens where the vocabulary holds them."""
    return re.findall(_PIECE, text)


def vocabulary(texts: Iterable[str]) -> list[str]:
    """All pieces of some texts, sorted, the special ones first."""
    return [*SPECIAL, *sorted({piece for text in texts for piece in pieces(text)})]


def word_tokenizer(words: Iterable[str]) -> Any:
    """A tokenizer of transformers over a fixed vocabulary.

    It begins each text with `<bos>`, and what it decodes is what it was given, as long as every piece is in the
    vocabulary; any other piece becomes `<unk>`.

    Args:
        words: the vocabulary, in the order of its ids.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )
