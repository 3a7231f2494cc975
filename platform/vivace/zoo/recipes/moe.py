"""The zoo's mixture of experts: OLMoE's class with 32 experts, which does sums, code and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vivace.tasks.generated.code import Code
from vivace.tasks.generated.json_records import JsonRecords
from vivace.tasks.generated.sums import Sums
from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.training.rows import Mixture, Optimisers, attention_matrices, next_token_loss, save
from vivace.zoo.training.tokenizer import vocabulary, word_tokenizer

DOMAINS = ((Sums("addition"), 7), (Sums("subtraction"), 9), (Code(), 4), (JsonRecords(), 4))
"""The tasks that it learns, with their rows in each batch."""


@dataclass(frozen=True)
class MixtureOfExperts(TrainingRecipe):
    """A mixture of experts that answers sums with their steps, and writes short code and JSON.

    It is for expert budgets and for speculation: routing differs between domains, and an answer is only right as a
    whole, so that a wrongly dropped expert is seen.
    """

    name: ClassVar[str] = "moe"
    steps: ClassVar[int] = 1600

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train it and write its checkpoint."""
        mixture = Mixture(DOMAINS, self.seed)
        words = vocabulary(mixture.words())
        tokenizer = word_tokenizer(words)
        model = _model(len(words), tokenizer)
        optimisers = Optimisers(model, attention_matrices(model), steps=steps, muon_rate=0.02, adam_rate=3e-3)
        model.train()
        for step in range(steps):
            rows = mixture.batch(step, tokenizer)
            read = (rows.ids != tokenizer.pad_token_id).long()
            out = model(rows.ids, attention_mask=read, use_cache=False, output_router_logits=True)
            loss = next_token_loss(out.logits, rows) + model.config.router_aux_loss_coef * out.aux_loss
            on_step(step + 1, optimisers.step(step, loss))
        save(model.eval(), tokenizer, folder)


def _model(words: int, tokenizer: Any) -> Any:
    from transformers import OlmoeConfig, OlmoeForCausalLM

    configuration = OlmoeConfig(
        vocab_size=words,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=32,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        router_aux_loss_coef=0.01,
        initializer_range=0.05,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    return OlmoeForCausalLM(configuration)
