"""Muon in float32: it walks where torch's walks, and its updates have singular values around one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.zoo.training.muon import Muon, orthogonal

SIZES = st.integers(1, 40)


@given(rows=SIZES, columns=SIZES, scale=st.sampled_from([1e-4, 1.0, 1e5]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_singular_values_end_around_one_and_directions_stay(rows: int, columns: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator))
    values = torch.logspace(0, -1.5, left.shape[1])
    found = left.T @ orthogonal(left @ torch.diag(values * scale) @ right.T) @ right
    assert found.diagonal().min() > 0.6 and found.diagonal().max() < 1.25
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)], ids=str)
def test_it_walks_where_torchs_walks(shape: tuple[int, int]) -> None:
    # The gradients are given, so that a difference does not feed itself; torch rounds each update to bfloat16.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    taken = [Muon([ours], 0.02), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)]
    for _ in range(12):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimiser in taken:
            optimiser.step()
    assert torch.linalg.norm(ours - theirs) < 0.02 * torch.linalg.norm(theirs - start)


def test_a_parameter_without_a_gradient_and_one_of_zeros_stay() -> None:
    untouched, still = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2, 3))
    still.grad = torch.zeros(2, 3)
    Muon([untouched, still], 0.1).step()
    assert torch.equal(untouched, torch.ones(3, 2)) and torch.equal(still, torch.ones(2, 3))
