"""The GPU kernel of window scores in Triton's interpreter, beside the float64 reference."""

from __future__ import annotations

import pytest
import torch

from support.triton_processes import Call
from vivace_kernels.prefill.window_scores_cpu import Heads, Scoring, window_scores_cpu, window_scores_reference

pytest.importorskip("triton")
from vivace_kernels.prefill.window_scores_gpu import window_scores_gpu

SCORINGS = (
    Scoring(),
    Scoring(heads="none", pool=1),
    Scoring(heads="max", pool=5),
    Scoring(heads="max", pool=3, pooled="after", keep_window=True, scale=0.5),
)


def normal(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scores_are_those_of_the_definition(
    interpreted: Call, group: int, dtype: torch.dtype, scoring: Scoring
) -> None:
    """Positions that are no multiple of a block, in one part of the keys and in several."""
    for window, positions in ((8, 139), (3, 40)):
        queries = normal(2 * group, window, 24, seed=1, dtype=dtype)
        keys = normal(2, positions, 24, seed=2, dtype=dtype)
        found = interpreted(window_scores_gpu, queries, keys, scoring)
        exact = window_scores_reference(queries, keys, scoring)
        assert found.dtype == torch.float32 and found.shape == exact.shape
        torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("heads", ["none", "sum", "max"])
def test_windows_and_groups_may_need_several_tiles(interpreted: Call, heads: Heads) -> None:
    """Three query heads, and a window of more queries than a tile has; keys that are a slice of others."""
    queries = normal(3, 70, 16, seed=3, dtype=torch.float16)
    keys = normal(1, 90, 16, seed=4, dtype=torch.float16)[:, 5:85]
    scoring = Scoring(heads=heads, pool=3, keep_window=True)
    found = interpreted(window_scores_gpu, queries, keys, scoring)
    torch.testing.assert_close(found.double(), window_scores_reference(queries, keys, scoring), rtol=2e-5, atol=1e-6)


def scores_of_layers(layers: list[tuple[torch.Tensor, ...]], scoring: Scoring) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's scores, whose log-sum-exp is known, and the largest of all layers."""
    (queries, keys), running = layers[0], torch.zeros(2, 60)
    window_scores_gpu(queries, keys, scoring, running=running)
    queries, keys = layers[1]
    whole = torch.full(queries.shape[:2], 3.5)
    return window_scores_gpu(queries, keys, scoring, running=running, log_sum_exp=whole), running


def test_a_running_maximum_and_a_given_log_sum_exp(interpreted: Call) -> None:
    scoring = Scoring()
    layers = [
        (normal(4, 4, 16, seed=layer, dtype=torch.float32), normal(2, 64, 16, seed=9 + layer, dtype=torch.float32))
        for layer in range(2)
    ]
    found, running = interpreted(scores_of_layers, layers, scoring)
    exact = window_scores_cpu(*layers[1], scoring, log_sum_exp=torch.full((4, 4), 3.5))
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(running, torch.maximum(exact, window_scores_cpu(*layers[0], scoring)))


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="know bfloat16, float16 and float32, and not"):
        window_scores_gpu(torch.ones(2, 2, 8).double(), torch.ones(2, 9, 8).double(), Scoring())
    with pytest.raises(ValueError, match="run on a CUDA device"):
        window_scores_gpu(torch.ones(2, 2, 8), torch.ones(2, 9, 8), Scoring())
