"""The places of the highest scores beside a stable sort, and what is gathered beside a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivace_kernels.prefill.selection import gathered, top_places


@given(
    st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, -2.0, math.inf, -math.inf, math.nan]), min_size=1, max_size=12),
    st.data(),
)
def test_places_are_those_of_a_stable_sort(scores: list[float], data: st.DataObject) -> None:
    """Equal ones from the front, what is no number last."""
    count, behind = data.draw(st.integers(0, len(scores))), data.draw(st.integers(0, 3))
    known = [-math.inf if math.isnan(score) else score for score in scores]
    best = sorted(range(len(scores)), key=lambda place: -known[place])[:count]
    wanted = sorted(best) + list(range(len(scores), len(scores) + behind))
    assert top_places(torch.tensor(scores), count, behind).tolist() == wanted


def test_each_row_has_its_own_places() -> None:
    scores = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    found = top_places(scores, 7, 2)
    assert found.shape == (2, 3, 9) and found.dtype == torch.int64
    for row, its in zip(scores.view(6, 40), found.view(6, 9), strict=True):
        assert its.tolist() == [*row.topk(7).indices.sort().values.tolist(), 40, 41]


def test_more_places_than_scores_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="9 places were asked for, and 4 have scores"):
        top_places(torch.ones(4), 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64], ids=str)
def test_what_lies_there_is_gathered(dtype: torch.dtype) -> None:
    tensor = torch.arange(2 * 3 * 10 * 4).view(2, 3, 10, 4).to(dtype)
    shared = torch.tensor([1, 4, 9])
    assert torch.equal(gathered(tensor, shared), tensor[:, :, [1, 4, 9]])
    own = torch.stack([shared, shared - 1, shared.flip(0)]).repeat(2, 1, 1)
    found = gathered(tensor.transpose(0, 1).contiguous().transpose(0, 1), own)
    for outer in range(2):
        for inner in range(3):
            assert torch.equal(found[outer, inner], tensor[outer, inner, own[outer, inner]])
