"""Scores of a window of queries beside their float64 reference, and the reference beside plain attention."""

from __future__ import annotations

import math

import pytest
import torch

from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_kernels.prefill.window_scores_cpu import pooled, window_scores_reference

SCORINGS = (
    Scoring(),
    Scoring(heads="none", pool=1),
    Scoring(heads="max", pool=5),
    Scoring(heads="max", pool=5, pooled="after", keep_window=True),
    Scoring(heads="sum", pool=13, keep_window=True, scale=1.0),
    Scoring(heads="none", pool=3),
)


def drawn(heads: int, key_heads: int, window: int, positions: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Queries and keys."""
    chance = torch.Generator().manual_seed(positions + heads)
    return (
        torch.randn(heads, window, 16, generator=chance).to(dtype),
        torch.randn(key_heads, positions, 16, generator=chance).to(dtype),
    )


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (8, 2), (8, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_scores_are_those_of_the_definition(heads: int, key_heads: int, dtype: torch.dtype, scoring: Scoring) -> None:
    for window, positions in ((8, 131), (1, 9), (5, 5), (6, 7)):
        queries, keys = drawn(heads, key_heads, window, positions, dtype)
        exact = window_scores_reference(queries, keys, scoring)
        found = window_scores(queries, keys, scoring)
        assert found.dtype == torch.float32 and found.shape == exact.shape
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_the_reference_is_what_causal_attention_gives_from_the_window() -> None:
    """From the whole matrix of all tokens by all tokens, as nobody should have to hold it."""
    queries, keys = drawn(6, 2, 20, 20, torch.float64)
    logits = queries @ keys.repeat_interleave(3, 0).transpose(1, 2) / math.sqrt(16)
    matrix = logits.masked_fill(torch.ones(20, 20).triu(1).bool(), -math.inf).softmax(-1)
    summed = matrix[:, 12:].sum(1)
    torch.testing.assert_close(
        window_scores_reference(queries[:, 12:], keys, Scoring(heads="none", pool=1, keep_window=True)), summed
    )
    by_head = pooled(summed[:, :12], 7).view(2, 3, 12)
    torch.testing.assert_close(window_scores_reference(queries[:, 12:], keys, Scoring()), by_head.sum(1))
    torch.testing.assert_close(window_scores_reference(queries[:, 12:], keys, Scoring(heads="max")), by_head.amax(1))


def test_pooling_counts_zeros_beyond_the_ends() -> None:
    assert pooled(torch.ones(1, 9) * 7, 7).tolist() == [[4, 5, 6, 7, 7, 7, 6, 5, 4]]


def test_a_running_maximum_holds_the_largest_of_all_layers() -> None:
    scoring, running = Scoring(), torch.zeros(2, 30)
    queries, keys = drawn(8, 2, 4, 34, torch.float32)
    layers = [(queries, keys), (queries.flip(2), keys)]
    exact = [window_scores_reference(*layer, scoring) for layer in layers]
    for layer, its in zip(layers, exact, strict=True):
        torch.testing.assert_close(window_scores(*layer, scoring, running=running).double(), its)
    torch.testing.assert_close(running.double(), torch.maximum(*exact))
    torch.testing.assert_close(running.double(), window_scores_reference(*layers[1], scoring, running=exact[0]))


def test_a_given_log_sum_exp_is_taken() -> None:
    queries, keys = drawn(4, 2, 3, 20, torch.float32)
    found = window_scores(queries, keys, Scoring(pool=1), log_sum_exp=torch.full((4, 3), 100.0))
    logits = queries @ keys.repeat_interleave(2, 0).transpose(1, 2) / 4
    torch.testing.assert_close(found, (logits - 100).exp()[:, :, :17].sum(1).view(2, 2, 17).sum(1))


def test_a_slice_of_longer_keys_is_read_where_it_lies() -> None:
    queries, keys = drawn(4, 2, 3, 40, torch.float32)
    sliced = keys.transpose(0, 1).contiguous().transpose(0, 1)[:, 5:25]
    torch.testing.assert_close(
        window_scores(queries, sliced, Scoring()), window_scores(queries, sliced.contiguous(), Scoring())
    )


@pytest.mark.parametrize(
    ("queries", "keys", "running", "said"),
    [
        (torch.ones(4, 2, 8), torch.ones(3, 9, 8), None, "a multiple of key heads"),
        (torch.ones(4, 2, 8), torch.ones(2, 9, 4), None, "do not fit keys"),
        (torch.ones(4, 2, 8), torch.ones(2, 9, 8).half(), None, "keys torch.float16"),
        (torch.ones(4, 12, 8), torch.ones(2, 9, 8), None, "12 queries does not lie in 9"),
        (torch.ones(4, 2, 8), torch.ones(2, 9, 8), torch.ones(2, 9), r"of shape \(2, 7\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    queries: torch.Tensor, keys: torch.Tensor, running: torch.Tensor | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        window_scores(queries, keys, Scoring(), running=running)


def test_an_even_pool_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="an odd number of tokens, and not over 4"):
        Scoring(pool=4)
