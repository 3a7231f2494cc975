"""The zoo's dense language model: Llama's class, wide enough that thresholds on its activations mean something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.recipes.moe import DOMAINS
from vivace.zoo.training.rows import Mixture, Optimisers, attention_matrices, next_token_loss, save
from vivace.zoo.training.tokenizer import vocabulary, word_tokenizer

ROWS = (3, 6, 2, 5)
"""Of each domain in a batch. With 4, 6, 2 and 4, 0.904 of the answers were right after 1,300 steps."""

ROOM = 144
"""Tokens in a row of packed texts, of 45 to 82 each: a tenth is padding then, which is a quarter in rows of one."""


@dataclass(frozen=True)
class DenseLlama(TrainingRecipe):
    """A Llama that answers what the mixture of experts answers: sums with their steps, short code and JSON.

    It is for activation sparsity: seven linears in each block, without biases, whose inputs are 256 and 704 wide.

    With Muon on the MLPs, too (and AdamW at 2e-3), a step took a quarter longer, and 0.892 of the answers were right
    after 1,200 steps, in place of 0.938.
    """

    name: ClassVar[str] = "dense"
    steps: ClassVar[int] = 1200

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train it and write its checkpoint."""
        learned = mixture(self.seed)
        words = vocabulary(learned.words())
        tokenizer = word_tokenizer(words)
        model = _model(len(words), tokenizer)
        optimisers = Optimisers(
            model, attention_matrices(model), steps=steps, muon_rate=0.02, adam_rate=3e-3, falling=0.6
        )
        model.train()
        for step in range(steps):
            rows = learned.batch(step, tokenizer, ROOM)
            logits = model(rows.ids, position_ids=rows.positions, use_cache=False).logits
            on_step(step + 1, optimisers.step(step, next_token_loss(logits, rows)))
        save(model.eval(), tokenizer, folder)


def mixture(seed: int) -> Mixture:
    """What it learns, and its drafter with it."""
    return Mixture([(task, rows) for (task, _), rows in zip(DOMAINS, ROWS, strict=True)], seed)


def _model(words: int, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    configuration = LlamaConfig(
        vocab_size=words,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.05,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(configuration)
