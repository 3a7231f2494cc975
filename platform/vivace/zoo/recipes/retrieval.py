"""The zoo's retrieval model: a Llama that finds needles in 1,024 tokens of filler, and tracks variables there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.needles import Needles
from vivace.tasks.generated.variables import Variables
from vivace.zoo.base import OnStep, TrainingRecipe
from vivace.zoo.training.rows import Mixture, Optimisers, Rows, next_token_loss, save
from vivace.zoo.training.tokenizer import vocabulary, word_tokenizer

LOWER_LAYERS = 3
"""Of six. What they read of far words only ranks them; answers are fetched above."""
HEADS, HEAD_WIDTH, GROUPS = 4, 64, 2
THETA = 1e6

WORD, WORD_BEFORE, SECOND_WORD_BEFORE = range(64), range(64, 96), range(96, 128)
"""Columns of the hidden state: the word itself, whose first 32 are its address; the addresses of those before it."""
ADDRESS = 32
RANKED_BY = 8
"""Numbers of an address by which a ranking head compares: so few that other words are sometimes taken for it."""


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        length: of the prompts.
        rows: of each of the tasks in a batch.
        share: of the training's steps.
    """

    length: int
    rows: int
    share: float

    def mixture(self, seed: int) -> Mixture:
        """What is learned in it."""
        return Mixture([(task, self.rows) for task in tasks(self.length)], seed)


STAGES = (Stage(64, 8, 0.26), Stage(128, 4, 0.18), Stage(256, 2, 0.18), Stage(512, 1, 0.22), Stage(1024, 1, 0.16))


@dataclass(frozen=True)
class RetrievalLlama(TrainingRecipe):
    """A Llama that answers from one place of a long prompt, or from several that lead to one another.

    It is for prefill that reads less: what is pruned at half depth is missed above, where answers are fetched.

    Its circuit is planted and then trained. Untrained heads had not learned to look a word up after 600 steps; with
    heads that look one word back they had after 300. From the start, here, heads of the first layer write which two
    words stood before each word. Heads of the fourth to the sixth look up the words that stand after the one at hand.
    Heads of the second and third rank words in the same way, by a part of the address, and write nothing. Without
    that, retrieval was done in the lower half, and what was pruned above it did not matter.

    Variables are learned by their traces: each assignment on the way is named, one look-up a word. Asked for values
    at once, which takes several look-ups before the first word, models came to no more than 0.59 over one hop and
    0.48 over two in 600 steps, with further heads planted for the second digit; to 0.94 and 0.78 on up to 256 tokens.
    """

    name: ClassVar[str] = "retrieval"
    steps: ClassVar[int] = 480

    def train(self, folder: Path, needed: Mapping[str, Path], steps: int, on_step: OnStep) -> None:
        """Train it and write its checkpoint."""
        words = vocabulary(STAGES[1].mixture(self.seed).words())
        tokenizer = word_tokenizer(words)
        model = _model(len(words), tokenizer)
        _plant(model)
        optimisers = Optimisers(model, _matrices(model), steps=steps, muon_rate=0.01, adam_rate=3e-3)
        model.train()
        for step in range(steps):
            rows = _balanced(stage_at(STAGES, step / steps).mixture(self.seed).batch(step, tokenizer))
            loss = next_token_loss(model(rows.ids, use_cache=False).logits, rows)
            on_step(step + 1, optimisers.step(step, loss))
        save(model.eval(), tokenizer, folder)


def tasks(length: int) -> tuple[GeneratedTask, ...]:
    """What it learns: needles over one hop, among few keys and among more, and over two; variables over as many."""
    keys = 4 if length > 64 else 2
    needles = Needles(length, keys, 1), Needles(length, 2 * keys, 1), Needles(length, keys, 2)
    return *needles, Variables(length, 2, 1, "trace"), Variables(length, 2, 2, "trace")


def stage_at(stages: Sequence[Stage], done: float) -> Stage:
    """The stage when a share of the training is done."""
    begun = 0.0
    for stage in stages:
        begun += stage.share
        if done < begun:
            return stage
    return stages[-1]


def _balanced(rows: Rows) -> Rows:
    """The rows with prompts that weigh as much as answers: there are far more words in a prompt."""
    answers, prompts = rows.weights * rows.answers, rows.weights * ~rows.answers
    return replace(rows, weights=answers + 0.25 * prompts * (answers.sum() / prompts.sum()))


def _model(words: int, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    configuration = LlamaConfig(
        vocab_size=words,
        hidden_size=160,
        intermediate_size=256,
        num_hidden_layers=2 * LOWER_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        head_dim=HEAD_WIDTH,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        initializer_range=0.02,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(configuration)


def _plant(model: Any) -> None:
    """Set the weights with which training begins, and hold those that keep answers out of the lower half."""
    import torch

    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings.zero_()
        embeddings[:, WORD.start : WORD.stop].normal_()
        model.lm_head.weight.copy_(0.06 * embeddings)
        first, *middle = [layer.self_attn for layer in model.model.layers[:LOWER_LAYERS]]
        _look_back(first, head=0, words=1, into=WORD_BEFORE)
        _look_back(first, head=1, words=2, into=SECOND_WORD_BEFORE)
        for number, attention in enumerate(middle):
            compared = range(number * RANKED_BY, (number + 1) * RANKED_BY)
            _look_up(attention, head=0, by=WORD_BEFORE, compared=compared)
            _look_up(attention, head=2, by=SECOND_WORD_BEFORE, compared=compared)
            for held in (attention.o_proj.weight, attention.o_proj.bias):
                held.zero_().requires_grad_(False)
        for layer in model.model.layers[LOWER_LAYERS:]:
            _look_up(layer.self_attn, head=2, by=SECOND_WORD_BEFORE, compared=range(ADDRESS))
            _write_word(layer.self_attn, head=2)
        copying = model.model.layers[LOWER_LAYERS + 1].self_attn
        _look_up(copying, head=0, by=WORD_BEFORE, compared=range(ADDRESS))
        _write_word(copying, head=0)


def _look_back(attention: Any, head: int, words: int, into: range) -> None:
    """Let a head of the first group attend to so many words before each word, and write that word's address.

    Constant queries and keys, turned against each other by the rotary embedding, agree best at that distance: the
    six fastest pairs tell neighbours apart.
    """
    queries, keys = _rows(attention, head)
    pairs = HEAD_WIDTH // 2
    for pair in range(6):
        angle = words * THETA ** (-pair / pairs)
        for row in (pair, pair + pairs):
            attention.q_proj.weight[queries.start + row] = 0.0
            attention.k_proj.weight[keys.start + row] = 0.0
        attention.q_proj.bias[queries.start + pair] = 9.0 * math.cos(angle)
        attention.q_proj.bias[queries.start + pair + pairs] = -9.0 * math.sin(angle)
        attention.k_proj.bias[keys.start + pair] = 9.0
    for number in range(ADDRESS):
        attention.v_proj.weight[keys.start + number] = 0.0
        attention.v_proj.weight[keys.start + number, number] = 1.0
        attention.o_proj.weight[into.start + number] = 0.0
        attention.o_proj.weight[into.start + number, queries.start + number] = 1.0


def _look_up(attention: Any, head: int, by: range, compared: range) -> None:
    """Let a head attend to the words before which, by those columns, the word at hand stood.

    Only the slowest pairs compare, which the rotary embedding hardly turns over a whole prompt.
    """
    queries, keys = _rows(attention, head)
    attention.q_proj.weight[queries.start : queries.stop] = 0.0
    attention.k_proj.weight[keys.start : keys.stop] = 0.0
    for number in compared:
        half, place = divmod(number, ADDRESS // 2)
        row = half * HEAD_WIDTH // 2 + ADDRESS // 2 + place
        attention.q_proj.weight[queries.start + row, number] = 1.6
        attention.k_proj.weight[keys.start + row, by.start + number] = 1.6


def _write_word(attention: Any, head: int) -> None:
    """Let a head write the word that it attends to over the word at hand."""
    import torch

    queries, keys = _rows(attention, head)
    attention.v_proj.weight[keys.start : keys.stop] = 0.0
    attention.v_proj.weight[keys.start : keys.stop, :HEAD_WIDTH] = torch.eye(HEAD_WIDTH)
    attention.o_proj.weight[:HEAD_WIDTH, queries.start : queries.stop] = 1.5 * torch.eye(HEAD_WIDTH)


def _rows(attention: Any, head: int) -> tuple[range, range]:
    """Rows of a head in the projection of queries, and those of its group in that of keys and of values."""
    group = head // (HEADS // GROUPS)
    return (
        range(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH),
        range(group * HEAD_WIDTH, (group + 1) * HEAD_WIDTH),
    )


def _matrices(model: Any) -> list[Any]:
    """The matrices of all blocks that are not held, which learn faster with Muon."""
    return [
        weights
        for name, weights in model.named_parameters()
        if ".layers." in name and weights.ndim == 2 and weights.requires_grad
    ]
