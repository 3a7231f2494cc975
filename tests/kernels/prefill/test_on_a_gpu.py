"""The kernels of prefill on a GPU, where there is one: long prompts, and heads as Llama has them."""

from __future__ import annotations

import pytest
import torch

from vivace_kernels.prefill.kept_attention import kept_attention
from vivace_kernels.prefill.kept_attention_cpu import kept_attention_cpu
from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_kernels.prefill.window_scores_cpu import window_scores_cpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_window_scores_of_a_long_prompt_hold_memory_in_proportion_to_it(dtype: torch.dtype) -> None:
    taken = []
    for positions in (8_001, 16_001):
        queries = torch.randn(32, 8, 128, device="cuda").to(dtype)
        keys = torch.randn(8, positions, 128, device="cuda").to(dtype)
        for scoring in (Scoring(), Scoring(heads="max", keep_window=True)):
            exact = window_scores_cpu(queries, keys, scoring)
            torch.testing.assert_close(window_scores(queries, keys, scoring), exact, rtol=1e-3, atol=1e-6)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        window_scores(queries, keys, Scoring())
        taken.append(torch.cuda.max_memory_allocated() - before)
    assert taken[1] < 2.2 * taken[0] < 2.2 * 8_001 * 8 * 4 * 4


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 2e-5), (torch.bfloat16, 2**-6), (torch.float16, 2**-9)], ids=str
)
def test_kept_queries_see_what_lies_before_them(dtype: torch.dtype, error: float, size: int) -> None:
    queries = torch.randn(32, 1_003, size, device="cuda").to(dtype)
    keys, values = torch.randn(2, 8, 9_001, size, device="cuda").to(dtype).unbind(0)
    places = torch.randperm(9_001, device="cuda")[:1_003].sort().values
    exact = kept_attention_cpu(queries.float(), keys.float(), values.float(), places)
    found = kept_attention(queries, keys, values, places).float()
    torch.testing.assert_close(found, exact, rtol=error, atol=error)
