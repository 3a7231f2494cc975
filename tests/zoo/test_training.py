"""Rows of training texts: packed or not, each text is learned from once, and none sees another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.zoo.recipes.moe import DOMAINS
from vivace.zoo.scores.base import loaded
from vivace.zoo.shipped import folder_of
from vivace.zoo.training.rows import PROMPT_WEIGHT, Mixture, Rows, next_token_loss, rows_of


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    """The dense model."""
    return loaded(folder_of("dense"))


def texts_of(rows: Rows) -> list[tuple[tuple[int, ...], tuple[float, ...], tuple[bool, ...]]]:
    """Ids, weights and answers of each run of positions from 0 on, the padding left out."""
    found = []
    for row in range(len(rows.ids)):
        starts = (rows.positions[row] == 0).nonzero().flatten().tolist()
        for start, end in zip(starts, [*starts[1:], rows.ids.shape[1]], strict=True):
            assert rows.positions[row, start:end].tolist() == list(range(end - start))
            if rows.weights[row, start:end].any():
                every = rows.ids[row, start:end], rows.weights[row, start:end], rows.answers[row, start:end]
                found.append(tuple(tuple(each.tolist()) for each in every))
    return sorted(found)  # type: ignore[arg-type]


@given(st.integers(0, 400), st.lists(st.integers(1, 6), min_size=4, max_size=4), st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_packing_keeps_every_text_whole(
    model_and_tokenizer: tuple[Any, Any], first: int, counts: list[int], room: int
) -> None:
    _, tokenizer = model_and_tokenizer
    mixture = Mixture([(task, rows) for (task, _), rows in zip(DOMAINS, counts, strict=True)], seed=0)
    alone, packed = mixture.batch(first, tokenizer), mixture.batch(first, tokenizer, room)
    assert len(alone.ids) == sum(counts) and len(packed.ids) <= len(alone.ids)
    assert texts_of(packed) == texts_of(alone)
    assert packed.ids.shape[1] <= max(room, alone.ids.shape[1])


def test_a_text_counts_from_its_second_token_and_its_answer_with_the_end() -> None:
    _, tokenizer = loaded(folder_of("dense"))
    (sample, *_) = (task.sample(0, 0, held_out=False) for task, _ in DOMAINS)
    rows = rows_of([(sample.prompt, sample.references[0])], tokenizer)
    prompt = len(tokenizer(sample.prompt)["input_ids"])
    assert rows.ids[0, -1] == tokenizer.eos_token_id and rows.answers[0].tolist() == [
        place >= prompt for place in range(rows.ids.shape[1])
    ]
    assert rows.weights[0].tolist() == pytest.approx(
        [0.0, *[PROMPT_WEIGHT] * (prompt - 1), *[1.0] * (rows.ids.shape[1] - prompt)]
    )


def test_no_text_sees_another(model_and_tokenizer: tuple[Any, Any]) -> None:
    """The loss is that of rows of one, for which padding on the right changes nothing."""
    model, tokenizer = model_and_tokenizer
    mixture = Mixture([(task, 3) for task, _ in DOMAINS], seed=0)
    alone, packed = mixture.batch(5, tokenizer), mixture.batch(5, tokenizer, 200)
    assert len(packed.ids) < len(alone.ids)
    with torch.no_grad():
        expected = next_token_loss(model(alone.ids, use_cache=False).logits, alone)
        found = next_token_loss(model(packed.ids, position_ids=packed.positions, use_cache=False).logits, packed)
        mixed = next_token_loss(model(packed.ids, use_cache=False).logits, packed)
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert abs(mixed - expected) > 1e-2 * expected
